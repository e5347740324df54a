"""The denoised prediction kept in the range of the data."""

from __future__ import annotations

import torch

from ...errors import OptionError
from ..denoiser import DenoiserLike
from .wrapped import Wrapped, number


class Clip(Wrapped):
    """D restricted to [low, high]; see `clip`."""

    def __init__(self, denoiser: DenoiserLike, low: float, high: float) -> None:
        super().__init__(denoiser)
        self.low, self.high = number("low", low), number("high", high)
        if not self.low < self.high:
            raise OptionError(f"clip needs low < high, got {low!r} and {high!r}.")

    def __call__(self, x: torch.Tensor, level: float) -> torch.Tensor:
        return self.denoiser(x, level).clamp(self.low, self.high)



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

    def __call__(self, x: torch.Tensor, level: float) -> torch.Tensor:
        denoised = self.denoiser(x, level)
        size = denoised.flatten(1).abs().to(torch.promote_types(denoised.dtype, torch.float32))
        threshold = torch.quantile(size, self.quantile, dim=1).clamp_min(self.maximum).to(denoised.dtype)
        threshold = threshold.view(-1, *[1] * (denoised.ndim - 1))
        return denoised.clamp(-threshold, threshold) * (self.maximum / threshold)



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
