"""Levels that a run could have: from a first one down, in a layout, to a last one above 0."""

from __future__ import annotations

import math
from dataclasses import replace

from solverkit import Grid, Level, make_grid
from solverkit.errors import GridError
from solverkit.process.level import FLOW_FRAME, from_ratio, to_ratio
from solverkit.process.schedule import Schedule

ENDED = ("karras", "karras:rho=3", "karras:rho=5", "karras:rho=12", "log-snr", "time-uniform")  # take a last level above 0
OWN = ("trailing", "flow", "flow:shift=3")  # the default grids of sk.sample; their last level follows from the steps


def told(grid: Grid) -> tuple[tuple[float, float, float, int], ...]:
    """What tells two grids apart: levels that compare equal may be told to the network as other times."""
    return tuple((float(s), s.time, s.scale, s.frame) for s in grid)


def lowest(grid: Grid) -> float:
    """sigma / alpha of the last level above 0 that is asked; one step to 0 alone leaves that to the schedule."""
    if grid[-1] > 0:
        return grid[-1].ratio
    return grid[-2].ratio if len(grid) > 2 else grid.schedule.ratio_min


def tail(grid: Grid, ratio: float, layout: str, end: float | None = None) -> Grid:
    """As many steps as the grid has, from a level to its last one; before a last 0 comes `end`, or what the grid has there.

    A layout of `OWN` ends where it ends by itself.

    Raises:
        GridError: a layout that cannot be laid there.
        UnknownNameError, OptionError: no such layout.
    """
    zero, schedule = grid[-1] == 0, grid.schedule
    if layout in OWN and zero:
        laid = Grid.from_ratios(schedule, own(layout, schedule, len(grid) - 1, ratio), grid.frame)
    else:
        bottom = lowest(grid) if end is None else end
        if not ratio > bottom:
            raise GridError(f"a jump to sigma/alpha = {ratio:.4g} leaves no steps above the last level {bottom:.4g}.")
        last = "zero" if zero else "min"
        laid = make_grid(layout, schedule, len(grid) - 1, ratio_max=ratio, ratio_min=bottom, last=last)
        if laid.frame != grid.frame:
            laid = Grid.from_ratios(schedule, [s.ratio for s in laid], grid.frame)
    first: Level = grid[0] if ratio >= grid[0].ratio else laid[0]
    return replace(laid, levels=(first, *laid.levels[1:-1], grid[-1]))


def own(layout: str, schedule: Schedule, n: int, top: float) -> list[float]:
    """sigma / alpha of n + 1 levels from `top` to 0: "trailing" in the network's time, "flow" in sigma / (alpha + sigma).

    Raises:
        GridError: the network's time does not fall to 0 with the noise.
    """
    if layout == "trailing":
        start = schedule.time(top)
        if not start > schedule.time(schedule.ratio_min) >= 0:
            raise GridError("the time that this network is told does not fall to 0 with the noise.")
        trained = 1 if schedule.integer_time else 0  # its timesteps are 0 .. T - 1: T / n - 1 is the last of n
        return [top, *(schedule.ratio((start + trained) * (1 - i / n) - trained) for i in range(1, n)), 0.0]
    shift = 3.0 if layout == "flow:shift=3" else getattr(schedule, "shift", 1.0)
    high = from_ratio(top, FLOW_FRAME)
    start = high / (shift - (shift - 1) * high)
    times = [start * (1 - i / n) for i in range(1, n)]
    ratios = [to_ratio(shift * t / (1 + (shift - 1) * t), FLOW_FRAME) for t in times]
    return [top, *(r for r in ratios if r >= schedule.ratio_min), 0.0]


def node(grid: Grid, ratio: float) -> int:
    """The grid's node nearest to a level in log-SNR, neither the first nor one without a step after it."""
    def far(i: int) -> float:
        return abs(math.log(grid[i].ratio / ratio))

    inner = [i for i in range(1, len(grid) - 1) if grid[i] > 0]
    return min(inner, key=far) if inner else 0
