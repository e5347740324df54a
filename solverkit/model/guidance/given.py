"""A network whose observed part is an input, as CSDI has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ...errors import DenoiserError
from ..denoiser import Denoiser, DenoiserLike
from ..inputs import cut, row_index
from .wrapped import Wrapped, rows_of


class Given(Wrapped):
    """The network sees the unknown part of the state, and what is observed as fixed inputs; see `given`."""

    def __init__(self, denoiser: DenoiserLike, observed: torch.Tensor, mask: torch.Tensor) -> None:
        super().__init__(denoiser)
        self.observed, self.mask = observed, mask

    def __call__(self, x: torch.Tensor, level: Any) -> torch.Tensor:
        mask = self.mask.to(x.device)
        denoised = self.denoiser(torch.where(mask, torch.zeros((), dtype=x.dtype, device=x.device), x), level)
        return torch.where(mask, self.observed.to(x.dtype).to(x.device), denoised)

    def rows(self, start: int | Sequence[int], stop: int | None = None, total: int | None = None) -> Given:
        """The same for some samples of a batch: of their inputs, with what is observed of them."""
        index, total = row_index(start, stop, total)
        denoiser = rows_of(self.denoiser, start, stop, total)
        return Given(denoiser, cut(self.observed, index, total), cut(self.mask, index, total))


def given(denoiser: Denoiser, observed: torch.Tensor, mask: torch.Tensor) -> Given:
    """A conditional network as a denoiser of what is missing.

    The network is called net(x, time, observed=, mask=, **inputs): x is 0 where the mask is true, `observed` is 0 where it
    is not and is never noised, `mask` is 1 where it is true; whatever else it wants (times, embeddings) are fixed inputs of
    `sk.wrap`. What it answers where the mask is true is not used. Source: Tashiro et al. 2021 (CSDI), arXiv 2107.03502.

    Args:
        denoiser: From `sk.wrap`, whose network takes those inputs.
        observed: (B, ...) or (1, ...), in the model's own coordinates.
        mask: Bool, of observed's shape; true is observed.

    Raises:
        DenoiserError: a denoiser that has no inputs.
    """
    if not isinstance(denoiser, Denoiser):
        raise DenoiserError(
            f"a conditional network is one from sk.wrap, called net(x, time, observed=, mask=); got "
            f"{type(denoiser).__name__}. For an unconditional model take another method, such as 'mmps' or "
            "'repaint'."
        )
    clean = torch.where(mask, observed, torch.zeros((), dtype=observed.dtype))
    return Given(denoiser.with_inputs(observed=clean, mask=mask.to(observed.dtype)), clean, mask)
