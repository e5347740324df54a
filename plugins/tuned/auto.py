"""The sampler that looks up, or tries out, what is best for a network."""

from __future__ import annotations

from typing import Any

import solverkit as sk
from solverkit import Grid
from solverkit.errors import OptionError
from solverkit.model.counting import report
from solverkit.tuning.auto import Choice

from .tuned import FIRST_ORDER, tuned

ADVICE = (
    "'auto' looks for a plan of the network that is sampled, and here is none: sk.sample(denoiser, 'auto', nfe=8), or "
    "solverkit show auto --model NAME. A scheduler does not see the network: name the plan there, sampler='tuned:FILE' "
    "(sk.known_plan(sk.load(pipe)) finds it)."
)


def prepare(denoiser: Any, options: dict[str, Any], shape: tuple[int, ...] | None = None) -> dict[str, Any]:
    """Options with the choice for this network, which is made when the budget is known."""
    return {"choice": Choice(denoiser, shape), **options}


@sk.sampler(
    "auto",
    reference="sk.tune: the plan that is known for the network, else the winner of a trial",
    cite="solverkit",
    variants=({"choice": FIRST_ORDER},),
    prepare=prepare,
    from_the_top=True,
    advice=ADVICE,
)
def auto(model: Any, x: Any, grid: Grid, noise: Any, choice: str | Choice) -> Any:
    """The plan that is known for the network and the budget; else the best of some solvers in a short trial.

    As many evaluations as the grid has steps, or fewer; levels are its own. `Result.reports` says what ran and why (auto),
    and how many rows of the network a trial took (trial_rows; 0 where there was none).
    Source: `sk.tune` for the plans; docs/tune.md says what a trial is, and what it costs.

    Args:
        choice: Found by `sk.sample` from the network. "first-order" is D + (t / s) (x - D), for the proofs.

    Raises:
        OptionError: another choice.
        GridError: a run that does not begin at the most noise, or does not end at 0.
    """
    if isinstance(choice, str):
        if choice != FIRST_ORDER:
            raise OptionError(f"'auto' chooses by itself, got choice={choice!r}: name that sampler in its place.")
        return tuned(model, x, grid, noise, FIRST_ORDER)
    chosen = choice.at(len(grid) - 1)
    for name, value in chosen.reports.items():
        report(name, value)
    return chosen.plans.sampler(model, x, grid, noise)
