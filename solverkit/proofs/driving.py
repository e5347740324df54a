"""How the proofs run a sampler: pulled, or as a plan; on small exact targets in every frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..grid.grid import Grid
from ..grid.named import make_grid
from ..plan.plan import Plan, advance, begin
from ..process.schedule import EDM, Flow, Schedule
from ..process.variance_preserving import VP
from ..registry.registry import SamplerCard
from ..run.noise import Noise, SampleNoise, sample_seeds
from ..targets.exact import mixture


def schedules() -> list[Schedule]:
    return [EDM(), VP(continuous=True), Flow()]


def run(
    card: SamplerCard, model: Any, x: torch.Tensor, grid: Grid, options: Mapping[str, Any], seed: int = 0
) -> torch.Tensor:
    draw = SampleNoise(sample_seeds(seed, len(x)), x.shape[1:], x.dtype)
    return card.fn(model, x, grid, Noise(draw), **options)


def drive(
    plan: Plan,
    model: Any,
    x: torch.Tensor,
    seed: int = 0,
    edit: Callable[[int, torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    draw = SampleNoise(sample_seeds(seed, len(x)), x.shape[1:], x.dtype)
    x, state = begin(plan, x, draw)
    for j, level in enumerate(plan.levels):
        if edit is not None:
            x = edit(j, x)
        x, state = advance(plan, state, x, model(x, level), draw)
    return x


def short_grids(steps: int = 7) -> list[tuple[Any, Grid]]:
    return [
        (mixture(dim=4, modes=3, schedule=schedule), make_grid("flow" if schedule.frame else "karras", schedule, steps))
        for schedule in schedules()
    ]


def start(grid: Grid, batch: int, dim: int, seed: int = 1) -> torch.Tensor:
    draw = SampleNoise(sample_seeds(seed, batch), (dim,), torch.float64)
    return draw(0) * float(grid[0])
