"""Several models of one run: the one that is sampled, and others that a sampler asks by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..errors import DenoiserError, OptionError, UnknownNameError
from ..process.level import Level
from ..process.schedule import Schedule
from .denoiser import DenoiserLike
from .guidance.wrapped import Wrapped, rows_of

__all__ = ["WithModels", "require_answer", "with_models"]


class WithModels(Wrapped):
    """A denoiser that holds others. Build it with `with_models`.

    Attributes:
        denoiser: The run's own.
        models: The others by name.
    """

    def __init__(self, denoiser: DenoiserLike, models: dict[str, DenoiserLike]) -> None:
        super().__init__(denoiser)
        self.models = models

    @property
    def maps(self) -> bool:
        """Whether the run's own answers `to=`."""
        return bool(getattr(self.denoiser, "maps", False))

    @property
    def takes_rows(self) -> bool:
        """Whether the run's own can be asked at one level a row."""
        return bool(getattr(self.denoiser, "takes_rows", False))

    def __call__(
        self, x: torch.Tensor, level: Any, to: float | None = None, of: str | None = None
    ) -> torch.Tensor:
        """The answer of the model that is called `of`, the run's own without it; x (B, ...) in the frame of the run.

        A model on another schedule is asked at the same sigma / alpha, where the same frame has the same x.
        """
        asked = self.denoiser if of is None else self.models[of]
        if asked.schedule != self.schedule:
            level, to = _there(asked.schedule, level), None if to is None else _there(asked.schedule, to)
        return asked(x, level) if to is None else asked(x, level, to=to)  # type: ignore[call-arg]

    def rows(self, start: int | Sequence[int], stop: int | None = None, total: int | None = None) -> WithModels:
        """The same of some samples of a batch; see `Denoiser.rows`."""
        models = {name: rows_of(model, start, stop, total) for name, model in self.models.items()}
        return WithModels(rows_of(self.denoiser, start, stop, total), models)


def _there(schedule: Schedule, level: Any) -> Level:
    return schedule.level(level.ratio, level.frame)


def with_models(denoiser: DenoiserLike, **models: DenoiserLike) -> WithModels:
    """A denoiser that holds other models, for samplers that ask several: with_models(strong, weak=other).

    Args:
        denoiser: The model that is sampled.
        models: The others, by the names that the sampler asks for.

    Raises:
        DenoiserError: something that is no denoiser, or one whose samples have another shape.
        OptionError: the name "model", which is the run's own.
    """
    if "model" in models:
        raise OptionError("'model' is the run's own denoiser; give the other one another name.")
    if isinstance(denoiser, WithModels):
        models = {**denoiser.models, **models}
        denoiser = denoiser.denoiser
    shape = getattr(denoiser, "shape", None)
    for name, model in models.items():
        if not isinstance(getattr(model, "schedule", None), Schedule) or not callable(model):
            raise DenoiserError(f"the model {name!r} must come from sk.load or sk.wrap, got {type(model).__name__}.")
        other = getattr(model, "shape", None)
        if None not in (shape, other) and tuple(other) != tuple(shape):  # type: ignore[arg-type]
            raise DenoiserError(
                f"the model {name!r} is for samples of shape {tuple(other)}, the run's own for {tuple(shape)}: one state "  # type: ignore[arg-type]
                "must fit both."
            )
    return WithModels(denoiser, models)


def require_answer(denoiser: Any, maps: bool, of: str | None) -> None:
    """That a denoiser has the model that is asked, and that it answers a second level.

    Raises:
        UnknownNameError: no model of that name.
        DenoiserError: no other models at all, or no flow map.
    """
    if getattr(denoiser, "exact", False):
        return
    if of is not None:
        models = getattr(denoiser, "models", None)
        if not models:
            raise DenoiserError(
                f"this sampler asks a second model, {of!r}, and the run has none: sk.sample(..., models={{{of!r}: other}})."
            )
        if of not in models:
            raise UnknownNameError("model of the run", of, models)
        denoiser = models[of]
    if maps and not getattr(denoiser, "maps", False):
        raise DenoiserError(
            f"this sampler asks a flow map from one level to another, and {type(denoiser).__name__} knows one level: wrap "
            "the network with sk.wrap_map, or take 'renoise' or an ordinary solver."
        )
