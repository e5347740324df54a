"""Where to jump to, and how to spend the steps after it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from solverkit import GaussianStats, Grid, Plan, trace
from solverkit.errors import GridError, OptionError
from solverkit.plan.clock import planning
from solverkit.registry.registry import resolve
from solverkit.steps import parse_options

from .layouts import ENDED, OWN, lowest, node, tail, told
from .surrogate import Surrogate, surrogate

Allocation = Literal["spend", "keep"]
CANDIDATES = 14
SLACK = 1.05  # of candidates that lose about as little, the highest jump: it leaves the most to the network
LOWEST = 0.5  # candidates go down to half a standard deviation of the leading direction
ENDS = 8  # last levels above 0, from ENDS_TOP data standard deviations (RMS over coordinates) down by ENDS_RATIO
ENDS_TOP, ENDS_RATIO = 1.5, 1.6
REFINED = 4  # layouts that are looked into, of those that lose least with a middling jump and end
RELAID = 0.9  # of the grid's own error on the held-out trajectories, that other levels must come down to
WORTH = 0.85  # of the error without a jump there, that a jump must come down to
UNEVEN = 0.6  # both, of a solver whose weights suit even steps only (iPNDM): the surrogate misjudges its error, most where
# steps are uneven, so that such a solver is laid in the layouts of OWN alone
STAND_IN = "dpmpp-2m"  # weighed in the place of a sampler that draws noise


class Chosen(NamedTuple):
    """Levels that were chosen, and the name of their layout."""

    grid: Grid
    layout: str


class Candidate(NamedTuple):
    """Levels, what they lose on the trajectories that choose, and what they are made of."""

    loss: float
    grid: Grid
    ratio: float
    layout: str
    end: float


def fixed(grid: Grid, ratio: float, allocation: Allocation, layout: str) -> Chosen:
    """The levels after a jump to a level that the user chose; the grid itself if it starts below."""
    if ratio >= grid[0].ratio:
        return Chosen(grid, "given")
    if allocation == "keep":
        return Chosen(grid.tail(node(grid, ratio)), "given")
    layout = ENDED[0] if layout == "auto" else layout
    return Chosen(tail(grid, ratio, layout), layout)


def solver_options(solver: str, stats: GaussianStats) -> tuple[str, dict[str, Any]]:
    """Name and options of a solver; one that takes statistics is given the jump's."""
    name, options = parse_options(solver)
    if "stats" in resolve(name).options:
        options.setdefault("stats", stats)
    return name, options


def chosen(
    stats: GaussianStats, solver: str, grid: Grid, allocation: Allocation, layout: str, jumps: bool = True
) -> Chosen:
    """The levels that lose least on the surrogate of the network: from a jump, or from none.

    "spend" looks for the least loss over the level to jump to, the layout of all the steps, and the last level above 0
    (down to the smallest trained one), on half of the recorded trajectories. The other half judges: levels without a jump
    must lose less than the grid itself, and a jump less than those by a margin, with the surrogate's doubt added. "keep"
    drops the longest head of the grid whose loss does not raise the error. Without `jumps` the first level stays.

    Raises:
        OptionError: statistics without a profile.
    """
    if stats.profile is None:
        raise OptionError(
            'skip_to="auto" weighs what the network was measured to do, and these statistics hold no profile: use '
            "stats.measured(denoiser), or solverkit stats MODEL, or give skip_to as a level sigma/alpha."
        )
    if allocation == "keep" and not jumps:
        return Chosen(grid, "given")
    with planning():
        return _chosen(stats, solver, grid, told(grid), allocation, layout, jumps)


@functools.lru_cache(maxsize=256)
def _chosen(
    stats: GaussianStats, solver: str, grid: Grid, key: Any, allocation: Allocation, layout: str, jumps: bool
) -> Chosen:
    """`key` tells grids apart that compare equal."""
    model = surrogate(stats)
    name, options = solver_options(solver, model.gaussian)
    uneven = resolve(name).smooth_steps
    if trace(name, grid, **options).draws:
        name, options = STAND_IN, {}

    def loss(candidate: Grid, judge: Surrogate) -> float:
        plan: Plan = trace(name, candidate, **options)
        return judge.error(plan, grid)

    if allocation == "keep":
        limit, best = loss(grid, model) * 1.0001, grid
        for i in range(1, len(grid) - 1):
            if grid[i] > 0 and loss(grid.tail(i), model) <= limit:
                best = grid.tail(i)
        return Chosen(best, "given")
    return _spent(stats, grid, layout, jumps, loss, uneven)


