"""What a denoiser around a denoiser takes over from the one inside."""

from __future__ import annotations

import math
from typing import Any

import torch

from ...errors import DenoiserError, OptionError
from ...process.schedule import Schedule
from ..denoiser import DenoiserLike


class Wrapped:
    """Base of the denoisers in this module: what they take over from the one inside."""

    def __init__(self, denoiser: DenoiserLike) -> None:
        if not isinstance(getattr(denoiser, "schedule", None), Schedule) or not callable(denoiser):
            raise DenoiserError(
                f"expected a denoiser (from sk.wrap or sk.load) with a .schedule, got {type(denoiser).__name__}; "
                "wrap a bare network first: sk.wrap(net, prediction, schedule)."
            )
        self.denoiser = denoiser
        self.schedule = denoiser.schedule
        self.shape: tuple[int, ...] | None = getattr(denoiser, "shape", None)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return torch.device(getattr(self.denoiser, "device", "cpu"))

    def __call__(self, x: torch.Tensor, level: float) -> torch.Tensor:
        raise NotImplementedError



def number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise OptionError(f"{name} must be a finite number, got {value!r}.")
    return float(value)



def std(x: torch.Tensor) -> torch.Tensor:
    """Standard deviation of each sample, (B, 1, ...)."""
    return x.flatten(1).std(dim=1).view(-1, *[1] * (x.ndim - 1))
