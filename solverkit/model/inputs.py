"""Fixed inputs of a network: one for all samples, or one a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch

from ..errors import DenoiserError

Rows: TypeAlias = "slice | list[int]"


def row_index(start: int | Sequence[int], stop: int | None, total: int | None) -> tuple[Rows, int]:
    """(index, total) of `rows(start, stop, total)`: samples start .. stop - 1, or those of a sequence of indices.

    Raises:
        DenoiserError: no total, or rows that are not among them.
    """
    if isinstance(total, bool) or not isinstance(total, int) or total < 1:
        raise DenoiserError(f"rows needs total=, the number of samples of the whole batch; got {total!r}.")
    if isinstance(start, int):
        if stop is None or not 0 <= start < stop <= total:
            raise DenoiserError(
                f"rows {start} to {stop} are not among {total} samples: expected 0 <= start < stop <= total."
            )
        return slice(start, stop), total
    index = [int(i) for i in start]
    if stop is not None or not index or not all(0 <= i < total for i in index):
        raise DenoiserError(
            f"rows takes start and stop, or indices 0 .. {total - 1} alone; got {index[:8]} and stop={stop}."
        )
    return index, total


def cut(value: Any, index: Rows, total: int) -> Any:
    """The rows of an input that has one a sample; any other input as it is.

    One a sample is a tensor whose first dimension is `total`, a list of `total` tensors of other lengths, or any of
    them inside a mapping, list or tuple. With total = 1 there is nothing to cut; several rows of the one sample repeat it.
    """
    if total == 1 and (isinstance(index, slice) or len(index) == 1):
        return value
    if isinstance(value, torch.Tensor):
        if value.ndim == 0 or len(value) != total:
            return value
        return value[index] if isinstance(index, slice) else value[torch.tensor(index, device=value.device)]
    if isinstance(value, Mapping):
        return {name: cut(part, index, total) for name, part in value.items()}
    if type(value) in (list, tuple) and any(isinstance(part, (torch.Tensor, Mapping)) for part in value):
        if len(value) == total and not all(_a_sample_each(part, total) for part in value):
            return type(value)(value[index] if isinstance(index, slice) else [value[i] for i in index])
        return type(value)(cut(part, index, total) for part in value)
    return value


def _a_sample_each(value: Any, total: int) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim > 0 and len(value) == total


def batched(value: Any, x: torch.Tensor) -> Any:
    """What the network gets: a scalar label becomes one a sample; a tensor of inference mode one that autograd may keep."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return torch.full((len(x),), value, dtype=torch.long, device=x.device)
    if not isinstance(value, torch.Tensor):
        return value
    if value.ndim == 0 and not value.is_floating_point():
        return value.to(x.device).expand(len(x))
    return outside_inference(value)


def outside_inference(value: torch.Tensor) -> torch.Tensor:
    """A copy that autograd may keep, where gradients are recorded and the tensor was made under torch.inference_mode."""
    if value.is_inference() and torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
        return value.clone()
    return value
