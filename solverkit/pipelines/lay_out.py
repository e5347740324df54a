"""A sampler on the levels of a pipeline's steps: all its evaluations, as many as the pipeline counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

from ..errors import BudgetError, GridError
from ..grid.grid import Grid
from ..plan.plan import Plan
from ..plan.trace import trace
from ..process.level import Level
from ..registry.registry import SamplerCard


def first_order_until(
    card: SamplerCard, options: Mapping[str, Any], path: Sequence[Level], left: int
) -> Callable[..., Any]:
    """A sampler that follows `path` by first-order steps, then hands over to `card` for the grid's last `left` steps."""

    def sampler(model: Any, x: Any, grid: Grid, noise: Any) -> Any:
        for s, t in pairwise(path):
            grid.begin_step()
            denoised = model(x, s)
            if t != s:
                x = x + (t - s) * ((x - denoised) / s)
        return card.fn(model, x, grid.tail(len(grid) - 1 - left), noise, **options) if left else x

    return sampler


def lay_out(
    card: SamplerCard, options: Mapping[str, Any], grid: Grid, n: int, native: tuple[int, int] = (0, 1)
) -> tuple[Plan, int, int]:
    """A run of n steps, or of exactly n evaluations where a step has more than two of them.

    In the latter case as many whole steps as fit stand at the end, each over as many of the grid's levels as it has
    evaluations, and first-order steps fill the beginning. So evaluation i is near level i of the grid, and a pipeline that
    starts there (strength) starts at the noise that it means.

    Args:
        card, options: The sampler.
        grid: The levels of n steps.
        n: What the pipeline calls num_inference_steps.
        native: How many evaluations the native class makes on these levels, and how many a step.

    Returns:
        The plan, the timesteps a step (1 or 2), and how many first-order steps fill the beginning.

    Raises:
        BudgetError: not one step of the sampler fits.
        SolverKitError: from the sampler or the grid.
    """
    plan = trace(card, grid, **options)
    if plan.nfe == native[0]:
        return plan, native[1], 0
    if plan.nfe <= n:
        return plan, 1, 0
    counts = evaluations(plan.boundary)
    if set(counts[:-1]) <= {2} and counts[-1] in (1, 2):
        return plan, 2, 0
    each, needed = max(counts[:-1], default=counts[-1]), plan.nfe
    for steps in range(min(n, n // max(min(counts), 1) + 2), 0, -1):
        with suppress(GridError):
            part = trace(card, _spread(grid, 0, steps, each), **options)
            needed, inside = part.nfe, evaluations(part.boundary)
            starts = [level for level, first in zip(part.levels, part.boundary) if first]
            falls = all(a > b for a, b in pairwise(starts))  # a sampler that jumps back has no place in so few
            regular = set(inside[1:-1]) <= {each} and all(count <= each for count in inside[:-1])
            if needed <= n and falls and regular:
                return _nearest(card, options, grid, n - needed, steps, each), 1, n - needed
    raise BudgetError(f"one step of {card.name!r} needs {needed} network evaluations; num_inference_steps={n} are fewer.")


def _nearest(card: SamplerCard, options: Mapping[str, Any], grid: Grid, lead: int, steps: int, each: int) -> Plan:
    """The plan whose evaluations are nearest to the grid's levels, by where in its levels a step begins."""

    def distance(plan: Plan) -> float:
        return max(abs(a.time - b.time) for a, b in zip(plan.levels, grid.levels))

    return min(
        (with_lead(card, options, _spread(grid, lead, steps, each, shift), lead) for shift in range(each)), key=distance
    )


def _spread(grid: Grid, lead: int, steps: int, each: int, shift: int = 0) -> Grid:
    """The first `lead` levels, then every `each`-th; the last of `steps` steps goes to the end."""
    nodes = [*range(lead), *(lead + shift + each * i for i in range(steps))]
    return replace(grid, levels=(*(grid.levels[min(i, len(grid) - 2)] for i in nodes), grid.levels[-1]))


def with_lead(card: SamplerCard, options: Mapping[str, Any], grid: Grid, lead: int) -> Plan:
    """The plan of `lead` first-order steps, then the sampler."""
    if lead == 0:
        return trace(card, grid, **options)
    return trace(first_order_until(card, options, grid.levels[: lead + 1], len(grid) - 1 - lead), grid)


def evaluations(boundary: Sequence[bool]) -> list[int]:
    """How many evaluations each step has."""
    starts = [j for j, first in enumerate(boundary) if first]
    return [b - a for a, b in pairwise([*starts, len(boundary)])]
