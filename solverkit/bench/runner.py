"""Run a suite: cell by cell through `sk.sample` or a peer, each to one result row that is stored at once.

A cell that fails is a row with status "failed: reason", and the run goes on.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..errors import OptionError, SolverKitError
from ..files.hub import load
from ..grid.named import parse_grid
from ..plan.trace import trace
from ..registry.catalogue import metrics as metric_cards
from ..registry.registry import registry, resolve
from ..run.choose import choose_grid, default_grid
from ..run.noise import sample_seeds
from ..run.sampling import sample
from .metrics import Run
from .peers import check_peer, default_peer_grid, run_peer
from .reference import Reference, compute_reference, find_reference, fingerprint, reference_cost, reference_key
from .store import Row, append, provenance
from .suite import PEER, Cell, ModelEntry, Suite

MODEL_FREE = 1e-3  # seconds: the least that an evaluation is taken to cost when the remaining time is guessed


class Progress(NamedTuple):
    """Where a run stands; `done` and `total` are in guessed seconds, so that the bar moves evenly."""

    label: str
    done: float
    total: float
    cell: int
    cells: int


class Outcome(NamedTuple):
    """What a cell made, from our sampler or a peer."""

    x: torch.Tensor
    nfe: float
    seconds: float
    seconds_model: float
    deterministic: bool
    grid: str


@dataclass
class Subject:
    """A loaded model of the suite."""

    entry: ModelEntry
    denoiser: Any
    fingerprint: str
    seconds: float  # of one evaluation of one batch
    reference: Reference | None = None

    @property
    def batches(self) -> int:
        return -(-self.entry.num_samples // self.entry.batch_size)


def run_suite(suite: Suite, path: Path | None = None, watch: Callable[[Progress], None] | None = None) -> Iterator[Row]:
    """Run every cell; each row is appended to `path` before it is yielded.

    Args:
        suite: What to run. Names and options are checked before anything is computed.
        path: Of the JSONL file; None stores nothing.
        watch: Told where the run stands.

    Raises:
        UnknownNameError, OptionError: names or options of the suite that do not exist.
        LoadError: a model that cannot be loaded.
    """
    cells = list(suite.cells())
    check_suite(suite, cells)
    return _run(suite, cells, path, watch)


def _run(suite: Suite, cells: list[Cell], path: Path | None, watch: Callable[[Progress], None] | None) -> Iterator[Row]:
    say = watch or (lambda progress: None)
    subjects: dict[str, Subject] = {}
    for entry in suite.models:
        say(Progress(f"loading {entry.name}", 0.0, 1.0, 0, len(cells)))
        subjects[entry.name] = _load(entry)
    wanted = list(suite.metrics) or list(metric_cards())
    needs_reference = "ode_error" in wanted or "reference_error" in wanted
    for subject in subjects.values():
        if needs_reference:
            subject.reference = find_reference(_key(subject, suite.seed), subject.entry.num_samples)
    guess = _Guess(subjects, cells, needs_reference)
    for i, cell in enumerate(cells):
        subject = subjects[cell.model.name]
        if needs_reference and subject.reference is None:
            subject.reference = _solve(subject, suite.seed, guess, say, i, len(cells))
        say(Progress(cell.label, guess.done, guess.total, i, len(cells)))
        row = run_cell(cell, subject, suite.seed, wanted)
        guess.done += guess.cost(cell)
        if path is not None:
            append(path, row)
        say(Progress(cell.label, guess.done, guess.total, i + 1, len(cells)))
        yield row


def check_suite(suite: Suite, cells: list[Cell]) -> None:
    """Raises UnknownNameError or OptionError for a model, sampler, grid, metric or option that does not exist."""
    for name in suite.metrics:
        registry().get("metrics", name)
    for cell in {(c.sampler, c.grid, json.dumps(c.options, sort_keys=True)): c for c in cells}.values():
        if cell.sampler.startswith(PEER):
            check_peer(cell.sampler, cell.options)
            continue
        resolve(cell.sampler).check(cell.options)
        if cell.grid is not None:
            parse_grid(cell.grid)
    for sampler in suite.options:
        if sampler not in {c.sampler for c in cells} and not sampler.startswith(PEER):
            resolve(sampler)


def _load(entry: ModelEntry) -> Subject:
    denoiser = load(entry.name, **entry.options)
    if getattr(denoiser, "shape", None) is None:
        raise OptionError(f"{entry.name!r} does not know the shape of a sample, so a bench cannot start it.")
    return Subject(entry, denoiser, fingerprint(denoiser), _time_one(denoiser, min(entry.batch_size, entry.num_samples)))


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


class _Guess:
    """How long the run will take, from the time of one evaluation of each model."""

    def __init__(self, subjects: Mapping[str, Subject], cells: list[Cell], needs_reference: bool) -> None:
        self.subjects, self.done = subjects, 0.0
        self.total = sum(self.cost(cell) for cell in cells)
        if needs_reference:
            self.total += sum(self.reference_cost(s) for s in subjects.values() if s.reference is None)

    def cost(self, cell: Cell) -> float:
        subject = self.subjects[cell.model.name]
        return cell.nfe * subject.batches * subject.seconds

    def reference_cost(self, subject: Subject) -> float:
        return reference_cost(subject.entry.reference_steps) * subject.batches * subject.seconds


def _key(subject: Subject, seed: int) -> str:
    return reference_key(subject.fingerprint, seed, subject.entry.reference_steps)


def _solve(subject: Subject, seed: int, guess: _Guess, say: Callable[[Progress], None], cell: int, cells: int) -> Reference:
    entry, end = subject.entry, guess.done + guess.reference_cost(subject)

    def tick() -> None:
        guess.done = min(end, guess.done + subject.seconds)
        say(Progress(f"{entry.name} converged solution", guess.done, guess.total, cell, cells))

    key, steps = _key(subject, seed), entry.reference_steps
    reference = compute_reference(subject.denoiser, key, entry.num_samples, seed, steps, entry.batch_size, tick=tick)
    guess.done = end
    return reference


def run_cell(cell: Cell, subject: Subject, seed: int, wanted: list[str]) -> Row:
    """Measure one cell: its row, whatever happens."""
    entry = cell.model
    row: Row = {
        "model": entry.name,
        "model_fingerprint": subject.fingerprint,
        "sampler": cell.sampler,
        "options": cell.options,
        "grid": cell.grid,
        "budget": cell.nfe,
        "nfe": None,
        "num_samples": entry.num_samples,
        "seed": seed,
        **dict.fromkeys(wanted),
        "seconds_total": None,
        "seconds_model": None,
        "seconds_solver": None,
        "peak_memory_bytes": None,
        "status": "ok",
        **provenance(),
    }
    try:
        row["grid"] = cell.grid or _own_grid(cell, subject)
        _reset_peak()
        outcome = _sample(cell, subject, seed)
        row.update(
            nfe=outcome.nfe,
            seconds_total=outcome.seconds,
            seconds_model=outcome.seconds_model,
            seconds_solver=outcome.seconds - outcome.seconds_model,
            peak_memory_bytes=_peak_bytes(),
        )
        run = Run(entry.name, subject.denoiser, outcome.x, outcome.deterministic, lambda: _require(subject.reference))
        for name in wanted:
            row[name] = _finite(metric_cards()[name].fn(run), name)
    except Exception as error:  # one broken cell must not cost the others
        kind = "" if isinstance(error, SolverKitError) else f"{type(error).__name__}: "
        row["status"] = "failed: " + " ".join(f"{kind}{error}".split())[:500]
    return row


def _own_grid(cell: Cell, subject: Subject) -> str:
    schedule = subject.denoiser.schedule
    if cell.sampler.startswith(PEER):
        return default_peer_grid(cell.sampler, schedule)
    return default_grid(resolve(cell.sampler), schedule)


def _sample(cell: Cell, subject: Subject, seed: int) -> Outcome:
    """All batches of a cell; the same starting noise for every cell, whatever the batch."""
    entry, denoiser = subject.entry, subject.denoiser
    grid = cell.grid or _own_grid(cell, subject)
    seeds = sample_seeds(seed, entry.num_samples)
    xs, rows, seconds, seconds_model, deterministic = [], 0.0, 0.0, 0.0, True
    for start in range(0, len(seeds), entry.batch_size):
        part = seeds[start : start + entry.batch_size]
        if cell.sampler.startswith(PEER):
            made: Any = run_peer(denoiser, cell.sampler, cell.nfe, seed=part, grid=grid, options=cell.options)
            deterministic = deterministic and made.deterministic
        else:
            made = sample(denoiser, cell.sampler, nfe=cell.nfe, num_samples=len(part), seed=part, grid=grid, **cell.options)
        xs.append(made.x)
        rows += made.nfe * len(part)
        seconds, seconds_model = seconds + made.seconds, seconds_model + made.seconds_model
    if not cell.sampler.startswith(PEER):
        card = resolve(cell.sampler)
        levels = choose_grid(card, denoiser.schedule, cell.nfe, None, grid, None, cell.options)
        deterministic = trace(card, levels, **cell.options).draws == 0
    return Outcome(torch.cat(xs), rows / len(seeds), seconds, seconds_model, deterministic, grid)


def _require(reference: Reference | None) -> Reference:
    if reference is None:
        raise OptionError("this run has no converged solution to compare with.")
    return reference


def _finite(value: float | None, name: str) -> float | None:
    if value is not None and not abs(value) < float("inf"):
        raise OptionError(f"the metric {name} is {value}: the samples have diverged.")
    return value


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak_bytes() -> int | None:
    """Largest memory: of tensors on the GPU, else resident size of the process since it began."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
