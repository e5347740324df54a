"""Classifier-free guidance."""

from __future__ import annotations

from typing import Any

import torch

from ...errors import DenoiserError, OptionError, ScheduleError
from ..denoiser import Denoiser, DenoiserLike
from .wrapped import Wrapped, number, std


class ClassifierFree(Wrapped):
    """D_u + scale (D_c - D_u); see `classifier_free`."""

    def __init__(
        self, conditional: DenoiserLike, unconditional: DenoiserLike, scale: float, batched: bool, rescale: float
    ) -> None:
        super().__init__(conditional)
        other = Wrapped(unconditional)
        if other.schedule != self.schedule:
            raise ScheduleError(
                f"guidance mixes two predictions of one process, but the schedules differ: {self.schedule} and "
                f"{other.schedule}. Wrap both networks with the same schedule."
            )
        if self.shape is not None and other.shape is not None and self.shape != other.shape:
            raise DenoiserError(f"the two denoisers make samples of different shapes: {self.shape} and {other.shape}.")
        self.scale, self.rescale, self.batched = number("scale", scale), number("rescale", rescale), batched
        if not 0 <= self.rescale <= 1:
            raise OptionError(f"rescale must be in [0, 1] (0 leaves guidance as it is), got {rescale!r}.")
        self.conditional, self.unconditional = conditional, unconditional
        if batched:
            _require_stackable(conditional, unconditional)

    def __call__(self, x: torch.Tensor, level: float) -> torch.Tensor:
        conditional, unconditional = self._batch(x, level) if self.batched else self._two_passes(x, level)
        guided = unconditional + self.scale * (conditional - unconditional)
        if self.rescale == 0 or guided[0].numel() < 2:
            return guided
        factor = std(conditional) / std(guided).clamp_min(torch.finfo(guided.dtype).tiny)
        return guided * (1 + self.rescale * (factor - 1))  # Lin et al. 2024, eq. 15-16

    def _two_passes(self, x: torch.Tensor, level: float) -> tuple[torch.Tensor, torch.Tensor]:
        return self.conditional(x, level), self.unconditional(x, level)

    def _batch(self, x: torch.Tensor, level: float) -> tuple[torch.Tensor, torch.Tensor]:
        assert isinstance(self.conditional, Denoiser) and isinstance(self.unconditional, Denoiser)
        both = self.conditional.with_inputs(
            **{name: _stack(name, c, self.unconditional.inputs[name], x) for name, c in self.conditional.inputs.items()}
        )
        out = both(torch.cat([x, x]), level)
        self.conditional.calls += 1
        conditional, unconditional = out.chunk(2)
        return conditional, unconditional



def classifier_free(
    conditional: DenoiserLike, unconditional: DenoiserLike, scale: float, batched: bool = False, rescale: float = 0.0
) -> ClassifierFree:
    """Classifier-free guidance D = D_u + scale (D_c - D_u) (Ho and Salimans 2022, eq. 6 with scale = 1 + w).

    Two passes through the network, counted as two evaluations a sample, batched or not.

    Args:
        conditional, unconditional: Denoisers of one schedule, e.g. `d.with_inputs(class_labels=...)` twice.
        scale: 1 is the conditional denoiser, 0 the unconditional one.
        batched: One pass over 2B samples; both must wrap the same network with the same names of inputs.
        rescale: phi of Lin et al. 2024, eq. 15-16, applied to the denoised prediction of each sample: 0 leaves it as it is,
            1 gives it the standard deviation of the conditional one. They suggest 0.7.

    Raises:
        ScheduleError: two schedules that differ.
        DenoiserError: shapes that differ, something that is no denoiser, or inputs that do not stack.
        OptionError: rescale outside [0, 1], or a scale that is no number.
    """
    return ClassifierFree(conditional, unconditional, scale, batched, rescale)



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
    """One input for the doubled batch: rows of both, or the value that both share."""
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
