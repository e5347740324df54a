"""Run a suite cell by cell; each row is stored as soon as it is made, and what is stored is not run again.

A cell that fails is a row with status "failed: reason", and the run goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..grid.named import parse_grid
from ..registry.registry import registry, resolve
from .caching import made_rule
from .cell import SHOWN, run_cell
from .engine import Ahead
from .key import cell_key
from .metrics import DEFAULT
from .named import IN_FILE, find_sampler, is_peer
from .outcome import Outcome, grid_of, make_block
from .peers import check_peer
from .reference import reference_cost
from .request import request_digest
from .run_store import RunStore, encoded
from .store import DATABASE, LINES, Row, require_writable, write_lines
from .subject import Subject, open_subject
from .suite import NO_CACHE, Cell, Suite

__all__ = ["Progress", "check_suite", "run_cell", "run_suite"]

POLL = 0.2  # seconds between looks at cells that another process works on


class Progress(NamedTuple):
    """Where a run stands; `done` and `total` are in guessed seconds, so that the bar moves evenly."""

    label: str
    done: float
    total: float
    cell: int
    cells: int


Watch = Callable[[Progress], None]
Make = Callable[..., Outcome]


def run_suite(
    suite: Suite, path: Path | None = None, watch: Watch | None = None, *, timeout: float | None = None,
    retry_failed: bool = False, make: Make = make_block,
) -> Iterator[Row]:  # fmt: skip
    """Run every cell; each row is stored before it is yielded, and rows that are stored already are yielded as they are.

    Args:
        suite: What to run. Names and options are checked before anything is computed.
        path: A run.sqlite; or a .jsonl file, which becomes an export of the .sqlite beside it when the run ends. None
            stores nothing.
        watch: Told where the run stands.
        timeout: Seconds after which a cell has failed.
        retry_failed: Run cells again that failed before.
        make: make(cell, subject, given) -> what a cell makes; another engine has its own.

    Raises:
        UnknownNameError, OptionError: names or options of the suite that do not exist.
        BenchError: `path` cannot be written.
        LoadError: a model that cannot be loaded; raised, as what follows, when the first row is asked for.
    """
    cells = list(suite.cells())
    if path is None:
        check_suite(suite, cells)
        return _Runner(suite, cells, None, watch, timeout, make).rows(retry_failed)
    lines = path if path.suffix == Path(LINES).suffix else None
    database = path if lines is None else path.with_suffix(Path(DATABASE).suffix)
    request = request_digest(suite, cells)
    if (rows := _finished(database, request, retry_failed)) is None:
        check_suite(suite, cells)
    if lines is not None:
        require_writable(lines)
    runner = _Runner(suite, cells, None, watch, timeout, make, request)
    return _stored(runner, database, lines, retry_failed, rows)


def _finished(database: Path, request: str | None, retry: bool) -> list[Row] | None:
    """The rows of a request that was answered before, where nothing of it is to be measured: no model is then loaded."""
    if request is None or not database.exists():
        return None
    with RunStore(database) as store:
        rows = store.recall(request)
    again = rows is None or any(
        row["model_fingerprint"] is None or (retry and row["status"] != "ok") for row in rows
    )
    return None if again else rows


def _stored(
    runner: _Runner, database: Path, lines: Path | None, retry: bool, rows: list[Row] | None
) -> Iterator[Row]:
    with RunStore(database) as store:
        runner.store = store
        try:
            yield from runner.rows(retry) if rows is None else rows
        finally:
            if lines is not None and (kept := store.rows()):
                write_lines(lines, kept)


def check_suite(suite: Suite, cells: list[Cell]) -> None:
    """Raises UnknownNameError or OptionError for a model, sampler, grid, metric, cache or option that does not exist."""
    for name in suite.metrics:
        registry().get("metrics", name)
    for cache in {cell.cache for cell in cells} - {NO_CACHE}:
        made_rule(cache)
    for cell in {(c.sampler, c.grid, json.dumps(c.options, sort_keys=True, default=str)): c for c in cells}.values():
        if is_peer(cell.sampler):
            check_peer(cell.sampler, cell.options)
            continue
        card = find_sampler(cell.sampler, suite.given)
        card.check(cell.options, partial=getattr(card, "prepare", None) is not None)
        if cell.grid is not None:
            parse_grid(cell.grid)
    for sampler in suite.options:
        if sampler not in {c.sampler for c in cells} and not is_peer(sampler) and not IN_FILE.fullmatch(sampler):
            resolve(sampler)


class _Runner:
    """One process's part of a run."""

    def __init__(
        self, suite: Suite, cells: list[Cell], store: RunStore | None, watch: Watch | None, timeout: float | None,
        make: Make, request: str | None = None,
    ) -> None:  # fmt: skip
        self.suite, self.cells, self.store, self.timeout, self.make = suite, cells, store, timeout, make
        self.request = request
        self.say = watch or (lambda progress: None)
        self.wanted: Sequence[str] = list(suite.metrics) or list(DEFAULT)
        self.needs_reference = any(name.startswith(("ode_", "reference")) for name in self.wanted)
        self.subjects: dict[str, Subject] = {}

    def rows(self, retry_failed: bool) -> Iterator[Row]:
        """The row of each cell, as it is made; those that another process makes come last."""
        for entry in self.suite.models:
            self.say(Progress(f"loading {entry.name}", 0.0, 1.0, 0, len(self.cells)))
            self.subjects[entry.name] = open_subject(entry, self.suite.given)
        if self.store is None:
            yield from self._run([(cell, None) for cell in self.cells])
            return
        keyed = [(cell, self._key(cell)) for cell in self.cells]
        keyed = list({key: (cell, key) for cell, key in keyed}.values())  # two spellings of one cell are one row
        self.store.plan([key for _, key in keyed])
        if self.request is not None:
            self.store.note(self.request, [key for _, key in keyed])
        unknown = [key for cell, key in keyed if self.subjects[cell.model.name].fingerprint is None]
        stored = {key: self.store.finished(key) for _, key in keyed}
        failed = [key for key, row in stored.items() if row is not None and row["status"] != "ok" and retry_failed]
        self.store.forget([*unknown, *failed])
        fresh = {key for key in stored if stored[key] is None} | {*unknown, *failed}
        for _, key in keyed:
            if key not in fresh:
                yield stored[key]  # type: ignore[misc]
        yield from self._run([(cell, key) for cell, key in keyed if key in fresh])

    def _run(self, waiting: Sequence[tuple[Cell, str | None]]) -> Iterator[Row]:
        names = {cell.model.name for cell, _ in waiting}
        for name in names:
            self.subjects[name].warm_up()
        guess = _Guess({name: self.subjects[name] for name in names}, [c for c, _ in waiting], self.needs_reference)
        total, done = len(self.cells), len(self.cells) - len(waiting)
        if isinstance(self.make, Ahead):
            self.make.plan([(cell, self.subjects[cell.model.name]) for cell, _ in waiting])
        queue = list(waiting)
        while queue:
            left: list[tuple[Cell, str | None]] = []
            for cell, key in queue:
                if key is not None and self.store is not None and not self.store.claim(key):
                    if (row := self.store.finished(key)) is None:
                        left.append((cell, key))  # another process works on it
                        continue
                else:
                    row = self._measure(cell, key, guess, done)
                done += 1
                guess.done += guess.cost(cell)
                self.say(Progress(cell.label, guess.done, guess.total, done, total))
                yield row
            if len(left) == len(queue):
                self.say(Progress("waiting for another process", guess.done, guess.total, done, total))
                time.sleep(POLL)
            queue = left

    def _measure(self, cell: Cell, key: str | None, guess: _Guess, done: int) -> Row:
        subject = self.subjects[cell.model.name]
        try:
            if self.needs_reference and subject.find_reference(cell.seed) is None:
                self._solve(subject, cell.seed, guess, done)
            self.say(Progress(cell.label, guess.done, guess.total, done, len(self.cells)))
            row, shown = run_cell(
                cell, subject, self.wanted, self.suite.given,
                None if isinstance(self.make, Ahead) else self.timeout,  # there each block has its own
                self.make, asked=bool(self.suite.metrics),
            )
            row["key"] = key
            if self.store is not None and key is not None:
                picture = None if shown is None else encoded({"x": shown.half()})
                self.store.finish(key, row, picture)
                self._keep_reference(subject, cell)
        except BaseException:
            if self.store is not None and key is not None:
                self.store.release(key)
            raise
        return row

    def _keep_reference(self, subject: Subject, cell: Cell) -> None:
        """The converged samples that the report shows beside those of the cells."""
        name = f"converged {subject.fingerprint} {cell.seed}"
        found = subject.references.get(cell.seed)
        if found is not None and self.store is not None and name not in subject.kept:
            self.store.add_picture(name, encoded({"x": found.x[:SHOWN].half()}))
            subject.kept.add(name)

    def _key(self, cell: Cell) -> str:
        subject = self.subjects[cell.model.name]
        try:
            grid = grid_of(cell, subject, self.suite.given)
        except Exception:  # told when the cell runs
            grid = "unknown"
        return cell_key(cell, subject, grid, self.wanted, self.suite.given, self.timeout)

    def _solve(self, subject: Subject, seed: int, guess: _Guess, cell: int) -> None:
        end = guess.done + guess.reference_cost(subject)

        def tick() -> None:
            guess.done = min(end, guess.done + subject.seconds)
            label = f"{subject.entry.name} converged solution"
            self.say(Progress(label, guess.done, guess.total, cell, len(self.cells)))

        subject.reference(seed, tick)
        guess.done = end


class _Guess:
    """How long the run will take, from the time of one evaluation of each model."""

    def __init__(self, subjects: Mapping[str, Subject], cells: list[Cell], needs_reference: bool) -> None:
        self.subjects, self.done = subjects, 0.0
        self.total = sum(self.cost(cell) for cell in cells)
        if needs_reference:
            seeds = {(cell.model.name, cell.seed) for cell in cells}
            self.total += sum(
                self.reference_cost(subjects[name]) for name, seed in seeds if subjects[name].find_reference(seed) is None
            )

    def cost(self, cell: Cell) -> float:
        """Seconds of a cell."""
        subject = self.subjects[cell.model.name]
        return cell.nfe * subject.batches * subject.seconds

    def reference_cost(self, subject: Subject) -> float:
        """Seconds of a converged solution."""
        return reference_cost(subject.entry.reference_steps) * subject.batches * subject.seconds

