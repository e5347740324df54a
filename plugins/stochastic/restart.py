"""Restart sampling: back up to more noise, and down again, around any solver."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import solverkit as sk
from solverkit import Grid, Level
from solverkit.errors import OptionError
from solverkit.plan.plan import follow
from solverkit.plan.trace import trace
from solverkit.steps import parse_options

RHO = 7.0  # of the grid of a restart
SHORTEST = 0.99  # a node this near below `high` has no room for a restart


def _checked(intervals: Any) -> list[tuple[float, float, int, int]]:
    wanted = "(low, high, times, steps): sigma / alpha with 0 < low < high, and whole numbers of at least 1"
    given = intervals if isinstance(intervals, (list, tuple)) else None
    if given is not None and given and not isinstance(given[0], (list, tuple)):
        given = [given]
    for one in given or [None]:
        numbers = isinstance(one, (list, tuple)) and len(one) == 4 and all(isinstance(v, (int, float)) for v in one)
        if not numbers or not (0 < one[0] < one[1] < math.inf and one[2] >= 1 <= one[3] and one[2] % 1 == one[3] % 1 == 0):
            raise OptionError(f"an interval of restart is {wanted}; got {one if given else intervals!r}.")
    return [(float(low), float(high), int(times), int(steps)) for low, high, times, steps in given or ()]


def _down(grid: Grid, high: float, t: Level, steps: int) -> Grid:
    """Levels from sigma / alpha = high to the node t, even in its 7th root."""
    top, low = high ** (1 / RHO), t.ratio ** (1 / RHO)
    inner = [grid.schedule.level((top + i / steps * (low - top)) ** RHO, grid.frame) for i in range(steps)]
    return replace(grid, levels=(*inner, t), on_step=None)


@sk.sampler(
    "restart",
    restarts=False,
    reference="Xu et al. 2023, arXiv 2306.14878, Algorithm 1",
    cite="xu2023",
    variants=({"solver": "dpmpp-2m"}, {"intervals": ((0.06, 0.3, 2, 2), (0.5, 2.0, 1, 8)), "s_noise": 1.003}),
)
def restart(
    model: Any, x: Any, grid: Grid, noise: Any, solver: str = "heun", intervals: Any = ((0.06, 0.3, 2, 2),),
    s_noise: float = 1.0,
) -> Any:  # fmt: skip
    """Restart: where a run reaches the node nearest `low`, `times` times noise it up to `high` and solve it down again.

    x_high = k x_low + s_noise sqrt(high^2 - (k low)^2) z, k = alpha_high / alpha_low, then `steps` steps of the solver on
    levels even in their 7th root. With the exact flow of the data the law at low stays what it is, and an error of the run
    so far shrinks by k' = the flow's contraction from high to low with each restart. An interval without a node of the grid
    between 0 and `high` is left out. With Heun's method N steps to 0 cost 2 N - 1 evaluations and each restart 2 steps.
    Source: Xu et al. 2023, Algorithm 1; the published code adds no noise unless S_noise is given, and counts levels of
    the inner grid, one more than `steps`.

    Args:
        solver: Any traceable sampler, its options behind its name; its history starts anew behind each restart.
        intervals: (low, high, times, steps) of each restart, or one of them; levels are sigma / alpha.
        s_noise: Standard deviation of the noise; 1.003 in the published scripts.
    """
    at: dict[int, list[tuple[float, int, int]]] = {}
    for low, high, times, steps in _checked(intervals):
        nodes = [i for i, level in enumerate(grid) if i > 0 and 0 < level.ratio < SHORTEST * high]
        if nodes:
            node = min(nodes, key=lambda i: abs(math.log(grid[i].ratio / low)))
            at.setdefault(node, []).append((high, times, steps))
    name, options = parse_options(solver)
    first = 0
    for last in sorted({*at, len(grid) - 1}):
        if last > first:
            block = replace(grid, levels=grid.levels[first : last + 1], on_step=None)
            x = follow(trace(name, block, **options), model, x, grid, noise)
        x, first = _repeated(model, x, grid, noise, grid[last], at.get(last, ()), name, options, s_noise), last
    return x


def _repeated(
    model: Any, x: Any, grid: Grid, noise: Any, t: Level, restarts: Sequence[tuple[float, int, int]], name: str,
    options: dict[str, Any], s_noise: float,
) -> Any:  # fmt: skip
    """The restarts of one node, smallest interval last."""
    for high, times, steps in sorted(restarts, reverse=True):
        down = _down(grid, high, t, steps)
        plan, s = trace(name, down, **options), down[0]
        kept = s.alpha / t.alpha
        for _ in range(times):
            x = kept * x + (s_noise * math.sqrt(s * s - (kept * t) ** 2)) * noise(t, s)
            x = follow(plan, model, x, grid, noise)
    return x
