"""Telling networks apart."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch

from ..process.schedule import Schedule


def fingerprint(denoiser: Any) -> str:
    """16 hex digits that change with a parameter, a constant of the target, an input, or the schedule."""
    digest = hashlib.sha256()
    _feed(digest.update, denoiser, set())
    return digest.hexdigest()[:16]


def _feed(update: Callable[[bytes], None], value: Any, seen: set[int]) -> None:
    """Everything that a value is made of, in a fixed order; counters and caches (private names, `calls`) left out."""
    if isinstance(value, torch.Tensor):
        update(f"{value.dtype}{tuple(value.shape)}".encode())
        update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    elif isinstance(value, torch.nn.Module):
        update(type(value).__qualname__.encode())
        for name, tensor in sorted(value.state_dict().items()):
            update(name.encode())
            _feed(update, tensor, seen)
    elif value is None or isinstance(value, (bool, int, float, str, Schedule)):
        update(repr(value).encode() + b";")
    elif isinstance(value, (list, tuple)):
        for item in value:
            _feed(update, item, seen)
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            update(f"{key}=".encode())
            _feed(update, value[key], seen)
    elif id(value) not in seen:
        seen.add(id(value))
        update(getattr(value, "__qualname__", type(value).__qualname__).encode())
        state = getattr(value, "__dict__", {})
        left_out = ("calls", "source")
        _feed(update, {k: v for k, v in state.items() if k not in left_out and not k.startswith("_")}, seen)
