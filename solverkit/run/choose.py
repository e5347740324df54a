"""The grid of a run from what the user gave: a name, a budget, explicit levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..errors import BudgetError, GridError
from ..grid.grid import Grid
from ..grid.named import is_count, lay, make_grid, say_capped
from ..plan.trace import trace
from ..process.level import FLOW_FRAME
from ..process.schedule import Schedule
from ..registry.registry import SamplerCard


def default_grid(card: SamplerCard, schedule: Schedule) -> str:
    """The grid that is used when the user names none: the best single choice that was measured (docs/benchmarks.md)."""
    if math.isinf(schedule.ratio_max):
        return "flow"
    return card.grid or ("trailing" if hasattr(schedule, "num_train_timesteps") else "karras")


def fit_grid(card: SamplerCard, name: str, schedule: Schedule, nfe: int, options: dict[str, Any]) -> Grid:
    """The grid with the largest step count whose traced NFE is at most `nfe`.

    Raises:
        BudgetError: one step already needs more; says the least.
    """
    def fits(n: int) -> bool:
        try:
            return trace(card, lay(name, schedule, n), **options).nfe <= nfe
        except GridError:  # the grid cannot have so many steps
            return False

    low, high = 1, nfe
    if fits(high):  # one evaluation a step: the usual case
        low = high
    else:
        least = trace(card, lay(name, schedule, 1), **options).nfe
        if nfe < least:
            raise BudgetError(f"{card.name!r} needs at least {least} network evaluations, got nfe={nfe}.")
        high -= 1
        while low < high:  # NFE grows with the number of steps: bisect
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle) else (low, middle - 1)
    say_capped(schedule, low)
    return lay(name, schedule, low)


def choose_grid(
    card: SamplerCard,
    schedule: Schedule,
    nfe: int | None,
    steps: int | None,
    grid: str | Grid | None,
    levels: Sequence[float] | None,
    options: dict[str, Any],
) -> Grid:
    """The levels of a run from what the user gave."""
    card, options = card.pace(options)
    if levels is not None:
        if grid is not None or nfe is not None or steps is not None:
            raise GridError("levels= is run exactly as given; leave out grid=, nfe= and steps=.")
        return explicit_grid(schedule, levels)
    if isinstance(grid, Grid):
        if nfe is not None or steps is not None:
            raise GridError("a Grid object already has its steps; leave out nfe= and steps=.")
        if grid.schedule != schedule:
            raise GridError(
                f"the grid was made for {grid.schedule}, the denoiser has {schedule}: the network would be told wrong "
                "times. Make it with sk.make_grid(name, denoiser.schedule, n)."
            )
        return grid
    if grid is not None and not isinstance(grid, str):
        raise GridError(f"grid must be a name or a Grid, got {type(grid).__name__}; explicit levels go to levels=.")
    if nfe is None and steps is None and not card.traceable:
        steps = 1  # it lays out its own steps between the ends of the grid
    if (nfe is None) == (steps is None):
        raise BudgetError("say how long to run: exactly one of nfe=, steps=, levels= or a Grid object.")
    for label, count in (("nfe", nfe), ("steps", steps)):
        if count is not None and not is_count(count):
            raise BudgetError(f"{label} must be a positive integer, got {count!r}.")
    name = default_grid(card, schedule) if grid is None else grid
    if nfe is None:
        return make_grid(name, schedule, int(steps or 0))
    if not card.traceable:
        raise BudgetError(f"{card.name!r} decides itself how often to ask; leave out nfe=, give its tolerances or steps=.")
    return fit_grid(card, name, schedule, int(nfe), options)


def explicit_grid(schedule: Schedule, levels: Sequence[float]) -> Grid:
    """The grid of exactly these levels: sigma / alpha, or sigma in [0, 1] in the flow frame.

    Raises:
        GridError: levels that are no numbers, negative, above 1 in the flow frame, or rising.
    """
    most = 1.0 if schedule.frame == FLOW_FRAME else math.inf
    try:
        values = [float(s) for s in levels]
    except (TypeError, ValueError):
        raise GridError(f"levels must be a sequence of numbers, got {levels!r}.") from None
    for s in values:
        if not 0 <= s <= most:  # false for NaN too
            raise GridError(f"noise levels of this model must be numbers >= 0 and <= {most}, got {s!r}.")
    return Grid(tuple(schedule.at(s) for s in values), schedule)
