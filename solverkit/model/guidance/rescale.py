"""Guidance rescale: the contrast that guidance added is taken back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ...errors import DenoiserError, OptionError, ScheduleError
from ..denoiser import DenoiserLike
from .classifier_free import ClassifierFree
from .contrast import rescaled
from .wrapped import Wrapped, number, row_levels, rows_of


class Rescale(Wrapped):
    """A guided prediction with the standard deviation of the conditional one; see `rescale`."""

    def __init__(self, guided: DenoiserLike, conditional: DenoiserLike | None, amount: float) -> None:
        super().__init__(guided)
        if conditional is None and not isinstance(guided, ClassifierFree):
            raise DenoiserError(
                f"the conditional denoiser of a {type(guided).__name__} is not known: pass conditional= (one more "
                "evaluation), or rescale the classifier_free denoiser itself."
            )
        if conditional is not None and Wrapped(conditional).schedule != self.schedule:
            raise ScheduleError(f"the schedules differ: {self.schedule} and {conditional.schedule}.")
        self.conditional, self.amount = conditional, number("amount", amount)
        if not 0 <= self.amount <= 1:
            raise OptionError(f"amount must be in [0, 1] (0 leaves guidance as it is), got {amount!r}.")

    @property
    def takes_rows(self) -> bool:
        return row_levels(self.denoiser) and (self.conditional is None or row_levels(self.conditional))

    def __call__(self, x: torch.Tensor, level: Any) -> torch.Tensor:
        if self.conditional is not None:
            return rescaled(self.denoiser(x, level), self.conditional(x, level), self.amount)
        assert isinstance(self.denoiser, ClassifierFree)
        return rescaled(*self.denoiser.both(x, level), self.amount)

    def rows(self, start: int | Sequence[int], stop: int | None = None, total: int | None = None) -> Rescale:
        conditional = None if self.conditional is None else rows_of(self.conditional, start, stop, total)
        return Rescale(rows_of(self.denoiser, start, stop, total), conditional, self.amount)

    def __repr__(self) -> str:
        return f"Rescale({self.denoiser!r}, {self.amount:g})"


def rescale(guided: DenoiserLike, conditional: DenoiserLike | None = None, amount: float = 0.7) -> Rescale:
    """Guidance rescale (Lin et al. 2024, eq. 15-16): D' = D (1 + amount (std(D_c) / std(D) - 1)), per sample.

    It takes back the contrast that strong guidance adds. Applied to the denoised prediction.

    Args:
        guided: A guided denoiser.
        conditional: The conditional one inside. None: that of a `classifier_free` denoiser, which costs nothing more; else
            it is asked again, one more evaluation.
        amount: Their phi: 0 leaves the prediction as it is, 1 gives it the standard deviation of the conditional one. They
            suggest 0.7.

    Raises:
        DenoiserError: something that is no denoiser, or no conditional one known.
        ScheduleError: two schedules that differ.
        OptionError: amount outside [0, 1].
    """
    return Rescale(guided, conditional, amount)
