"""What `step` returns: the next latents and the denoised prediction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils.outputs import BaseOutput


@dataclass
class SolverKitSchedulerOutput(BaseOutput):
    """What `step` returns.

    Attributes:
        prev_sample: The latents that the network sees next, shape of `sample`, dtype of the model's output.
        pred_original_sample: The denoised prediction of this evaluation, same shape and dtype.
        prev_sample_mean: On request (`log_prob=`): the mean of the transition to `prev_sample`, same shape.
        std: On request: its standard deviation in the latents' own coordinates, a number; 0 where the step draws nothing.
        log_prob: On request: of `prev_sample` as it is returned, (B,) nats; None where the step draws nothing.
    """

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor
    prev_sample_mean: torch.Tensor | None = None
    std: float | None = None
    log_prob: torch.Tensor | None = None


class Pair(tuple[Any, ...]):
    """(next latents, denoised prediction). The prediction is multiplied out when it is read: pipelines rarely do."""

    __slots__ = ()

    def __new__(cls, previous: torch.Tensor, stored: torch.Tensor, unit: float, dtype: torch.dtype) -> Pair:
        return super().__new__(cls, (previous, (stored, unit, dtype)))

    def __getitem__(self, index: Any) -> Any:
        if index == 0:
            return super().__getitem__(0)
        return tuple(self)[index]

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield super().__getitem__(0)
        yield denoised(*super().__getitem__(1))

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (list(self),)


def denoised(stored: torch.Tensor, unit: float, dtype: torch.dtype) -> torch.Tensor:
    """The prediction of a stored one; never the stored tensor itself."""
    return (stored * unit).to(dtype)
