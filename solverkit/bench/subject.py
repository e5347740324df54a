"""A model of a suite, loaded: its denoiser, what one evaluation of it costs, its converged solutions and real samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..errors import OptionError
from ..files.arrays import read_array, to_units
from ..files.hub import load
from ..run.sampling import BATCH, NUMBERS
from .judged import Real
from .named import IN_FILE, function_in_file
from .reference import Reference, compute_reference, find_reference, reference_key, solve, try_fingerprint
from .suite import ModelEntry

MODEL_FREE = 1e-3  # seconds: the least that an evaluation is taken to cost when the remaining time is guessed
REAL_SEEDS = (2**62, 2**62 + 1)  # of real samples that are drawn or solved for: no run of anyone starts there


@dataclass
class Subject:
    """A loaded model of the suite.

    Attributes:
        entry: What the suite says of it.
        denoiser: The model.
        fingerprint: Of the denoiser; None where it cannot be told from others, and its reference is then not stored.
        seconds: Of one evaluation of one batch; `warm_up` measures it.
        references: seed -> the converged solution, once it was found or computed.
        kept: Names of what a run's store has of it already.
    """

    entry: ModelEntry
    denoiser: Any
    fingerprint: str | None
    seconds: float = MODEL_FREE
    references: dict[int, Reference] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    _real: dict[tuple[int, int], Real | None] = field(default_factory=dict)

    @property
    def of_tokens(self) -> bool:
        """Whether its samples are ids, made by a decoder."""
        return callable(getattr(self.denoiser, "sampled_by", None))

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

    def find_reference(self, seed: int) -> Reference | None:
        """The reference that is there already, shipped or cached."""
        if seed not in self.references and (found := find_reference(self._key(seed), self.entry.num_samples)) is not None:
            self.references[seed] = found
        return self.references.get(seed)

    def reference(self, seed: int, tick: Callable[[], None] | None = None) -> Reference:
        """The converged solution; the ODE is solved where nobody did. `tick` is called after each evaluation of a batch."""
        entry = self.entry
        found = self.find_reference(seed)
        if found is None:
            found = self.references[seed] = compute_reference(
                self.denoiser, self._key(seed), entry.num_samples, seed, entry.reference_steps, self.batch_size, tick=tick
            )
        return found

    def real(self, n: int, part: int, cheap: int | None = None) -> Real | None:
        """n real samples: of the target, of the file of data, else converged solutions from other noise. Parts share none.

        Args:
            n, part: How many, and which.
            cheap: A seed whose converged solution is there already, to take where the ODE would have to be solved.

        Raises:
            LoadError, OptionError: the file of data cannot be read, or holds something else.
        """
        if (n, part) not in self._real:
            made = self._given(n, part)
            if made is None and cheap is not None:
                found = self.references.get(cheap)
                if found is None or len(found.x) < n or part:
                    return None
                return Real(found.x[:n], "the converged solution from its own start")
            if made is None and not part and self.entry.data is None:
                x = solve(self.denoiser, n, REAL_SEEDS[0], self.entry.reference_steps, self.batch_size)
                made = Real(x, "converged solutions from other noise")
            self._real[n, part] = made
        return self._real[n, part]

    def _given(self, n: int, part: int) -> Real | None:
        if self.entry.data is not None:
            return self._of_data(self.entry.data, n, part)
        target = getattr(self.denoiser, "target", None)
        return None if target is None else Real(target.sample(n, seed=REAL_SEEDS[part]), "the target")

    def _of_data(self, path: str, n: int, part: int) -> Real | None:
        x, shape = read_array(Path(path)), tuple(self.denoiser.shape)
        if tuple(x.shape[1:]) != shape and torch.Size(x.shape[1:]).numel() != torch.Size(shape).numel():
            raise OptionError(f"{path} holds samples of shape {tuple(x.shape[1:])}, and {self.entry.name!r} makes {shape}.")
        chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[part * n : (part + 1) * n]
        if len(chosen) < n:
            if part:
                return None
            raise OptionError(f"{path} holds {len(x)} samples, and {n} are needed to compare with.")
        return Real(to_units(x[chosen]).float().reshape(n, *shape), Path(path).name)

    def warm_up(self) -> None:
        """Time one evaluation: no cell pays for the first one, which allocates and starts threads."""
        batch, shape = min(self.batch_size, self.entry.num_samples), self.denoiser.shape
        if self.of_tokens:
            free = 0 if self.denoiser.mask is None else self.denoiser.mask
            self.seconds = _time_one(self.denoiser, torch.full((batch, *shape), free, device=self.denoiser.device), 1.0)
            return
        x = torch.zeros(batch, *shape, device=getattr(self.denoiser, "device", "cpu"))
        self.seconds = _time_one(self.denoiser, x, self.denoiser.schedule.level(1.0))

    def _key(self, seed: int) -> str | None:
        return reference_key(self.fingerprint, seed, self.entry.reference_steps)


def open_subject(entry: ModelEntry, given: Mapping[str, Any] | None = None) -> Subject:
    """Load a model.

    Args:
        entry: What the suite says of it.
        given: Denoisers behind names.

    Raises:
        UnknownNameError, OptionError, LoadError: as `sk.load`; a model that does not know the shape of a sample.
    """
    if given and entry.name in given:
        denoiser = given[entry.name]
    elif IN_FILE.fullmatch(entry.name):
        denoiser = function_in_file(entry.name)(**entry.options)
    else:
        denoiser = load(entry.name, **entry.options)
    tokens = callable(getattr(denoiser, "sampled_by", None))
    if not callable(denoiser) or not (tokens or hasattr(denoiser, "schedule")):
        raise OptionError(f"{entry.name!r} made a {type(denoiser).__name__}; expected a denoiser (sk.wrap, sk.load).")
    if getattr(denoiser, "shape", None) is None:
        raise OptionError(
            f"{entry.name!r} does not know the shape of a sample, so a bench cannot start it: sk.wrap(..., shape=...)."
        )
    return Subject(entry, denoiser, try_fingerprint(denoiser))


def _time_one(denoiser: Any, x: torch.Tensor, level: Any) -> float:
    """Seconds of one evaluation, the second of two."""
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        with torch.no_grad():
            denoiser(x, level)
        seconds = time.perf_counter() - start
    return max(seconds, MODEL_FREE)
