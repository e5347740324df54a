"""A network on a path whose mean moves towards y: x = alpha x_0 + (1 - alpha) y + sigma eps, run as a path of z = x - y."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..errors import DenoiserError, OptionError
from ..process.residual import Residual
from ..process.schedule import Schedule
from .counting import record
from .denoiser import Denoiser, wrap
from .guidance.wrapped import Wrapped
from .inputs import cut, row_index

__all__ = ["Towards", "shift_of", "wrap_towards"]

PREDICTS = ("sample", "denoised", "epsilon")


class Towards(Wrapped):
    """D_z(z) = D(z + y) - y in the frame of z. Build it with `wrap_towards`.

    Attributes:
        denoiser: The network as it is asked.
        towards: y, (B, ...) or (1, ...), on the network's device.
        scaled: The network is given x times the schedule's `input_scale`.
    """

    denoiser: Denoiser

    def __init__(self, denoiser: Denoiser, towards: torch.Tensor, scaled: bool) -> None:
        super().__init__(denoiser)
        self.towards, self.scaled = towards, scaled
        self.shape = tuple(towards.shape[1:])

    def __call__(self, x: torch.Tensor, level: Any) -> torch.Tensor:
        """E[x_0 - y | z] of z (B, ...) in the frame."""
        if isinstance(level, (tuple, list)):
            raise DenoiserError("a path towards y is asked at one level, not at one a row.")
        one = self.schedule.at(level)
        if len(self.towards) not in (1, len(x)):
            raise DenoiserError(f"y has {len(self.towards)} rows for {len(x)} samples; expected one, or one a sample.")
        y, own = self.towards.to(x), x * one.scale
        scale = self.schedule.input_scale(one) if self.scaled else 1.0  # type: ignore[attr-defined]
        out = self.denoiser._ask((own + y) * scale, one.time)
        record(len(x), x, level)
        out = out.to(x.dtype)
        if self.denoiser.prediction != "epsilon":
            return out - y
        return (own - (float(one) * one.scale) * out) / (one.alpha * one.scale)

    def rows(self, start: int | Sequence[int], stop: int | None = None, total: int | None = None) -> Towards:
        """The same of some samples of a batch; y and the inputs that have one row a sample are cut."""
        index, n = row_index(start, stop, total)
        return Towards(self.denoiser.rows(start, stop, total), cut(self.towards, index, n), self.scaled)


def wrap_towards(
    net: Callable[..., Any],
    towards: torch.Tensor,
    prediction: str = "sample",
    schedule: Schedule | None = None,
    *,
    scaled: bool = True,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    **fixed_kwargs: Any,
) -> Towards:
    """Adapt a network of a mean-shifted path (ResShift, SinSR, TAD-SR): every solver then runs on it.

    A run starts from y + sigma eps and ends at x_0; `sk.sample` takes and gives x, not x - y.

    Args:
        net: Called as net(x, time, **fixed_kwargs), as for `sk.wrap`; what else it is told of y (the small image beside x)
            goes to fixed_kwargs.
        towards: y, where the mean moves, (B, ...) or (1, ...) for all samples.
        prediction: "sample" (x_0) or "epsilon".
        schedule: `sk.Residual(...)`, or any schedule whose alpha and sigma the path has.
        scaled: x is multiplied by the schedule's input scale, as ResShift normalises it; `sk.Residual` has one.
        dtype, device, fixed_kwargs: As for `sk.wrap`.

    Raises:
        DenoiserError: another prediction, or as `sk.wrap`.
        OptionError: y is no batch of samples, or scaled=True on a schedule without an input scale.
    """
    if prediction not in PREDICTS:
        raise DenoiserError(f"on a path towards y prediction must be one of {', '.join(PREDICTS)}, got {prediction!r}.")
    if not isinstance(towards, torch.Tensor) or towards.ndim < 2 or not towards.is_floating_point():
        raise OptionError("towards must be y, a floating-point tensor of shape (B, ...) or (1, ...).")
    if scaled and not isinstance(schedule, Residual):
        raise OptionError("scaled=True multiplies x by the input scale of sk.Residual; others take scaled=False.")
    return Towards(wrap(net, prediction, schedule, dtype=dtype, device=device, **fixed_kwargs), towards, scaled)


def shift_of(denoiser: Any) -> torch.Tensor | None:
    """y of a denoiser on a path towards it; None for others."""
    inner, shift = denoiser, getattr(denoiser, "towards", None)
    while shift is None and isinstance(inner, Wrapped):
        inner = inner.denoiser
        shift = getattr(inner, "towards", None)
    return shift
