"""A run in parts is the run: what it draws, where it ends, and its law."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch

from ..grid.grid import Grid
from ..grid.named import make_grid
from ..plan.plan import Plan
from ..process.schedule import EDM, Flow
from ..registry.registry import SamplerCard
from .driving import draws_of, drive, framed, in_one_run, remembers, short_grids, start, traced
from .finding import at_most, holds
from .growth import diagonal

PARTS = (2, 4, 24)
STEPS = 24
SAME = 1e-10
LIKE = 1.2


def check_parts(card: SamplerCard, options: Mapping[str, Any]) -> None:
    """`grid.tail(i)` from the state at node i draws what the whole run draws there, and ends where it ends.

    A multistep method loses its history at a cut: of it, only the draws are compared. The exact variance of a stochastic
    run in 2, 4 and n parts is at most 1.2 times that of the whole run (or of the data, if that is larger), on a Gaussian:
    a draw that two parts share would add up.
    """
    if not card.traceable or not card.restarts:
        return
    for target, grid in short_grids():
        with framed(target.schedule):
            _tails(card, options, target, grid)
    if card.informed or not card.is_linear(options):
        return
    for schedule in (EDM(), Flow()):
        with framed(schedule):
            grid = make_grid("flow" if schedule.frame else "karras", schedule, STEPS)
            whole = traced(card, grid, options)
            if whole.draws == 0:
                return
            target = diagonal(schedule)
            _, spread = in_one_run([whole], target)
            for k in PARTS:
                _, parted = in_one_run(_cut(card, options, grid, k), target)
                ratio = float((parted / torch.maximum(spread, target.target.eigenvalues[0].sqrt())).square().max())
                at_most(
                    ratio, LIKE,
                    f"in {k} parts the variance is {ratio:.2f} times that of one run: draws are shared, or starts unstable",
                    "noise is asked for another interval than that of the step, so that two parts get one draw: "
                    "noise(s, t) with the s and t of the step",
                )  # fmt: skip


def _tails(card: SamplerCard, options: Mapping[str, Any], target: Any, grid: Grid) -> None:
    whole = traced(card, grid, options)
    x = start(grid, 2, 4)
    seen: list[torch.Tensor] = []
    end = drive(whole, target, x, edit=lambda j, y: seen.append(y) or y)  # type: ignore[func-returns-value]
    places, history = draws_of(whole), remembers(card, options)
    for i in range(1, len(grid) - 1):
        first = next((j for j in range(whole.nfe) if whole.boundary[j] and float(whole.levels[j]) == float(grid[i])), None)
        if first is None:
            continue  # no step starts there: it is churned, or one of several that a single-step method takes together
        tail = traced(card, grid.tail(i), options)
        expected = places[_draws_before(whole, first) :]
        holds(
            draws_of(tail) == expected,
            f"from node {i} on, the tail draws at {_shown(tail)}, and not the whole run: a draw must belong to "
            "its interval",
            "noise is asked for another interval than that of the step (such as grid[0]), or the number of draws "
            "depends on the number of steps left",
        )
        if history:
            continue
        difference = float((drive(tail, target, seen[first]) - end).abs().max())
        at_most(
            difference, SAME * max(1.0, float(end.abs().max())),
            f"the run from node {i} on ends {difference:.2e} away from the whole run",
            "a rule counts steps by len(grid), which is shorter in a tail: grid.run_steps counts those of the "
            "whole run; or the sampler repeats parts of its run (restarts=False says so)",
        )  # fmt: skip


def _draws_before(plan: Plan, evaluation: int) -> int:
    """How many draws a run makes before an evaluation."""
    return sum(i.kind == "draw" for segment in plan.segments[: evaluation + 1] for i in segment.instructions)


def _shown(plan: Plan) -> str:
    places = [i.payload for segment in plan.segments for i in segment.instructions if i.kind == "draw"]
    return ", ".join(f"({k}, {s:.3g} -> {t:.3g})" for k, s, t in places[:4]) or "no place"


def _cut(card: SamplerCard, options: Mapping[str, Any], grid: Grid, k: int) -> list[Plan]:
    """The plans of a run in k parts."""
    nodes = [round(i * (len(grid) - 1) / k) for i in range(k + 1)]
    return [traced(card, Grid(grid.levels[a : b + 1], grid.schedule, before=a), options) for a, b in pairwise(nodes)]
