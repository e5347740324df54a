"""What a denoiser around a denoiser takes over from the one inside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch

from ...errors import DenoiserError, OptionError
from ...process.schedule import Schedule
from ..denoiser import DenoiserLike

D = TypeVar("D")


class Wrapped:
    """Base of the denoisers in this module: what they take over from the one inside.

    Attributes:
        denoiser: The one inside.
        schedule, shape: Its own.
        takes_rows: Whether it can be asked at one level a row.
    """

    def __init__(self, denoiser: DenoiserLike) -> None:
        if not isinstance(getattr(denoiser, "schedule", None), Schedule) or not callable(denoiser):
            raise DenoiserError(
                f"expected a denoiser (from sk.wrap or sk.load) with a .schedule, got {type(denoiser).__name__}; "
                "wrap a bare network first: sk.wrap(net, prediction, schedule)."
            )
        self.denoiser = denoiser
        self.schedule = denoiser.schedule
        self.shape: tuple[int, ...] | None = getattr(denoiser, "shape", None)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return torch.device(getattr(self.denoiser, "device", "cpu"))

    @property
    def prior(self) -> Any:
        """The source of the model inside, where it is not Gaussian."""
        return getattr(self.denoiser, "prior", None)

    @property
    def source(self) -> str | None:
        """What the model inside was opened from."""
        return getattr(self.denoiser, "source", None)

    @property
    def takes_rows(self) -> bool:
        return False

    def __call__(self, x: torch.Tensor, level: Any) -> torch.Tensor:
        raise NotImplementedError

    def rows(self, start: int | Sequence[int], stop: int | None = None, total: int | None = None) -> DenoiserLike:
        """The same around the denoiser of some samples of a batch; see `Denoiser.rows`."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.denoiser!r})"


def rows_of(denoiser: D, start: int | Sequence[int], stop: int | None, total: int | None) -> D:
    """A denoiser of some samples of a batch; itself where it has no inputs of its own for each."""
    rows = getattr(denoiser, "rows", None)
    return rows(start, stop, total) if callable(rows) else denoiser  # type: ignore[no-any-return]


def row_levels(denoiser: Any) -> bool:
    """Whether a denoiser can be asked at one level a row."""
    return bool(getattr(denoiser, "takes_rows", False))


def number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise OptionError(f"{name} must be a finite number, got {value!r}.")
    return float(value)
