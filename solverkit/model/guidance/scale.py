"""The scale of a guidance: one number, one a sample, or a function of the level."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch

from ...errors import OptionError
from ...process.level import Level
from ...process.schedule import Schedule
from ..denoiser import per_row
from .wrapped import number

Scale: TypeAlias = "float | torch.Tensor | Callable[[Level], float]"


def checked_scale(name: str, scale: Any) -> Scale:
    """The scale as a float, a tensor (B,) or a function.

    Raises:
        OptionError: anything else, or numbers that are not finite.
    """
    if isinstance(scale, (list, tuple)):
        raise OptionError(
            f"{name} must be a number, a tensor with one number a sample, or a function of the level, got a "
            f"{type(scale).__name__}: torch.tensor(...) of it is one a sample; for one a step pass lambda level: ..."
        )
    if isinstance(scale, torch.Tensor):
        if scale.ndim == 0:
            return number(name, scale.item())
        if scale.ndim != 1 or scale.dtype in (torch.bool,) or scale.is_complex() or not bool(torch.isfinite(scale).all()):
            raise OptionError(f"{name} must hold one finite number a sample, shape (B,), got {tuple(scale.shape)}.")
        return scale
    return scale if callable(scale) else number(name, scale)


def scale_at(name: str, scale: Scale, level: Any, x: torch.Tensor, schedule: Schedule) -> float | torch.Tensor:
    """What multiplies a batch x (B, ...) at a level, or at one a row: a float, or a tensor (B, 1, ...).

    Raises:
        OptionError: another number of entries than samples, or a function that returns no number.
    """
    if isinstance(scale, torch.Tensor):
        if len(scale) not in (1, len(x)):
            raise OptionError(f"{name} has {len(scale)} entries for {len(x)} samples; give one number, or one a sample.")
        return scale.to(x.dtype).to(x.device).reshape(-1, *[1] * (x.ndim - 1))
    if not callable(scale):
        return scale
    if isinstance(level, (tuple, list)):
        return per_row([_asked(name, scale, schedule.at(one)) for one in level], x)
    return _asked(name, scale, schedule.at(level))


def _asked(name: str, scale: Callable[[Level], float], level: Level) -> float:
    value: Any = scale(level)
    return number(f"{name}({level!r})", value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value)


def brief(scale: Scale) -> str:
    """A scale in a repr."""
    if isinstance(scale, torch.Tensor):
        return f"<{len(scale)} scales>"
    return f"{scale:g}" if isinstance(scale, float) else getattr(scale, "__name__", None) or repr(scale)
