"""What a fit needs of converged runs: where many noises end, and the way there of some."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..run.noise import sample_seeds
from .trajectories import Trajectories, converge

AT_ONCE = 64  # noises of one run, and of those whose way is kept


@dataclass
class Ends:
    """Noises, and where the converged solution takes them, in the frame.

    Attributes:
        frame: Of both.
        start, end: (B, ...).
        scale: Of the model's own coordinates at the two levels: own = scale * frame.
    """

    frame: int
    start: torch.Tensor
    end: torch.Tensor
    scale: tuple[float, float]

    @property
    def own_start(self) -> torch.Tensor:
        """`start` in the model's own coordinates, as `sk.sample` takes it."""
        return self.start * self.scale[0]

    @property
    def own_end(self) -> torch.Tensor:
        """`end` in the model's own coordinates."""
        return self.end * self.scale[1]

    def rows(self, index: slice) -> Ends:
        """Of some of the noises."""
        return Ends(self.frame, self.start[index], self.end[index], self.scale)


@dataclass
class References:
    """Converged runs of many noises.

    Attributes:
        way: Of the first noises, with states on the way.
        ends: Of all.
        top: The level that runs begin at.
        rows: What they cost.
    """

    way: Trajectories
    ends: Ends
    top: float
    rows: int


def references(
    denoiser: Any, num_samples: int, seed: int, evaluations: int, told: Callable[[int], None] | None = None
) -> References:
    """Run the noises of a seed to convergence, so many at once.

    Args:
        denoiser: Of the runs.
        num_samples, seed: Which noises: those of `sk.sample(..., num_samples=, seed=)`.
        evaluations: Of a run.
        told: Called with the rows of each part when it is done.
    """
    seeds, way, parts = sample_seeds(seed, num_samples), None, []
    for first in range(0, num_samples, AT_ONCE):
        some = seeds[first : first + AT_ONCE]
        part = converge(denoiser, len(some), some, evaluations, keep=64 if way is None else 1)
        way = way or part
        parts.append((part.start, part.end))
        if told is not None:
            told(len(some) * evaluations)
    assert way is not None
    scale = way.grid[0].scale, way.grid[-1].scale
    ends = Ends(way.frame, torch.cat([s for s, _ in parts]), torch.cat([e for _, e in parts]), scale)
    return References(way, ends, float(way.grid[0]), num_samples * evaluations)
