"""The sampler behind `solverkit tune`."""

from __future__ import annotations

import warnings
from typing import Any

import solverkit as sk
from solverkit import Grid, TunedPlans, load_plans
from solverkit.model.fingerprint import try_fingerprint

FIRST_ORDER = "first-order"


def prepare(denoiser: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Options with the plan of the file; warns where it was fitted to another network, class or guidance.

    Raises:
        LoadError: the file is no plan.
        ScheduleError: it was fitted on another schedule.
    """
    plan = options.get("plan")
    if plan is None or plan == FIRST_ORDER:  # a missing one is told where options are checked
        return options
    plans = plan if isinstance(plan, TunedPlans) else load_plans(plan)
    plans.require(denoiser.schedule)
    own = try_fingerprint(denoiser)
    if plans.fingerprint is not None and own is not None and own != plans.fingerprint:
        warnings.warn(
            f"the plan was fitted to the network {plans.fingerprint[:12]}, and this one is {own[:12]} (another network, "
            "class or guidance): its figures do not hold here. solverkit tune makes one for it.",
            stacklevel=4,
        )
    return {**options, "plan": plans}


@sk.sampler(
    "tuned",
    reference="sk.tune; Shaul et al. 2024, arXiv 2403.01329 (the family of plans)",
    cite="shaul2024",
    variants=({"plan": FIRST_ORDER},),
    prepare=prepare,
    from_the_top=True,
)
def tuned(model: Any, x: Any, grid: Grid, noise: Any, plan: str | TunedPlans) -> Any:
    """A fitted plan: x_{i+1} = w_i0 x_i + sum_{j <= i} w_i,1+j D_j at levels of its own.

    As many evaluations as the grid has steps, or the next lower budget that the file has. It has no order.
    Source: the family of plans of Shaul et al. 2024, arXiv 2403.01329, section 3.2; the fit is `sk.tune`'s own.

    Args:
        plan: A file of `solverkit tune`, or a folder or hub id that has one as plan.safetensors, or the name of a bundled
            network; what `sk.tune` returned; or "first-order" (no fit: D + (t / s) (x - D)).

    Raises:
        LoadError, BudgetError, ScheduleError, GridError: the file is no plan, or none for this run.
    """
    if plan == FIRST_ORDER:
        for s, t in grid.steps():
            denoised = model(x, s)
            x = denoised + (t / s) * (x - denoised)
        return x
    plans = plan if isinstance(plan, TunedPlans) else load_plans(plan)
    return plans.sampler(model, x, grid, noise)
