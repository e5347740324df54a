"""Where to jump to, and how to spend the steps after it."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from solverkit import GaussianStats, Grid, Plan, make_grid, trace
from solverkit.errors import GridError, OptionError
from solverkit.grid_choice import parse_options

from .surrogate import surrogate

Allocation = Literal["spend", "keep"]
LAYOUTS = ("karras", "karras:rho=3", "karras:rho=5", "karras:rho=12", "time-uniform")
CANDIDATES = 14
WORTH = 0.85  # of the error without a jump, that one must come down to: the surrogate is no better than that
SLACK = 1.05  # of candidates that lose about as little, the highest jump: it leaves the most to the network
LOWEST = 0.5  # candidates go down to half a standard deviation of the leading direction
STAND_IN = "dpmpp-2m"  # weighed in the place of a sampler that draws noise


def tail(grid: Grid, ratio: float, layout: str) -> Grid:
    """As many steps as the grid has, from a level to its last one.

    Raises:
        GridError: a layout that cannot be laid there.
        UnknownNameError, OptionError: no such layout.
    """
    zero = grid[-1] == 0
    bottom = lowest(grid)
    if not ratio > bottom:
        raise GridError(f"a jump to sigma/alpha = {ratio:.4g} leaves no steps above the last level {bottom:.4g}.")
    laid = make_grid(
        layout, grid.schedule, len(grid) - 1, ratio_max=ratio, ratio_min=bottom, last="zero" if zero else "min"
    )
    if laid.frame != grid.frame:
        laid = Grid.from_ratios(grid.schedule, [s.ratio for s in laid], grid.frame)
    first = grid[0] if ratio >= grid[0].ratio else laid[0]
    return replace(laid, levels=(first, *laid.levels[1:-1], grid[-1]))


def lowest(grid: Grid) -> float:
    """sigma / alpha of the last level above 0 that is asked; one step to 0 alone leaves that to the schedule."""
    if grid[-1] > 0:
        return grid[-1].ratio
    return grid[-2].ratio if len(grid) > 2 else grid.schedule.ratio_min


def tails(grid: Grid, ratio: float, layouts: Sequence[str]) -> list[Grid]:
    """Of the layouts that can be laid there."""
    found = []
    for layout in layouts:
        try:
            found.append(tail(grid, ratio, layout))
        except GridError:
            continue
    return found


def node(grid: Grid, ratio: float) -> int:
    """The grid's node nearest to a level in log-SNR, neither the first nor one without a step after it."""
    def far(i: int) -> float:
        return abs(math.log(grid[i].ratio / ratio))

    inner = [i for i in range(1, len(grid) - 1) if grid[i] > 0]
    return min(inner, key=far) if inner else 0


def fixed(grid: Grid, ratio: float, allocation: Allocation, layout: str) -> Grid:
    """The levels after a jump to a level that the user chose; the grid itself if it starts below."""
    if ratio >= grid[0].ratio:
        return grid
    if allocation == "keep":
        return grid.tail(node(grid, ratio))
    return tail(grid, ratio, LAYOUTS[0] if layout == "auto" else layout)


@functools.lru_cache(maxsize=256)
def chosen(stats: GaussianStats, solver: str, grid: Grid, allocation: Allocation, layout: str) -> Grid:
    """The levels that lose least on the surrogate of the network: from a jump, or from none.

    "spend" takes the least error over levels to jump to and layouts of all the steps; the grid itself is among them. "keep"
    drops the longest head of the grid whose loss does not raise the error.

    Raises:
        OptionError: statistics without a profile.
    """
    if stats.profile is None:
        raise OptionError(
            'skip_to="auto" weighs what the network was measured to do, and these statistics hold no profile: use '
            "stats.measured(denoiser), or solverkit stats MODEL, or give skip_to as a level sigma/alpha."
        )
    name, options = parse_options(solver)
    if trace(name, grid, **options).draws:
        name, options = STAND_IN, {}
    model = surrogate(stats)

    def loss(candidate: Grid) -> float:
        plan: Plan = trace(name, candidate, **options)
        return model.error(plan, grid)

    if allocation == "keep":
        limit, best = loss(grid) * 1.0001, grid
        for i in range(1, len(grid) - 1):
            if grid[i] > 0 and loss(grid.tail(i)) <= limit:
                best = grid.tail(i)
        return best
    layouts = LAYOUTS if layout == "auto" else (layout,)
    first, *lower = levels(stats, grid)
    stay = min([grid, *tails(grid, first, (*layouts, "log-snr"))], key=loss)
    jumps = [candidate for ratio in lower for candidate in tails(grid, ratio, layouts)]
    losses = [loss(candidate) for candidate in jumps]
    least = min(losses, default=math.inf)
    if least > WORTH * loss(stay):
        return stay
    return next(c for c, lost in zip(jumps, losses) if lost <= SLACK * least)  # they come from the top down


def levels(stats: GaussianStats, grid: Grid) -> list[float]:
    """sigma / alpha of candidates, from the grid's start down, evenly in log."""
    assert stats.profile is not None
    first = grid[0].ratio
    top = min(first, float(stats.profile.ratios[0]))
    bottom = lowest(grid)
    least = max(LOWEST * stats.spread, 2 * bottom)
    if not least < top:
        return [first]
    steps = [top * (least / top) ** (i / (CANDIDATES - 1)) for i in range(CANDIDATES)]
    return [first, *(steps if math.isinf(first) else steps[1:])]
