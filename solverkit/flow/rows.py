"""Asking a denoiser about rows that are at levels of their own: rows at one level share a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..errors import DenoiserError
from ..model.counting import counting, record
from ..model.finite import require_finite_rows
from ..process.level import Level

Ask = Callable[[torch.Tensor, Any], torch.Tensor]


def takes_rows(denoiser: Any) -> bool:
    """Whether a denoiser takes a tuple of levels, one a row, so that one call serves rows at any levels."""
    return bool(getattr(denoiser, "takes_rows", False))


def ask(denoiser: Ask, x: torch.Tensor, levels: Sequence[Level], rows: torch.Tensor | None = None) -> torch.Tensor:
    """D(x) of states (b, ...) at levels of their own; shape and dtype of x.

    One call where all levels are the same or the denoiser takes a level a row, else one for each level.

    Args:
        denoiser: Of the network, or the model of a sampler.
        x: Frame states.
        levels: One a row.
        rows: The samples that the rows belong to, for messages; 0 .. b - 1 if not given.

    Raises:
        DenoiserError: an answer of another shape.
        NonFiniteError: NaN or inf in an answer; names the level and the samples.
    """
    places: dict[tuple[float, float], list[int]] = {}
    for i, level in enumerate(levels):
        places.setdefault((float(level), level.time), []).append(i)
    if len(places) == 1:
        return _answer(denoiser, x, levels[0], levels, rows)
    if takes_rows(denoiser):
        return _answer(denoiser, x, tuple(levels), levels, rows)
    parts = []
    for own in places.values():
        index = torch.tensor(own)
        named = index if rows is None else rows[index]
        parts.append(_answer(denoiser, x[index.to(x.device)], levels[own[0]], [levels[i] for i in own], named))
    order = torch.tensor([i for own in places.values() for i in own]).argsort()
    return torch.cat(parts)[order.to(x.device)]


def _answer(denoiser: Ask, x: torch.Tensor, level: Any, levels: Sequence[Level], rows: torch.Tensor | None) -> torch.Tensor:
    with counting() as count:
        denoised = denoiser(x, level)
    if count.rows == 0:  # a denoiser that is no network of ours: one pass
        record(len(x))
    if not isinstance(denoised, torch.Tensor) or denoised.shape != x.shape:
        got = tuple(denoised.shape) if isinstance(denoised, torch.Tensor) else type(denoised).__name__
        raise DenoiserError(f"the denoiser answered {got} to x of shape {tuple(x.shape)}; expected the same shape.")
    require_finite_rows(denoised, levels, rows, "the network returned NaN or inf")
    return denoised
