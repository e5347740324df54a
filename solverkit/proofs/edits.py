"""Edits of the state between steps carry over."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..grid.grid import Grid
from ..plan.plan import Plan
from ..process.schedule import EDM, Flow, Schedule
from ..registry.registry import SamplerCard
from ..run.noise import sample_seeds
from ..targets.exact import gaussian
from .driving import drive, framed, start, traced
from .finding import at_most, holds
from .order import order_grid

DELTA = 0.1
LOST = (
    "the sampler carries a copy of the state that the edit does not reach: pass x itself to model(x, s), and "
    "derive the next state from that same x after the call; keep predictions in the history, and no states"
)


def check_edits(card: SamplerCard, options: Mapping[str, Any]) -> None:
    """An edit of the state at the start of any step acts as if the run had been started there with the edited state.

    On a Gaussian everything is linear, so the effect of an edit is the difference of two runs. History from before the
    edit may change it by O(h): 2 % and a term that halves with h.
    """
    if not card.traceable:
        return
    for schedule in (EDM(), Flow()):
        with framed(schedule):
            _on_schedule(card, options, schedule)


def _on_schedule(card: SamplerCard, options: Mapping[str, Any], schedule: Schedule) -> None:
    target, errors = gaussian(dim=4, condition=10.0, schedule=schedule), []
    for n in (40, 80):
        grid, _ = order_grid(schedule, 1, n, high=8.0, low=0.3, jagged=False)
        plan, x = traced(card, grid, options), start(grid, 2, 4)
        seen: list[torch.Tensor] = []
        plain = drive(plan, target, x, edit=lambda j, y, seen=seen: seen.append(y) or y)  # type: ignore[misc]
        nodes = {float(s) for s in grid}  # a churned level lies between them: its step cannot be restarted
        starts = [j for j in range(plan.nfe) if plan.boundary[j]]
        if not card.restarts:  # there is no run of the rest to compare with
            edited = _edited(target, plan, x, starts[-2:-1])[0]
            holds(not torch.equal(edited, plain), f"an edit at evaluation {starts[-2]} is lost", LOST)
            continue
        starts = [j for j in starts if float(plan.levels[j]) in nodes][n // 8 : -2 : n // 8 + 1]
        worst = 0.0
        for at, edited in zip(starts, _edited(target, plan, x, starts)):
            effect = edited - plain
            if float(effect.norm()) < 1e-9 * DELTA * math.sqrt(x.numel()):
                continue  # many Langevin steps forget it
            tail = traced(card, Grid((plan.levels[at], *(s for s in grid if s < plan.levels[at])), grid.schedule), options)
            if card.is_linear(options):
                missed = effect - _effect(target, tail, x)
            else:
                missed = edited - drive(tail, target, seen[at] + DELTA)
            worst = max(worst, float(missed.norm() / effect.norm()))
        errors.append(worst)
    if not card.restarts:
        return
    rough = 0.25 if card.is_linear(options) else 0.35  # there the draws that are left meet another history too
    off = f"{errors[0]:.1%} (40 steps) and {errors[1]:.1%} (80 steps)"
    text = f"an edit at the start of a step is off by {off} of its effect"
    at_most(errors[0], rough, text, LOST)
    at_most(errors[1], max(0.02, 0.75 * errors[0]), text, LOST)


def _edited(target: Any, plan: Plan, x: torch.Tensor, starts: Sequence[int]) -> Sequence[torch.Tensor]:
    """The ends of runs of x (B, D) with an edit at one of the evaluations each; all of them in one batch."""
    size = len(x)
    if not starts:
        return ()

    def edit(j: int, y: torch.Tensor) -> torch.Tensor:
        if j not in starts:
            return y
        y, rows = y.clone(), slice(starts.index(j) * size, (starts.index(j) + 1) * size)
        y[rows] += DELTA
        return y

    seeds = sample_seeds(0, size) * len(starts)
    return drive(plan, target, x.repeat(len(starts), 1), seeds, edit).split(size)


def _effect(target: Any, tail: Plan, x: torch.Tensor) -> torch.Tensor:
    """What an edit of x (B, D) does to the end of the run: the sampler itself, restarted there."""
    edited = torch.cat([torch.full_like(x, DELTA), torch.zeros_like(x)])
    with_edit, without = drive(tail, target, edited, sample_seeds(0, len(x)) * 2).chunk(2)
    return with_edit - without
