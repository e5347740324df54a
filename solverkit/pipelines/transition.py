"""A step of a pipeline as a Gaussian transition, in the coordinates of its latents."""

from __future__ import annotations

from typing import Any, NamedTuple, get_args

import torch

from ..errors import OptionError
from ..plan.plan import State
from ..plan.transitions import Reduce, deviation
from ..plan.transitions import log_prob as log_prob_of
from .stepper import Draw, Stepper


class Moved(NamedTuple):
    """The mean of a step, (B, ...), and its standard deviation."""

    mean: torch.Tensor
    std: float


def require_tellable(reduce: Reduce | None, after: torch.Tensor | None, sample: torch.Tensor, whole: bool) -> None:
    """That what is asked of a step's probability can be told.

    Raises:
        OptionError: an unknown reduction, an output without room for it, or latents of another shape.
    """
    if reduce is None:
        if after is not None:
            raise OptionError("prev_sample= is for the probability of a step that was made: pass log_prob='sum' or 'mean'.")
        return
    if reduce not in get_args(Reduce):
        raise OptionError(f"log_prob must be 'sum' or 'mean' over the dimensions of a sample, got {reduce!r}.")
    if not whole:
        raise OptionError("log_prob= needs return_dict=True and one timestep for all tokens.")
    if after is not None and after.shape != sample.shape:
        raise OptionError(f"prev_sample= has shape {tuple(after.shape)}, and the latents {tuple(sample.shape)}.")


def silent(x: torch.Tensor) -> Draw:
    """Draws of zero."""
    return lambda ordinal, s, t: torch.zeros_like(x)


def gaussian_step(
    stepper: Stepper, j: int, state: State, x: torch.Tensor, stored: torch.Tensor, learned: Any
) -> Moved:
    """The mean and the standard deviation of the step behind evaluation j of a stepper.

    Raises:
        TraceError: the step is no Gaussian transition.
        OptionError: the network answers a variance of its own.
    """
    if learned is not None:
        raise OptionError("log_prob= is for one standard deviation a step; this network answers one a pixel.")
    std = deviation(stepper.plan, j)
    mean, _ = stepper.step(j, state, x, stored, silent(x))
    return Moved(mean, std)


def transition(moved: Moved | None, after: torch.Tensor, reduce: Reduce) -> tuple[Any, ...]:
    """(mean, std, log_prob) of the latents that a step returned, as they are stored."""
    if moved is None:  # a timestep of length zero
        return after, 0.0, None
    mean, std = moved
    return mean, std, log_prob_of(mean, std, after.to(mean.dtype), reduce) if std > 0 else None
