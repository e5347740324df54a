"""The Gaussian that a model's data look like from afar: mean, leading eigenvectors, their variances, and a floor.

At noise levels well above the data's spread a network's answer is nearly that of N(mu, Sigma), Sigma = U diag(l) U^T +
floor (I - U U^T), whose denoiser and probability flow are closed form. In a frame x = alpha x_0 + s eps, with
v_k = alpha^2 l_k + s^2 and y = x - alpha mu:

    D_G = mu + sum_k (alpha l_k / v_k) u_k u_k^T y        the denoiser
    x_t = alpha_t mu + sum_k (v_k(t) / v_k(s))^(1/2) u_k u_k^T y        the flow from (alpha_s, s) to (alpha_t, t)

and the same with `floor` off the basis. Source: Wang and Vastola 2024, arXiv 2412.09726, eq. 6 to 8.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch

from ..errors import StatsError
from ..plan.symbol import own_precision
from ..process.level import Level


@dataclass(frozen=True, eq=False)
class Gaussian:
    """N(mean, U diag(values) U^T + floor (I - U U^T)) in the coordinates of x_0.

    Args:
        mean: Of the shape of one sample; of shape () it fits any sample, and there are no vectors.
        vectors: (r, D), orthonormal rows, the transposed U; float32 or float64.
        values: (r,) variances along them, falling.
        floor: Variance off the basis; without effect if r = D.

    Raises:
        StatsError: shapes that do not belong together, NaN, negative variances, rows that are not orthonormal.
    """

    mean: torch.Tensor
    vectors: torch.Tensor
    values: torch.Tensor
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.vectors.dtype not in (torch.float32, torch.float64):
            object.__setattr__(self, "vectors", self.vectors.float())
        object.__setattr__(self, "mean", self.mean.cpu().double())
        object.__setattr__(self, "values", self.values.cpu().double())
        object.__setattr__(self, "floor", float(self.floor))
        self._validate()

    def _validate(self) -> None:
        D, r = self.mean.numel() if self.mean.ndim else 0, len(self.values)
        if self.values.ndim != 1 or self.vectors.ndim != 2 or tuple(self.vectors.shape) != (r, D) or r > D:
            raise StatsError(
                f"a mean of shape {tuple(self.mean.shape)} needs vectors (r, {D}) and values (r,) with r <= {D}, got "
                f"{tuple(self.vectors.shape)} and {tuple(self.values.shape)}."
            )
        finite = all(bool(torch.isfinite(v).all()) for v in (self.mean, self.vectors, self.values))
        if not finite or not math.isfinite(self.floor):
            raise StatsError("Gaussian statistics hold NaN or inf: the data or the predictions that they come from do.")
        if self.floor < 0 or bool((self.values < 0).any()):
            least = min([self.floor, *self.values.tolist()])
            raise StatsError(f"variances must be at least 0, got {least:.3g}.")
        if r and self.vectors.isfinite().all():
            rows = self.vectors[:: max(1, r // 64)]
            gram = rows @ rows.T
            off = float((gram - torch.eye(len(rows)).to(gram)).abs().max())
            if off > 1e-3:
                raise StatsError(f"the vectors must be orthonormal rows; their products are off by {off:.2g}.")

    # ------------------------------------------------------------------------------------------------- what they say
    @property
    def rank(self) -> int:
        """r."""
        return len(self.values)

    @property
    def dim(self) -> int:
        """D; 0 for statistics that fit any sample."""
        return self.mean.numel() if self.mean.ndim else 0

    @property
    def variance(self) -> float:
        """Mean variance of a coordinate, tr Sigma / D."""
        if not self.dim:
            return self.floor
        return (float(self.values.sum()) + (self.dim - self.rank) * self.floor) / self.dim

    @property
    def spread(self) -> float:
        """Standard deviation along the leading direction."""
        return math.sqrt(float(self.values[0]) if self.rank else self.floor)

    @property
    def explained(self) -> float:
        """The part of the variance along the basis."""
        return float(self.values.sum()) / (self.variance * self.dim) if self.variance * self.dim > 0 else 0.0

    def fit_check(self, shape: tuple[int, ...]) -> None:
        """Raises StatsError unless samples of this shape (without the batch) are what the statistics describe."""
        if self.mean.ndim and tuple(shape) != tuple(self.mean.shape):
            raise StatsError(
                f"these statistics are of samples of shape {tuple(self.mean.shape)}, and the run has {tuple(shape)}: take "
                "those of this model (solverkit stats MODEL)."
            )

    # -------------------------------------------------------------------------------------------------- the Gaussian
    def gains(self, level: Level) -> tuple[torch.Tensor, float]:
        """Variances of the noised Gaussian along the basis, alpha^2 l + s^2, (r,) float64, and off it."""
        return level.alpha**2 * self.values + float(level) ** 2, level.alpha**2 * self.floor + float(level) ** 2

    def along(self, y: torch.Tensor, gains: torch.Tensor, off: float) -> torch.Tensor:
        """U diag(gains) U^T y + off (I - U U^T) y of y (B, *shape)."""
        if not self.rank:
            return off * y
        flat, basis = y.flatten(1), placed(self, y.dtype, y.device)[1]
        more = (gains - off).to(y.dtype).to(y.device)
        with own_precision((y,)):
            return (off * flat + ((flat @ basis.T) * more) @ basis).reshape(y.shape)

    def denoised(self, x: torch.Tensor, level: Level) -> torch.Tensor:
        """D_G (B, *shape) of states x (B, *shape) in a frame; x / alpha at s = 0."""
        v, w = self.gains(level)
        if float(level) == 0:
            return x / level.alpha
        mean = placed(self, x.dtype, x.device)[0]
        return mean + self.along(x - level.alpha * mean, level.alpha * self.values / v, level.alpha * self.floor / w)

    def transport(self, x: torch.Tensor, start: Level, end: Level) -> torch.Tensor:
        """Where the Gaussian's probability flow takes states x (B, *shape), from a level above 0 to any other."""
        self.fit_check(tuple(x.shape[1:]))
        (v, w), (v_to, w_to) = self.gains(start), self.gains(end)
        mean = placed(self, x.dtype, x.device)[0]
        out = self.along(x - start.alpha * mean, (v_to / v).sqrt(), math.sqrt(w_to / w))
        return end.alpha * mean + out

    def coordinates(self, y: torch.Tensor) -> torch.Tensor:
        """U^T y of (B, *shape), (B, r) float64 on the CPU."""
        with own_precision((y,)):
            return (y.flatten(1) @ placed(self, y.dtype, y.device)[1].T).cpu().double()


@functools.lru_cache(maxsize=4)
def placed(gaussian: Gaussian, dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and vectors in the dtype and on the device of a state; cast on the host, since a device may know no float64."""
    with torch.inference_mode(False):
        return gaussian.mean.to(dtype).to(device), gaussian.vectors.to(dtype).to(device)
