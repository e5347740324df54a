"""Where float64 lives: on the host, or on a CUDA device. Other devices (MPS) have none: nothing is sent there in it."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def precise(x: torch.Tensor) -> torch.Tensor:
    """x in float64, moved to the host first unless it is on a CUDA device."""
    return x.double() if x.is_cuda else x.cpu().double()


def sent(x: torch.Tensor, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """x rounded to the dtype where it is, then moved."""
    return x.to(dtype).to(device)


def asked_dtype(x: torch.Tensor) -> torch.dtype:
    """The dtype in which a denoiser is asked about states that came as x: float64 if they did, else float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def column(values: Sequence[float] | torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """One number a row, (b,), shaped (b, 1, ...) to multiply x (b, ...), in its dtype and on its device."""
    given = values if isinstance(values, torch.Tensor) else torch.tensor(values, dtype=torch.float64)
    return sent(given, x.dtype, x.device).reshape(-1, *[1] * (x.ndim - 1))
