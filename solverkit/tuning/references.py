"""What a fit needs of converged runs: where many noises end, and the way there of some."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..files.cache import cache_folder, write_whole
from ..grid.grid import Grid
from ..run.noise import sample_seeds
from .trajectories import Trajectories, converge

AT_ONCE = 64  # noises of one run, and of those whose way is kept
LARGEST = 2**28  # bytes of a file in the cache
VERSION = "1"  # of what is computed here: raise it when it changes


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
        rows: What they cost; 0 from the cache.
    """

    way: Trajectories
    ends: Ends
    top: float
    rows: int


def references(
    denoiser: Any, num_samples: int, seed: int, evaluations: int, told: Callable[[int], None] | None = None,
    fingerprint: str | None = None,
) -> References:  # fmt: skip
    """Run the noises of a seed to convergence, so many at once; or take them from the cache.

    Args:
        denoiser: Of the runs.
        num_samples, seed: Which noises: those of `sk.sample(..., num_samples=, seed=)`.
        evaluations: Of a run.
        told: Called with the rows of each part when it is done.
        fingerprint: Of the denoiser; with it the runs are kept in the cache (up to LARGEST bytes) and found there.
    """
    path = None
    if fingerprint is not None:
        path = cache_folder("trajectories") / f"{fingerprint}-{seed}-{num_samples}-{evaluations}-v{VERSION}.safetensors"
        if (found := _read(path, denoiser)) is not None:
            return found
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
    made = References(way, ends, float(way.grid[0]), num_samples * evaluations)
    if path is not None:
        _keep(path, made)
    return made


def _keep(path: Path, made: References) -> None:
    """Into the cache; one that cannot be written, or has no room, is no error."""
    tensors = {f"state.{i}": x.contiguous() for i, x in enumerate(made.way.states)}
    tensors |= {"start": made.ends.start.contiguous(), "end": made.ends.end.contiguous()}
    if sum(x.numel() * x.element_size() for x in tensors.values()) <= LARGEST:
        levels = torch.tensor([float(level) for level in made.way.grid], dtype=torch.float64)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, save({**tensors, "levels": levels}, {"rows": str(made.rows)}))


def _read(path: Path, denoiser: Any) -> References | None:
    """From the cache, on the denoiser's device; None without the file, or where it is torn."""
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        schedule = denoiser.schedule
        grid = Grid(tuple(schedule.at(s, snap=False) for s in tensors["levels"].tolist()), schedule)
        device = getattr(denoiser, "device", None)
        states = [tensors[f"state.{i}"].to(device) for i in range(len(grid))]
        ends = Ends(grid.frame, tensors["start"].to(device), tensors["end"].to(device), (grid[0].scale, grid[-1].scale))
    except (OSError, KeyError, SafetensorError):
        return None
    return References(Trajectories(grid, states), ends, float(grid[0]), 0)
