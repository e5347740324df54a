"""The denoised prediction kept in the range of the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from ...errors import OptionError
from ..denoiser import DenoiserLike
from .wrapped import Wrapped, number, row_levels, rows_of

QUANTILE_LIMIT = 2**24  # numbers a sample that torch.quantile takes


class Clip(Wrapped):
    """D restricted to [low, high]; see `clip`."""

    def __init__(self, denoiser: DenoiserLike, low: float, high: float) -> None:
        super().__init__(denoiser)
        self.low, self.high = number("low", low), number("high", high)
        if not self.low < self.high:
            raise OptionError(f"clip needs low < high, got {low!r} and {high!r}.")

    @property
    def takes_rows(self) -> bool:
        return row_levels(self.denoiser)

    def __call__(self, x: torch.Tensor, level: Any) -> torch.Tensor:
        return self.denoiser(x, level).clamp(self.low, self.high)

    def rows(self, start: int | Sequence[int], stop: int | None = None, total: int | None = None) -> Clip:
        return Clip(rows_of(self.denoiser, start, stop, total), self.low, self.high)

    def __repr__(self) -> str:
        return f"Clip({self.denoiser!r}, {self.low:g}, {self.high:g})"


def clip(denoiser: DenoiserLike, low: float = -1.0, high: float = 1.0) -> Clip:
    """Clip the denoised prediction to the range of the data (Ho et al. 2020, released code).

    Raises:
        OptionError: low is not below high.
    """
    return Clip(denoiser, low, high)


class DynamicThreshold(Wrapped):
    """D clipped at its own quantile; see `dynamic_threshold`."""

    def __init__(self, denoiser: DenoiserLike, quantile: float, maximum: float) -> None:
        super().__init__(denoiser)
        self.quantile, self.maximum = number("quantile", quantile), number("maximum", maximum)
        if not 0 < self.quantile <= 1:
            raise OptionError(f"quantile must be in (0, 1], got {quantile!r}.")
        if not self.maximum > 0:
            raise OptionError(f"maximum must be positive, got {maximum!r}.")

    @property
    def takes_rows(self) -> bool:
        return row_levels(self.denoiser)

    def __call__(self, x: torch.Tensor, level: Any) -> torch.Tensor:
        denoised = self.denoiser(x, level)
        size = denoised.flatten(1).abs().to(torch.promote_types(denoised.dtype, torch.float32))
        threshold = row_quantile(size, self.quantile).clamp_min(self.maximum).to(denoised.dtype)
        threshold = threshold.view(-1, *[1] * (denoised.ndim - 1))
        return denoised.clamp(-threshold, threshold) * (self.maximum / threshold)

    def rows(self, start: int | Sequence[int], stop: int | None = None, total: int | None = None) -> DynamicThreshold:
        return DynamicThreshold(rows_of(self.denoiser, start, stop, total), self.quantile, self.maximum)

    def __repr__(self) -> str:
        return f"DynamicThreshold({self.denoiser!r}, quantile={self.quantile:g}, maximum={self.maximum:g})"


def row_quantile(size: torch.Tensor, quantile: float, limit: int = QUANTILE_LIMIT) -> torch.Tensor:
    """The quantile of each row of (B, n), (B,): torch.quantile up to `limit` numbers a row, order statistics beyond.

    The rank quantile (n - 1) is a Python float there: float32 has no integers above 2^24.
    """
    n = size.shape[1]
    if n <= limit:
        return torch.quantile(size, quantile, dim=1)
    rank = quantile * (n - 1)
    below = math.floor(rank)
    if 2 * below < n:  # from the nearer end; kthvalue would be quadratic in rows that are sorted
        low, high = size.topk(below + 2, dim=1, largest=False).values[:, -2:].unbind(1)
    else:
        high, low = size.topk(n - below, dim=1).values[:, -2:].expand(-1, 2).unbind(1)
    made = torch.lerp(low, high, rank - below)
    return torch.where(size.isnan().any(dim=1), torch.full_like(made, torch.nan), made)


def dynamic_threshold(denoiser: DenoiserLike, quantile: float = 0.995, maximum: float = 1.0) -> DynamicThreshold:
    """Dynamic thresholding (Saharia et al. 2022, section 2.3): s = max(quantile of |D|, maximum); D clipped to [-s, s] and
    scaled by maximum / s. Per sample.

    Args:
        denoiser: Of data in [-maximum, maximum].
        quantile: Of |D| over one sample.
        maximum: The largest |x_0| of the data.

    Raises:
        OptionError: quantile outside (0, 1] or maximum not positive.
    """
    return DynamicThreshold(denoiser, quantile, maximum)
