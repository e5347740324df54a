"""Where to jump to, and how to spend the steps after it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

from solverkit import GaussianStats, Grid, Plan, make_grid, trace
from solverkit.errors import GridError, OptionError
from solverkit.grid.named import parse_options
from solverkit.registry.registry import resolve

from .surrogate import surrogate

Allocation = Literal["spend", "keep"]
Laid = tuple[float, Grid]  # the loss of levels, and they
Place = tuple[float, str, float]  # first level, layout, last level above 0
LAYOUTS = ("karras", "karras:rho=3", "karras:rho=5", "karras:rho=12", "time-uniform")
CANDIDATES = 14
WORTH = 0.85  # of the error without a jump, that one must come down to: the surrogate is no better than that
DOUBT = 0.05  # data standard deviations (RMS), in both errors: that a sample ends in another mode is not linear
SLACK = 1.05  # of candidates that lose about as little, the highest jump: it leaves the most to the network
LOWEST = 0.5  # candidates go down to half a standard deviation of the leading direction
ENDS = 8  # last levels above 0, from ENDS_TOP data standard deviations (RMS over coordinates) down by ENDS_RATIO
ENDS_TOP, ENDS_RATIO = 1.5, 1.6
STAND_IN = "dpmpp-2m"  # weighed in the place of a sampler that draws noise


def tail(grid: Grid, ratio: float, layout: str, end: float | None = None) -> Grid:
    """As many steps as the grid has, from a level to its last one; before a last 0 comes `end`, or what the grid has there.

    Raises:
        GridError: a layout that cannot be laid there.
        UnknownNameError, OptionError: no such layout.
    """
    zero = grid[-1] == 0
    bottom = lowest(grid) if end is None else end
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


def solver_options(solver: str, stats: GaussianStats) -> tuple[str, dict[str, Any]]:
    """Name and options of a solver; one that needs statistics is given the jump's."""
    name, options = parse_options(solver)
    if "stats" in resolve(name).required:
        options.setdefault("stats", stats)
    return name, options


@functools.lru_cache(maxsize=256)
def chosen(
    stats: GaussianStats, solver: str, grid: Grid, allocation: Allocation, layout: str, jumps: bool = True
) -> Grid:
    """The levels that lose least on the surrogate of the network: from a jump, or from none.

    "spend" takes the least error over the level to jump to, the layout of all the steps, and the last level above 0; the
    grid itself is among them. "keep" drops the longest head of the grid whose loss does not raise the error. Without
    `jumps` the first level stays.

    Raises:
        OptionError: statistics without a profile.
    """
    if stats.profile is None:
        raise OptionError(
            'skip_to="auto" weighs what the network was measured to do, and these statistics hold no profile: use '
            "stats.measured(denoiser), or solverkit stats MODEL, or give skip_to as a level sigma/alpha."
        )
    model = surrogate(stats)
    name, options = solver_options(solver, model.gaussian)
    if trace(name, grid, **options).draws:
        name, options = STAND_IN, {}

    def loss(candidate: Grid) -> float:
        plan: Plan = trace(name, candidate, **options)
        return model.error(plan, grid)

    if allocation == "keep" and not jumps:
        return grid
    if allocation == "keep":
        limit, best = loss(grid) * 1.0001, grid
        for i in range(1, len(grid) - 1):
            if grid[i] > 0 and loss(grid.tail(i)) <= limit:
                best = grid.tail(i)
        return best

    @functools.cache
    def laid(ratio: float, layout: str, end: float) -> Laid:
        try:
            candidate = tail(grid, ratio, layout, end)
        except GridError:
            return math.inf, grid
        return loss(candidate), candidate

    layouts = LAYOUTS if layout == "auto" else (layout,)
    first, *lower = levels(stats, grid)
    below = ends(stats, grid)
    stay = min((loss(grid), grid), least(laid, [first], layouts, below)[0], key=lambda place: place[0])
    if not (lower and jumps):
        return stay[1]
    jump, (_, spacing, end) = least(laid, lower, layouts, below)
    doubt = DOUBT * math.sqrt(stats.variance)
    if math.hypot(jump[0], doubt) > WORTH * math.hypot(stay[0], doubt):
        return stay[1]
    equal = (laid(ratio, spacing, end) for ratio in lower)  # from the top down
    return next(candidate for lost, candidate in equal if lost <= SLACK * jump[0])


def least(
    laid: Callable[[float, str, float], Laid], ratios: Sequence[float], layouts: Sequence[str], ends: Sequence[float]
) -> tuple[Laid, Place]:
    """The least loss: in every layout the best first level, then the best last one, until neither moves."""
    found = []
    for layout in layouts:
        ratio, end, before = ratios[len(ratios) // 2], ends[len(ends) // 2], None
        while before != (ratio, end):
            before = ratio, end
            ratio = min(ratios, key=lambda r: laid(r, layout, end)[0])
            end = min(ends, key=lambda e: laid(ratio, layout, e)[0])
        found.append((laid(ratio, layout, end), (ratio, layout, end)))
    return min(found, key=lambda place: place[0][0])


def ends(stats: GaussianStats, grid: Grid) -> list[float]:
    """sigma / alpha of candidates for the last level above 0, falling; the grid's own alone where it ends above 0."""
    own = lowest(grid)
    if grid[-1] > 0:
        return [own]
    top = ENDS_TOP * math.sqrt(stats.variance)
    return [*(end for end in (top / ENDS_RATIO**i for i in range(ENDS)) if end > own), own]


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
