"""What happens to tensors that a pipeline hands over or gets: their width, their batch, and whether they were changed."""

from __future__ import annotations

from typing import Any

import torch

from ..plan.plan import State


def fitted(state: State, shape: tuple[int, ...], x: torch.Tensor) -> State | None:
    """A state of latents of `shape` for a batch that guidance doubled, or halved again; None where they do not fit."""
    if x.shape == shape:
        return state
    if x.shape[1:] != shape[1:] or (len(x) % shape[0] and shape[0] % len(x)):
        return None
    values = [repeated(value, len(x)) if len(value) == shape[0] else value for value in state.values]
    return State(state.index, tuple(values))


def repeated(value: torch.Tensor, n: int) -> torch.Tensor:
    """A kept value (B, ...) for n samples: repeated as torch.cat repeats a batch, or cut."""
    if len(value) >= n:
        return value[:n]
    return value.repeat(n // len(value), *[1] * (value.ndim - 1))


def version(tensor: torch.Tensor) -> Any:
    """What changes when a small tensor is edited; tensors of inference mode do not count their versions."""
    return tuple(tensor.tolist()) if tensor.is_inference() else tensor._version


def count(tensor: torch.Tensor) -> int:
    """How often a tensor was changed in place; 0 in inference mode, where nobody counts."""
    return 0 if tensor.is_inference() else tensor._version


def wide(x: torch.Tensor) -> torch.Tensor:
    """Half precision becomes float32; everything else stays."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