def _spent(
    stats: GaussianStats, grid: Grid, layout: str, jumps: bool, loss: Callable[[Grid, Surrogate], float],
    uneven: bool,
) -> Chosen:  # fmt: skip
    relaid, worth = (UNEVEN, UNEVEN) if uneven else (RELAID, WORTH)
    choosing, judging = surrogate(stats, 0), surrogate(stats, 1)

    @functools.cache
    def laid(ratio: float, layout: str, end: float) -> Candidate:
        try:
            levels = tail(grid, ratio, layout, end)
        except GridError:
            return Candidate(math.inf, grid, ratio, layout, end)
        return Candidate(loss(levels, choosing), levels, ratio, layout, end)

    named = OWN if uneven and grid[-1] == 0 else (*ENDED, *OWN)
    layouts: Sequence[str] = named if layout == "auto" else (layout,)
    if grid[-1] > 0:
        layouts = [name for name in layouts if name not in OWN]
    first, *lower = starts(stats, grid)
    below = ends(stats, grid)
    judged = {"given": loss(grid, judging)}
    stay = Chosen(grid, "given")
    anew = least(laid, [first], layouts, below)
    judged["anew"] = loss(anew.grid, judging)
    if anew.loss < loss(grid, choosing) and judged["anew"] <= relaid * judged["given"]:
        stay = Chosen(anew.grid, anew.layout)
    if not (lower and jumps):
        return stay
    jump = least(laid, lower, layouts, below)
    equal = (laid(ratio, jump.layout, jump.end) for ratio in lower)  # from the top down
    jump = next(candidate for candidate in equal if candidate.loss <= SLACK * jump.loss)
    if math.hypot(loss(jump.grid, judging), judging.doubt) <= worth * min(judged.values()):
        return Chosen(jump.grid, jump.layout)
    return stay


def least(
    laid: Callable[[float, str, float], Candidate], ratios: Sequence[float], layouts: Sequence[str], ends: Sequence[float]
) -> Candidate:
    """The least loss: in each of the best layouts the best first level, then the best last one, until neither moves."""
    ratio, end = ratios[len(ratios) // 2], ends[len(ends) // 2]
    found = []
    for layout in sorted(layouts, key=lambda name: laid(ratio, name, end).loss)[:REFINED]:
        at, before = laid(ratio, layout, end), math.inf
        while at.loss < before:
            before = at.loss
            at = min(at, _least([functools.partial(laid, r, layout, at.end) for r in ratios]), key=_loss)
            if layout not in OWN:
                at = min(at, _least([functools.partial(laid, at.ratio, layout, e) for e in ends]), key=_loss)
        found.append(at)
    return min(found, key=_loss)


def _least(candidates: Sequence[Callable[[], Candidate]]) -> Candidate:
    """The least loss along a line: of every second candidate, then of the neighbours of that one."""
    i = min(range(0, len(candidates), 2), key=lambda i: candidates[i]().loss)
    return min((candidates[j]() for j in (i - 1, i, i + 1) if 0 <= j < len(candidates)), key=_loss)


def _loss(candidate: Candidate) -> float:
    return candidate.loss


def ends(stats: GaussianStats, grid: Grid) -> list[float]:
    """sigma / alpha of candidates for the last level above 0, falling to the smallest trained one; the grid's own is among
    them, and alone where the grid ends above 0."""
    own = lowest(grid)
    if grid[-1] > 0:
        return [own]
    top, bottom = ENDS_TOP * math.sqrt(stats.variance), min(grid.schedule.ratio_min, own)
    between = [end for end in (top / ENDS_RATIO**i for i in range(ENDS)) if end > bottom]
    return sorted({*between, own, bottom}, reverse=True)


def starts(stats: GaussianStats, grid: Grid) -> list[float]:
    """sigma / alpha of candidates for the first level, from the grid's start down, evenly in log."""
    assert stats.profile is not None
    first = grid[0].ratio
    top = min(first, float(stats.profile.ratios[0]))
    least = max(LOWEST * stats.spread, 2 * (lowest(grid) if grid[-1] > 0 else grid.schedule.ratio_min))
    if not least < top:
        return [first]
    steps = [top * (least / top) ** (i / (CANDIDATES - 1)) for i in range(CANDIDATES)]
    return [first, *(steps if math.isinf(first) else steps[1:])]
