"""Model statistics that are known in closed form: constants, and those of a Gaussian with independent coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import torch

Coefficients = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Constant:
    """The same (l, s, b) at every level: (1, 0, 0) is DPM-Solver++, (0, -1, 0) DPM-Solver (noise prediction)."""

    l: float  # noqa: E741  the paper's letter
    s: float
    b: float

    breaks = ()
    shape = ()

    def at(self, lams: torch.Tensor) -> Coefficients:
        """l, s and b (n,) at half log-SNRs (n,), float64."""
        return torch.full_like(lams, self.l), torch.full_like(lams, self.s), torch.full_like(lams, self.b)


@dataclass(frozen=True, eq=False)
class OfGaussian:
    """Of data N(mean, diag(variance)): l = r^2 / (S + r^2), s = 0, b = -mean dl/dlam, r = e^-lam = sigma / alpha.

    f = (1 - l) y - D is then -l mean whatever the state, so that one step of first order is exact.

    Args:
        variance, mean: Of the shape of one sample, or of shape () for any.
    """

    variance: torch.Tensor
    mean: torch.Tensor

    breaks = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return tuple(self.variance.shape)

    def at(self, lams: torch.Tensor) -> Coefficients:
        """l, s and b (n, *shape) at half log-SNRs (n,), float64."""
        square = torch.exp(-2 * lams).reshape(-1, *[1] * self.variance.ndim)
        total = self.variance + square
        rate = -2 * square * self.variance / total.square()  # dl / dlam
        return square / total, torch.zeros_like(total), -self.mean * rate
