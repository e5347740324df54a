"""Edits of the state between steps carry over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..grid.grid import Grid
from ..plan.plan import Plan
from ..plan.trace import trace
from ..process.level import Level
from ..process.schedule import EDM, Flow
from ..registry.registry import SamplerCard
from ..targets.exact import gaussian
from .driving import drive, start
from .order import order_grid


def check_edits(card: SamplerCard, options: Mapping[str, Any]) -> None:
    """An edit of the state at the start of any step acts as if the run had been started there with the edited state.

    On a Gaussian everything is linear, so the effect of an edit is the difference of two runs. History from before the
    edit may change it by O(h): 2 % and a term that halves with h.
    """
    if not card.traceable:
        return
    for schedule in (EDM(), Flow()):
        target = gaussian(dim=4, condition=10.0, schedule=schedule)
        errors = []
        for n in (40, 80):
            grid, _ = order_grid(schedule, 1, n, high=8.0, low=0.3, jagged=False)
            plan = trace(card, grid, **options)
            x = start(grid, 2, 4)
            delta, plain, worst = 0.1 * torch.ones_like(x), drive(plan, target, x), 0.0
            nodes = {float(s) for s in grid}  # a churned level lies between them: its step cannot be restarted
            starts = [j for j in range(plan.nfe) if plan.boundary[j]]
            if card.restarts:
                starts = [j for j in starts if float(plan.levels[j]) in nodes]
            else:  # there is no run of the rest to compare with
                edited = drive(plan, target, x, edit=lambda j, y, at=starts[-2], d=delta: y + d if j == at else y)  # type: ignore[misc]
                assert not torch.equal(edited, plain), f"an edit at evaluation {starts[-2]} is lost"
                continue
            for at in starts[n // 8 : -2 : n // 8 + 1]:
                edited = drive(plan, target, x, edit=lambda j, y, at=at, d=delta: y + d if j == at else y)  # type: ignore[misc]
                if float((edited - plain).norm()) < 1e-9 * float(delta.norm()):
                    continue  # many Langevin steps forget it
                if card.is_linear(options):
                    missed = edited - plain - _effect(target, grid, plan.levels[at], delta, card, options)
                else:
                    missed = edited - _restarted(target, plan, at, x, delta, card, options)
                worst = max(worst, float(missed.norm() / (edited - plain).norm()))
            errors.append(worst)
        if not card.restarts:
            continue
        rough = 0.25 if card.is_linear(options) else 0.35  # there the draws that are left meet another history too
        assert errors[0] <= rough and errors[1] <= max(0.02, 0.75 * errors[0]), (
            f"an edit at the start of a step is off by {errors[0]:.1%} (40 steps) and {errors[1]:.1%} (80 steps) "
            "of its effect"
        )


def _restarted(
    target: Any, plan: Plan, at: int, x: torch.Tensor, delta: torch.Tensor, card: SamplerCard, options: Mapping[str, Any]
) -> torch.Tensor:
    """The end of the sampler itself, started at evaluation `at` with the edited state."""
    seen: list[torch.Tensor] = []
    drive(plan, target, x, edit=lambda j, y: seen.append(y) or y)  # type: ignore[func-returns-value]
    level, grid = plan.levels[at], plan.grid
    tail = trace(card, Grid((level, *(s for s in grid if s < level)), grid.schedule), **options)
    return drive(tail, target, seen[at] + delta)


def _effect(
    target: Any, grid: Grid, level: Level, delta: torch.Tensor, card: SamplerCard, options: Mapping[str, Any]
) -> torch.Tensor:
    """What an edit at `level` does to the end of the run: the sampler itself, restarted there."""
    rest = [level, *(s for s in grid if s < level)]
    tail = trace(card, Grid(tuple(rest), grid.schedule), **options)
    zero = torch.zeros_like(delta)
    return drive(tail, target, delta) - drive(tail, target, zero)
