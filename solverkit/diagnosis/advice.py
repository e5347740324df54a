"""Which solver and grid, and what else to mind, with the figures that it rests on."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..errors import SolverKitError
from ..tuning.auto import NOISES, Choice
from .at_level import AtLevel
from .faults import NEAR

STEEP, WORSE = 1.1, 1.2


class Recommended(NamedTuple):
    """What to run with so many evaluations.

    Attributes:
        nfe: The budget.
        sampler: A registered sampler; "tuned" where a plan that is known for the network won.
        grid: A registered grid; None for a plan, which has its own levels.
        rms, median: Distance to the converged solution, NaN where it was not measured.
        noises: That they were measured on.
        said: In words, as `auto` reports it.
    """

    nfe: int
    sampler: str
    grid: str | None
    rms: float
    median: float
    noises: int
    said: str


def recommended(denoiser: Any, shape: tuple[int, ...], budgets: Sequence[int]) -> list[Recommended]:
    """What `auto` runs in each budget: the plan that is known, else the best pair of solver and grid of a short trial.

    Args:
        denoiser: Of the network.
        shape: Of one sample.
        budgets: Numbers of evaluations.

    Raises:
        BudgetError: nothing runs in a budget.
    """
    choice, found = Choice(denoiser, (NOISES, *shape)), []
    for nfe in budgets:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that a trial is made: the report says so
            chosen = choice.at(nfe)
        _, budget = chosen.plans.at(nfe)
        figures = budget.figures
        found.append(Recommended(
            nfe, budget.sampler or "tuned", budget.grid, float(figures.get("rms", math.nan)),
            float(figures.get("median", math.nan)), int(figures.get("noises", 0)), str(chosen.reports["auto"]),
        ))  # fmt: skip
    return found


def sentences(levels: Sequence[AtLevel], solvers: Sequence[Recommended], spread: float, guided: bool) -> list[str]:
    """The recommendation, a sentence a matter.

    Args:
        levels: Falling.
        solvers: See `recommended`.
        spread: Of the data.
        guided: Whether the denoiser is guided.
    """
    found = []
    for one in solvers:
        error = "" if math.isnan(one.rms) else f"; RMS {one.rms:.3g}, median {one.median:.3g} on {one.noises} noises"
        found.append(f"NFE {one.nfe}: {one.said}{error}.")
    good = [row for row in levels if not row.nonfinite and math.isfinite(row.ratio)]
    if len(good) < len([row for row in levels if math.isfinite(row.ratio)]):
        ends = f"ratio_max={max(r.ratio for r in good):.3g}, ratio_min={min(r.ratio for r in good):.3g}" if good else "none"
        found.append(f"Levels where every answer is finite: {ends}; keep the grid between them.")
    if good:
        steep = max(good, key=lambda row: row.lipschitz if math.isfinite(row.lipschitz) else -1.0)
        if steep.lipschitz > STEEP:
            found.append(
                f"D changes fastest at sigma/alpha = {steep.ratio:.3g} (Lipschitz constant {steep.lipschitz:.3g}): a grid "
                "needs its levels there."
            )
        found += _far(good, spread)
    near = [row for row in good if row.ratio <= NEAR[1] * spread]
    found += _precision(near, [one.rms for one in solvers if not math.isnan(one.rms)], spread)
    if guided and good:
        most = max(good, key=lambda row: row.guided if math.isfinite(row.guided) else -1.0)
        found.append(
            f"Guidance moves D by up to {most.guided:.3g} of the data's spread, at sigma/alpha = {most.ratio:.3g}."
        )
    return found


def _far(good: Sequence[AtLevel], spread: float) -> list[str]:
    """What a network loses at high noise; on the way to the data the flow shrinks an error there by spread over ratio."""
    far = [row for row in good if row.ratio > NEAR[1] * spread and row.loss > WORSE * row.linear]
    if not far:
        return []
    worst = max(far, key=lambda row: row.loss)
    felt = math.sqrt(worst.loss) * spread / worst.ratio
    return [
        f"From sigma/alpha = {min(row.ratio for row in far):.3g} up the network loses more than the mean would (RMS "
        f"{math.sqrt(worst.loss):.3g} at {worst.ratio:.3g}, bias {worst.bias:.2g}); asked there, it moves a "
        f"sample by about {felt:.1g}. A sampler that starts below, such as teleport, does not ask it there."
    ]


def _precision(good: Sequence[AtLevel], errors: Sequence[float], spread: float) -> list[str]:
    found = []
    for name in ("bfloat16", "float16"):
        known = [row for row in good if math.isfinite(getattr(row, name))]
        if not known:
            continue
        worst = max(known, key=lambda row: getattr(row, name))
        off, most = getattr(worst, name) * spread, max(row.ratio for row in known)
        text = f"{name} moves D by at most {off:.2g} (RMS) up to sigma/alpha = {most:.3g}"
        if errors:
            verdict = "less than the solver's own error" if off < min(errors) else "more than the solver's own error"
            text += f", {verdict} of {min(errors):.2g}"
        found.append(f"{text}.")
    return found


def tried(denoiser: Any, shape: tuple[int, ...], budgets: Sequence[int]) -> tuple[list[Recommended], list[str]]:
    """`recommended`, and why there is none where the network cannot be run."""
    try:
        return recommended(denoiser, shape, budgets), []
    except SolverKitError as error:
        return [], [f"No solver could be tried: {error}"]
