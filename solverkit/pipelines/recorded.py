"""What the steps of a stock pipeline were, with their log-probabilities."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from ..plan.transitions import Reduce


class RecordedStep(NamedTuple):
    """One step of a pipeline; latents in its own coordinates and dtype.

    Attributes:
        timestep: What the loop passed.
        sample, prev_sample: The latents before and after, (B, ...).
        prev_sample_mean: Mean of the transition, (B, ...).
        std: Its standard deviation; 0 where the step draws nothing.
        log_prob: Of `prev_sample`, (B,) nats; None where the step draws nothing.
    """

    timestep: Any
    sample: torch.Tensor
    prev_sample: torch.Tensor
    prev_sample_mean: torch.Tensor
    std: float
    log_prob: torch.Tensor | None


@contextmanager
def recorded(scheduler: Any, *, reduce: Reduce) -> Iterator[list[RecordedStep]]:
    """Within the block each step of the scheduler is noted, whoever drives it: a stock pipeline, say.

        with sk.recorded(pipe.scheduler, reduce="sum") as steps:
            images = pipe(prompt, generator=generator).images

    Args:
        scheduler: A `SolverKitScheduler`; a copy of it that a pipeline makes is not followed.
        reduce: "sum" or "mean" over the dimensions of a sample.

    Yields:
        The steps so far.
    """
    steps: list[RecordedStep] = []
    step, own = scheduler.step, vars(scheduler).get("step")

    @functools.wraps(step)
    def noted(model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, *args: Any, **given: Any) -> Any:
        wanted = given.pop("return_dict", True)
        out = step(model_output, timestep, sample, *args, **given, return_dict=True, log_prob=reduce)
        found = (timestep, sample, out.prev_sample, out.prev_sample_mean, out.std, out.log_prob)
        steps.append(RecordedStep(*found))
        return out if wanted else (out.prev_sample, out.pred_original_sample)

    scheduler.step = noted
    try:
        yield steps
    finally:
        if own is None:
            del scheduler.step
        else:
            scheduler.step = own
