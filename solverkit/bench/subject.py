"""A model of a suite, loaded: its denoiser, what one evaluation of it costs, and its converged solution."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import OptionError
from ..files.hub import load
from ..run.sampling import BATCH, NUMBERS
from .reference import Reference, compute_reference, find_reference, reference_key, try_fingerprint
from .suite import ModelEntry

MODEL_FREE = 1e-3  # seconds: the least that an evaluation is taken to cost when the remaining time is guessed


@dataclass
class Subject:
    """A loaded model of the suite.

    Attributes:
        entry: What the suite says of it.
        denoiser: The model.
        fingerprint: Of the denoiser; None where it cannot be told from others, and its reference is then not stored.
        seconds: Of one evaluation of one batch.
        reference: The converged solution, once it was found or computed.
    """

    entry: ModelEntry
    denoiser: Any
    fingerprint: str | None
    seconds: float = MODEL_FREE
    reference: Reference | None = None

    @property
    def batch_size(self) -> int:
        """Samples that are run at once."""
        if self.entry.batch_size is not None:
            return self.entry.batch_size
        return max(min(BATCH, NUMBERS // max(int(torch.Size(self.denoiser.shape).numel()), 1)), 1)

    @property
    def batches(self) -> int:
        """How often one evaluation of all samples asks the network."""
        return -(-self.entry.num_samples // self.batch_size)

    def find_reference(self, seed: int) -> None:
        """Take the reference that is shipped or cached, if there is one."""
        self.reference = find_reference(self._key(seed), self.entry.num_samples)

    def compute_reference(self, seed: int, tick: Callable[[], None]) -> None:
        """Solve the ODE; `tick` is called after each evaluation of a batch."""
        entry = self.entry
        self.reference = compute_reference(
            self.denoiser, self._key(seed), entry.num_samples, seed, entry.reference_steps, self.batch_size, tick=tick
        )

    def _key(self, seed: int) -> str | None:
        return reference_key(self.fingerprint, seed, self.entry.reference_steps)


def open_subject(entry: ModelEntry) -> Subject:
    """Load a model and time it; this is the warm-up, which no cell pays for.

    Raises:
        UnknownNameError, OptionError, LoadError: as `sk.load`; a model that does not know the shape of a sample.
    """
    denoiser = load(entry.name, **entry.options)
    if getattr(denoiser, "shape", None) is None:
        raise OptionError(f"{entry.name!r} does not know the shape of a sample, so a bench cannot start it.")
    subject = Subject(entry, denoiser, try_fingerprint(denoiser))
    subject.seconds = _time_one(denoiser, min(subject.batch_size, entry.num_samples))
    return subject


def _time_one(denoiser: Any, batch: int) -> float:
    """Seconds of one evaluation, the second of two: the first one pays for allocation and threads."""
    level = denoiser.schedule.level(1.0)
    x = torch.zeros(batch, *denoiser.shape, device=getattr(denoiser, "device", "cpu"))
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        with torch.no_grad():
            denoiser(x, level)
        seconds = time.perf_counter() - start
    return max(seconds, MODEL_FREE)
