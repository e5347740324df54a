"""The clean samples that a network is judged on: data, draws of an exact target, or its own samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..errors import OptionError
from ..files.arrays import to_units
from ..tuning.auto import Shaped
from ..tuning.trajectories import converge

EVALUATIONS = 64  # of the network's own samples
MOST = 10_000  # samples of the data that their mean and variance are taken of


@dataclass(frozen=True, eq=False)
class Clean:
    """Samples of x_0, and the mean and variance of more of them.

    Attributes:
        x: (B, *shape) float64, in the model's data coordinates.
        mean: (*shape), of as many of the data as are read.
        variance: (*shape), of each coordinate.
        source: "data", "target" (draws of an exact one) or "samples" (of the network itself).
    """

    x: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor
    source: str

    @property
    def spread(self) -> float:
        """RMS standard deviation of a coordinate."""
        return float(self.variance.mean().sqrt())

    def mapped(self, scale: float, shift: float) -> Clean:
        """Those of scale x_0 + shift."""
        return Clean(scale * self.x + shift, scale * self.mean + shift, scale**2 * self.variance, self.source)

    def first(self, count: int) -> Clean:
        """The first samples."""
        return Clean(self.x[:count], self.mean, self.variance, self.source)


def clean(denoiser: Any, data: torch.Tensor | None, count: int, seed: int) -> Clean:
    """`count` samples of data, else of an exact target, else of the network (64 evaluations each).

    Args:
        denoiser: Of the network.
        data: (N, ...), N >= 2; uint8 becomes [-1, 1], anything else is in the model's units.
        count, seed: How many, and which.

    Raises:
        OptionError: data of another shape, NaN among them, or data that do not vary; no data, and no known shape of a
            sample.
    """
    shape = getattr(denoiser, "shape", None)
    if data is None:
        if shape is None:
            raise OptionError("neither data nor the shape of a sample are known: give data=, or shape= to sk.wrap.")
        target = getattr(denoiser, "target", None)
        if target is not None:
            found = target.sample(max(count, 4096), seed=seed + 1)
            return _of(found, count, "target")
        drawn = converge(Shaped(denoiser, tuple(shape)), count, seed, EVALUATIONS, keep=1).own_end
        return _of(drawn.cpu().double(), count, "samples")
    if not isinstance(data, torch.Tensor) or data.ndim < 2 or len(data) < 2:
        given = tuple(data.shape) if isinstance(data, torch.Tensor) else type(data).__name__
        raise OptionError(f"data must be a tensor (N, *shape) of at least two samples, got {given}.")
    if shape is not None and tuple(data.shape[1:]) != tuple(shape):
        if data[0].numel() != int(torch.Size(shape).numel()):
            raise OptionError(f"the data are of shape {tuple(data.shape[1:])}, and the model makes {tuple(shape)}.")
        data = data.reshape(len(data), *shape)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))  # files are often sorted by class
    x = to_units(data[order[:MOST]]).double()
    if not bool(x.isfinite().all()):
        raise OptionError("the data hold NaN or inf.")
    return _of(x, count, "data")


def _of(x: torch.Tensor, count: int, source: str) -> Clean:
    variance = x.var(0)
    if source == "data" and float(variance.max()) == 0:
        raise OptionError("all samples of the data are the same: nothing can be told from them.")
    return Clean(x[:count], x.mean(0), variance, source)
