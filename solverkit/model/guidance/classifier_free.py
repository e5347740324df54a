"""Classifier-free guidance, everywhere or in an interval of noise levels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...errors import DenoiserError, OptionError, ScheduleError
from ..denoiser import Denoiser, DenoiserLike
from ..inputs import cut, row_index
from .contrast import rescaled
from .scale import Scale, brief, checked_scale, scale_at
from .wrapped import Wrapped, number, row_levels, rows_of


class ClassifierFree(Wrapped):
    """D_u + scale (D_c - D_u); see `classifier_free`."""

    def __init__(
        self, conditional: DenoiserLike, unconditional: DenoiserLike, scale: Scale, batched: bool, rescale: float,
        interval: tuple[float, float] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(conditional)
        other = Wrapped(unconditional)
        if other.schedule != self.schedule:
            raise ScheduleError(
                f"guidance mixes two predictions of one process, but the schedules differ: {self.schedule} and "
                f"{other.schedule}. Wrap both networks with the same schedule."
            )
        if self.shape is not None and other.shape is not None and self.shape != other.shape:
            raise DenoiserError(f"the two denoisers make samples of different shapes: {self.shape} and {other.shape}.")
        self.scale, self.rescale, self.batched = checked_scale("scale", scale), number("rescale", rescale), batched
        if not 0 <= self.rescale <= 1:
            raise OptionError(f"rescale must be in [0, 1] (0 leaves guidance as it is), got {rescale!r}.")
        self.interval = None if interval is None else _interval(interval)
        self.conditional, self.unconditional = conditional, unconditional
        if batched:
            _require_stackable(conditional, unconditional)

    @property
    def takes_rows(self) -> bool:
        """Not with an interval: rows outside it cost half."""
        return self.interval is None and row_levels(self.conditional) and row_levels(self.unconditional)

    def __call__(self, x: torch.Tensor, level: Any) -> torch.Tensor:
        return self.both(x, level)[0]

    def both(self, x: torch.Tensor, level: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """(guided, conditional) prediction, each of x's shape, at the cost of the guided one."""
        if self.interval is not None:
            level = self.schedule.at(level)
            if not self.interval[0] < level.ratio <= self.interval[1]:
                conditional = self.conditional(x, level)
                return conditional, conditional
        conditional, unconditional = self._batch(x, level) if self.batched else self._two_passes(x, level)
        guided = unconditional + scale_at("scale", self.scale, level, x, self.schedule) * (conditional - unconditional)
        return rescaled(guided, conditional, self.rescale), conditional

    def _two_passes(self, x: torch.Tensor, level: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return self.conditional(x, level), self.unconditional(x, level)

    def _batch(self, x: torch.Tensor, level: Any) -> tuple[torch.Tensor, torch.Tensor]:
        assert isinstance(self.conditional, Denoiser) and isinstance(self.unconditional, Denoiser)
        both = self.conditional.view(
            **{name: _stack(name, c, self.unconditional.inputs[name], x) for name, c in self.conditional.inputs.items()}
        )
        doubled = (*level, *level) if isinstance(level, (tuple, list)) else level
        conditional, unconditional = both(torch.cat([x, x]), doubled).chunk(2)
        return conditional, unconditional

    def rows(self, start: int | Sequence[int], stop: int | None = None, total: int | None = None) -> ClassifierFree:
        """The guidance of some samples of a batch: of their inputs, and with their scales."""
        conditional = rows_of(self.conditional, start, stop, total)
        unconditional = rows_of(self.unconditional, start, stop, total)
        scale = cut(self.scale, *row_index(start, stop, total))
        return ClassifierFree(conditional, unconditional, scale, self.batched, self.rescale, self.interval)

    def __repr__(self) -> str:
        more = f", rescale={self.rescale:g}" if self.rescale else ""
        more += f", interval={self.interval}" if self.interval is not None else ""
        return f"ClassifierFree({self.conditional!r}, {self.unconditional!r}, scale={brief(self.scale)}{more})"


def classifier_free(
    conditional: DenoiserLike, unconditional: DenoiserLike, scale: Scale, batched: bool = False, rescale: float = 0.0,
    interval: tuple[float, float] | None = None,
) -> ClassifierFree:  # fmt: skip
    """Classifier-free guidance D = D_u + scale (D_c - D_u) (Ho and Salimans 2022, eq. 6 with scale = 1 + w).

    Two passes through the network, counted as two evaluations a sample, batched or not; one outside the interval.

    Args:
        conditional, unconditional: Denoisers of one schedule, e.g. `d.with_inputs(class_labels=...)` twice.
        scale: 1 is the conditional denoiser, 0 the unconditional one. A number, a tensor (B,) with one a sample, or a
            function of the `Level` (one a step).
        batched: One pass over 2B samples; both must wrap the same network with the same names of inputs.
        rescale: phi of Lin et al. 2024, eq. 15-16; see `rescale`.
        interval: (low, high) in sigma / alpha. The guidance is used where low < sigma / alpha <= high, and only the
            conditional denoiser is asked elsewhere (Kynkaanniemi et al. 2024, eq. 5).

    Raises:
        ScheduleError: two schedules that differ.
        DenoiserError: shapes that differ, something that is no denoiser, or inputs that do not stack.
        OptionError: rescale outside [0, 1], a scale that is no number, or an interval that is none. When called: a scale
            with another number of entries than samples.
    """
    return ClassifierFree(conditional, unconditional, scale, batched, rescale, interval)


def _interval(interval: Any) -> tuple[float, float]:
    try:
        low, high = (float(v) for v in interval)
    except (TypeError, ValueError):
        raise OptionError(f"interval must be (low, high) in sigma / alpha, got {interval!r}.") from None
    if not 0 <= low < high or math.isnan(high):
        raise OptionError(f"interval needs 0 <= low < high in sigma / alpha, got {interval!r}.")
    return low, high


def _require_stackable(conditional: DenoiserLike, unconditional: DenoiserLike) -> None:
    advice = "Leave batched=False: two passes cost the same evaluations."
    if not isinstance(conditional, Denoiser) or not isinstance(unconditional, Denoiser):
        raise DenoiserError(f"batched=True needs two denoisers from sk.wrap or sk.load. {advice}")
    if conditional.net is not unconditional.net or conditional.prediction != unconditional.prediction:
        raise DenoiserError(f"batched=True needs one network behind both denoisers (use with_inputs). {advice}")
    if conditional.inputs.keys() != unconditional.inputs.keys():
        raise DenoiserError(
            "batched=True needs inputs of the same names on both sides, got "
            f"{sorted(conditional.inputs)} and {sorted(unconditional.inputs)}. {advice}"
        )


def _stack(name: str, conditional: Any, unconditional: Any, x: torch.Tensor) -> Any:
    """One input for the doubled batch: rows of both, or the value that both share; mappings and lists part by part."""
    mappings = isinstance(conditional, Mapping) and isinstance(unconditional, Mapping)
    if mappings and conditional.keys() == unconditional.keys():
        return {key: _stack(f"{name}[{key!r}]", c, unconditional[key], x) for key, c in conditional.items()}
    lists = type(conditional) in (list, tuple) and type(unconditional) is type(conditional)
    if lists and len(conditional) == len(unconditional) and any(isinstance(c, torch.Tensor) for c in conditional):
        pairs = enumerate(zip(conditional, unconditional))
        return type(conditional)(_stack(f"{name}[{i}]", c, u, x) for i, (c, u) in pairs)
    tensors = isinstance(conditional, torch.Tensor) or isinstance(unconditional, torch.Tensor)
    shared = conditional is unconditional or (not tensors and conditional == unconditional)
    if shared and not (tensors and conditional.ndim > 0 and len(conditional) == len(x)):
        return conditional
    rows = [_rows(value, x) for value in (conditional, unconditional)]
    if rows[0] is not None and rows[1] is not None and rows[0].shape == rows[1].shape:
        return torch.cat([rows[0], rows[1].to(rows[0])])
    raise DenoiserError(
        f"batched=True cannot stack the input {name!r} for {len(x)} samples: expected ints, or tensors of equal shape with "
        f"{len(x)} rows (or one row). Leave batched=False: two passes cost the same evaluations."
    )


def _rows(value: Any, x: torch.Tensor) -> torch.Tensor | None:
    """An input with one row a sample, where it is one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return torch.full((len(x),), value, dtype=torch.long, device=x.device)
    if not isinstance(value, torch.Tensor) or (value.ndim == 0 and value.is_floating_point()):
        return None
    if value.ndim == 0 or len(value) == 1:
        return value.expand(len(x), *value.shape[1:]).to(x.device)
    return value if len(value) == len(x) else None
