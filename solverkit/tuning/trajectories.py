"""Converged trajectories of some noises, and their states at any level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..grid.grid import Grid
from ..grid.named import make_grid
from ..process.schedule import VE
from ..run.sampling import sample


def angle(s: float, frame: int) -> float:
    """atan(s / alpha) in the frame: where a level lies on the way from data (0) to noise (pi / 2)."""
    return math.atan2(s, 1.0 - frame * s)


def level_at(a: float, frame: int) -> float:
    """s at an angle: the inverse of `angle`."""
    t = math.tan(a) if a < math.pi / 2 else math.inf
    if frame == 0:
        return t
    return 1.0 if math.isinf(t) else t / (1.0 + t)


@dataclass
class Trajectories:
    """States of the probability-flow ODE in the frame.

    Attributes:
        grid: Levels of the states, falling; the last is 0.
        states: One for each level, (B, ...).
    """

    grid: Grid
    states: list[torch.Tensor]

    @property
    def start(self) -> torch.Tensor:
        """At the largest level, (B, ...)."""
        return self.states[0]

    @property
    def end(self) -> torch.Tensor:
        """At level 0, (B, ...)."""
        return self.states[-1]

    @property
    def own_start(self) -> torch.Tensor:
        """`start` in the model's own coordinates, as `sk.sample` takes it."""
        return self.start * self.grid[0].scale

    @property
    def own_end(self) -> torch.Tensor:
        """`end` in the model's own coordinates."""
        return self.end * self.grid[-1].scale

    @property
    def frame(self) -> int:
        """Of the states."""
        return self.grid.frame

    def rows(self, index: slice) -> Trajectories:
        """Of some of the noises."""
        return Trajectories(self.grid, [x[index] for x in self.states])

    def at(self, s: float) -> torch.Tensor:
        """The states at s, by cubic Lagrange interpolation of x / hypot(alpha, s) in the angle, (B, ...)."""
        if s == 0:
            return self.end
        frame = self.grid.frame
        angles = [angle(float(level), frame) for level in self.grid]
        a = angle(s, frame)
        place = next((i for i, b in enumerate(angles) if b <= a), len(angles) - 1)
        first = min(max(place - 2, 0), len(angles) - 4)
        out = torch.zeros_like(self.start)
        for i in range(first, first + 4):
            weight = math.prod((a - angles[j]) / (angles[i] - angles[j]) for j in range(first, first + 4) if j != i)
            level = float(self.grid[i])
            out += self.states[i] * (weight / math.hypot(1.0 - frame * level, level))
        return out * math.hypot(1.0 - frame * s, s)


def usual_evaluations(denoiser: Any) -> int:
    """Of a converged run: RK4 on an exact target takes four a step."""
    return 1024 if hasattr(denoiser, "target") else 128


def converge(
    denoiser: Any, num_samples: int, seed: int | Sequence[int], evaluations: int, keep: int = 64
) -> Trajectories:
    """The trajectories of a network (DEIS of order 3) or of an exact target (RK4), from the noises of a seed.

    Args:
        denoiser: Of the run.
        num_samples, seed: Which noises; a seed, or one key a sample.
        evaluations: Of the converged run.
        keep: How many states are kept.
    """
    exact, schedule = hasattr(denoiser, "target"), denoiser.schedule
    name = "karras" if exact or isinstance(schedule, VE) else "flow" if math.isinf(schedule.ratio_max) else "trailing"
    per = 4 if exact else 1
    grid = make_grid(name, schedule, max(evaluations // per, 4))
    dtype = torch.float64 if exact else torch.float32
    run = sample(
        denoiser,
        "rk4" if exact else "deis",
        num_samples=num_samples,
        seed=seed,
        grid=grid,
        dtype=dtype,
        return_trajectory=True,
    )
    return _kept(run, grid, keep)


def _kept(run: Any, grid: Grid, keep: int) -> Trajectories:
    """The states at every n-th level of the grid, in the frame."""
    by_level: dict[float, torch.Tensor] = {}
    for level, x in zip(run.levels, run.trajectory):
        by_level.setdefault(float(level), x / level.scale)
    stride = max((len(grid) - 1) // keep, 1)
    nodes = [*range(0, len(grid) - 1, stride), len(grid) - 1]
    states = [by_level[float(grid[i])] if i < len(grid) - 1 else run.x / grid[-1].scale for i in nodes]
    return Trajectories(Grid(tuple(grid[i] for i in nodes), grid.schedule), states)
