"""Run a suite: cell by cell through `sk.sample` or a peer, each to one result row that is stored at once.

A cell that fails is a row with status "failed: reason", and the run goes on.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..errors import OptionError, SolverKitError
from ..grid.named import parse_grid
from ..plan.trace import trace
from ..registry.catalogue import metrics as metric_cards
from ..registry.registry import registry, resolve
from ..run.choose import choose_grid, default_grid
from ..run.noise import sample_seeds
from ..run.sampling import sample
from .metrics import Run
from .peers import check_peer, default_peer_grid, run_peer
from .reference import Reference, reference_cost
from .store import Row, append, provenance, require_writable
from .subject import Subject, open_subject
from .suite import PEER, Cell, Suite


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
    seconds_plan: float
    passes: int
    deterministic: bool
    reports: dict[str, Any]


def run_suite(suite: Suite, path: Path | None = None, watch: Callable[[Progress], None] | None = None) -> Iterator[Row]:
    """Run every cell; each row is appended to `path` before it is yielded.

    Args:
        suite: What to run. Names and options are checked before anything is computed.
        path: Of the JSONL file; None stores nothing.
        watch: Told where the run stands.

    Raises:
        UnknownNameError, OptionError: names or options of the suite that do not exist.
        BenchError: `path` cannot be written.
        LoadError: a model that cannot be loaded; raised, as what follows, when the first row is asked for.
    """
    cells = list(suite.cells())
    check_suite(suite, cells)
    if path is not None:
        require_writable(path)
    return _run(suite, cells, path, watch)


def _run(suite: Suite, cells: list[Cell], path: Path | None, watch: Callable[[Progress], None] | None) -> Iterator[Row]:
    say = watch or (lambda progress: None)
    subjects: dict[str, Subject] = {}
    for entry in suite.models:
        say(Progress(f"loading {entry.name}", 0.0, 1.0, 0, len(cells)))
        subjects[entry.name] = open_subject(entry)
    wanted = list(suite.metrics) or list(metric_cards())
    needs_reference = "ode_error" in wanted or "reference_error" in wanted
    for subject in subjects.values():
        if needs_reference:
            subject.find_reference(suite.seed)
    guess = _Guess(subjects, cells, needs_reference)
    for i, cell in enumerate(cells):
        subject = subjects[cell.model.name]
        if needs_reference and subject.reference is None:
            _solve(subject, suite.seed, guess, say, i, len(cells))
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
        card = resolve(cell.sampler)
        card.check(cell.options, partial=card.prepare is not None)
        if cell.grid is not None:
            parse_grid(cell.grid)
    for sampler in suite.options:
        if sampler not in {c.sampler for c in cells} and not sampler.startswith(PEER):
            resolve(sampler)


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


def _solve(subject: Subject, seed: int, guess: _Guess, say: Callable[[Progress], None], cell: int, cells: int) -> None:
    entry, end = subject.entry, guess.done + guess.reference_cost(subject)

    def tick() -> None:
        guess.done = min(end, guess.done + subject.seconds)
        say(Progress(f"{entry.name} converged solution", guess.done, guess.total, cell, cells))

    subject.compute_reference(seed, tick)
    guess.done = end


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
        "passes": None,
        "num_samples": entry.num_samples,
        "seed": seed,
        **dict.fromkeys(wanted),
        "reports": {},
        "remarks": [],
        "seconds_total": None,
        "seconds_model": None,
        "seconds_plan": None,
        "seconds_solver": None,
        "peak_memory_bytes": None,
        "status": "ok",
        **provenance(),
    }
    try:
        row["grid"] = cell.grid or _own_grid(cell, subject)
        _reset_peak()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            outcome = _sample(cell, subject, seed)
        row.update(
            nfe=outcome.nfe,
            passes=outcome.passes,
            reports=outcome.reports,
            remarks=list(dict.fromkeys(str(w.message) for w in said if issubclass(w.category, UserWarning))),
            seconds_total=outcome.seconds,
            seconds_model=outcome.seconds_model,
            seconds_plan=outcome.seconds_plan,
            seconds_solver=outcome.seconds - outcome.seconds_model - outcome.seconds_plan,
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
    """All samples of a cell, from the same starting noise for every cell; the wall time is that of a user's call."""
    entry, denoiser = subject.entry, subject.denoiser
    grid = cell.grid or _own_grid(cell, subject)
    if cell.sampler.startswith(PEER):
        return _sample_peer(cell, subject, seed, grid)
    start = time.perf_counter()
    made = sample(
        denoiser, cell.sampler, nfe=cell.nfe, num_samples=entry.num_samples, seed=seed, grid=grid,
        batch_size=subject.batch_size, **cell.options,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    return Outcome(
        made.x, made.nfe, seconds, made.seconds_model, made.seconds_plan, made.passes, _draws_nothing(cell, denoiser, grid),
        {name: value if isinstance(value, str) else _speakable(value) for name, value in made.reports.items()},
    )  # fmt: skip


def _sample_peer(cell: Cell, subject: Subject, seed: int, grid: str) -> Outcome:
    seeds, size = sample_seeds(seed, subject.entry.num_samples), subject.batch_size
    start = time.perf_counter()
    parts = [
        run_peer(subject.denoiser, cell.sampler, cell.nfe, seed=seeds[a : a + size], grid=grid, options=cell.options)
        for a in range(0, len(seeds), size)
    ]
    seconds = time.perf_counter() - start
    return Outcome(
        torch.cat([part.x for part in parts]), sum(part.nfe * len(part.x) for part in parts) / len(seeds), seconds,
        sum(part.seconds_model for part in parts), sum(part.seconds_plan for part in parts),
        sum(part.passes for part in parts), all(part.deterministic for part in parts), {},
    )  # fmt: skip


def _draws_nothing(cell: Cell, denoiser: Any, grid: str) -> bool:
    """Whether the sampler drew no noise on this grid; told by its plan, after the run, so that no run is planned twice."""
    card = resolve(cell.sampler)
    if not card.traceable:
        return card.order is not None  # stochastic methods declare none
    options = card.prepared(denoiser, cell.options)
    return trace(card, choose_grid(card, denoiser.schedule, cell.nfe, None, grid, None, options), **options).draws == 0


def _speakable(value: float) -> float | str:
    return value if abs(value) < float("inf") else str(value)  # JSON has no NaN


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
