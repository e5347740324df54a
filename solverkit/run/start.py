"""The state that a run starts from, and its draws."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from ..errors import OptionError
from ..grid.named import is_count
from ..model.denoiser import Prior
from ..model.placement import usable_device
from ..process.level import Level
from .noise import PRIOR, SampleNoise, sample_seeds


class Start:
    """Where the samples of a run begin: rows start .. stop - 1 are made when they are asked for, the same in any batch.

    Args:
        denoiser: Of the run.
        num_samples, shape, x: Exactly one of them, as in `sk.sample`.
        seed, device, dtype, prior, grad: As in `sk.sample`.

    Raises:
        OptionError: arguments that contradict each other, or that no run can have.
    """

    def __init__(
        self, denoiser: Any, num_samples: int | None, shape: Sequence[int] | None, x: torch.Tensor | None,
        seed: int | Sequence[int], device: Any, dtype: torch.dtype | None, prior: Prior | None, grad: bool,
    ) -> None:  # fmt: skip
        if sum(v is not None for v in (num_samples, shape, x)) != 1:
            raise OptionError("give exactly one of num_samples=, shape= (batch first) and x=.")
        if x is not None and not (isinstance(x, torch.Tensor) and x.is_floating_point() and x.ndim and len(x)):
            raise OptionError("x must be a floating-point tensor of shape (B, ...) with at least one sample.")
        if dtype not in (None, torch.float32, torch.float64):
            raise OptionError(
                f"dtype is that of the state, torch.float32 or torch.float64, got {dtype!r}: solvers subtract nearly equal "
                "numbers. The network keeps its own dtype whatever the state has."
            )
        self.device = usable_device(device or (x.device if x is not None else getattr(denoiser, "device", "cpu")))
        self.dtype = dtype or (torch.float64 if x is not None and x.dtype == torch.float64 else torch.float32)
        self.prior = getattr(denoiser, "prior", None) if prior is None else prior
        if prior is not None and (x is not None or not callable(prior)):
            raise OptionError("prior= is a function of unit normal noise (B, ...) that makes the starting states; with x= "
                              "they are given already.")  # fmt: skip
        self.x, self.schedule = x, denoiser.schedule
        self.shape = tuple(x.shape) if x is not None else self._shape(denoiser, num_samples, shape)
        self.noise = SampleNoise(sample_seeds(seed, self.shape[0]), self.shape[1:], self.dtype, self.device)
        self.grad = grad
        if x is not None and x.requires_grad and not grad:
            warnings.warn(
                "x asks for gradients, and a run keeps none: pass grad=True to differentiate through it.", stacklevel=3
            )

    @staticmethod
    def _shape(denoiser: Any, num_samples: int | None, shape: Sequence[int] | None) -> tuple[int, ...]:
        if num_samples is not None:
            if not is_count(num_samples):
                raise OptionError(f"num_samples must be a positive integer, got {num_samples!r}.")
            if getattr(denoiser, "shape", None) is None:
                raise OptionError("this denoiser does not know the shape of a sample; give shape=(batch, ...) or x=.")
            return (int(num_samples), *denoiser.shape)
        if not (isinstance(shape, (tuple, list)) and shape and all(is_count(n) for n in shape)):
            raise OptionError(f"shape must be the batch's, a tuple of positive integers (B, ...), got {shape!r}.")
        return tuple(int(n) for n in shape)

    def rows(self, first: Level, start: int, stop: int) -> tuple[torch.Tensor, SampleNoise]:
        """The states of samples start .. stop - 1 at the first level, in the model's own coordinates, and their draws."""
        noise = self.noise.part(start, stop)
        if self.x is not None:
            x = self.x[start:stop]
            x = x if self.grad else x.detach()
            return x.to(device=self.device, dtype=self.dtype, copy=True), noise
        z = noise(PRIOR)
        if self.prior is None:
            return z * self.schedule.prior_std(first), noise
        x = self.prior(z)
        if not isinstance(x, torch.Tensor) or x.shape != z.shape:
            got = tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
            raise OptionError(f"prior made {got} of noise of shape {tuple(z.shape)}; expected the same shape.")
        return x.to(z), noise
