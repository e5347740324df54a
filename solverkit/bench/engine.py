"""Where blocks of samples are made: in this process, in one process a GPU (`devices`), or as tasks of Ray.

A sample depends on its own seed alone and blocks end where batches end, so every engine makes the same samples: bit for
bit on one kind of device with the same number of threads, which tasks take from the process that sends them. A task whose
worker dies is sent again; its block is counted when it comes back, once.
"""

from __future__ import annotations

import functools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch

from ..errors import BenchError, OptionError, UnknownNameError
from .outcome import Outcome, blocks_of, joined
from .subject import Subject
from .suite import Cell, ModelEntry
from .task import AHEAD, RETRIES, Done, Task, run_task

ENGINES = ("local", "ray")


class Ray:
    """Blocks as tasks of Ray. A cluster is joined where RAY_ADDRESS names one, else one is started here.

    Raises:
        OptionError: Ray is not installed.
    """

    def __init__(self) -> None:
        try:
            import ray
        except ImportError:
            raise OptionError("--engine ray needs Ray: pip install 'solverkit[ray]'.") from None
        self.ray = ray
        if not ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
        self._run = ray.remote(max_retries=RETRIES)(run_task)

    def submit(self, task: Task) -> Any:
        """Send a task; what comes back is asked for with `result`."""
        cuda = str(task.cell.model.options.get("device", "cpu")).startswith("cuda")
        if cuda:  # Ray assigns the GPU, and shows the worker no other
            options = {**task.cell.model.options, "device": "cuda"}
            task = task._replace(cell=_with_options(task.cell, options))
        return self._run.options(num_cpus=min(task.threads, self.slots), num_gpus=1 if cuda else 0).remote(task)

    @functools.cached_property
    def slots(self) -> int:
        """CPUs of the cluster."""
        return max(int(self.ray.cluster_resources().get("CPU", 1)), 1)

    def result(self, sent: Any) -> Done:
        """Wait for a task."""
        try:
            return self.ray.get(sent)  # type: ignore[no-any-return]
        except self.ray.exceptions.RayError as error:
            return f"its worker was lost {RETRIES} times: {str(error).splitlines()[0]}"

    def results(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Done]]:
        """Make all tasks, and yield each when it is done; not many more are in flight than can run."""
        waiting = deque(tasks)
        flying: dict[Any, Task] = {}
        while waiting or flying:
            while waiting and len(flying) < AHEAD * self.slots:
                task = waiting.popleft()
                flying[self.submit(task)] = task
            ready, _ = self.ray.wait(list(flying), num_returns=1)
            for sent in ready:
                yield flying.pop(sent), self.result(sent)


class Local:
    """Blocks one after the other in this process."""

    def results(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Done]]:
        """Make all tasks, and yield each when it is done."""
        for task in tasks:
            yield task, run_task(task)


class Engine(Protocol):
    """Where tasks are made while others are prepared."""

    def submit(self, task: Task) -> Any:
        """Send a task."""

    def result(self, sent: Any) -> Done:
        """Wait for it."""

    def results(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Done]]:
        """Make all tasks, and yield each when it is done."""


def open_engine(name: str, models: Iterable[ModelEntry] = ()) -> Engine | Local:
    """An engine by name.

    Args:
        name: "local" or "ray".
        models: Of the run: where all of them are on "cuda" and there are several GPUs, "local" has a process for each.

    Raises:
        UnknownNameError: no such engine.
        OptionError: Ray is not installed.
    """
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ENGINES)
    if name == "ray":
        return Ray()
    from .devices import Devices, devices_of

    entries = list(models)
    devices = devices_of(entries) if entries else []
    return Devices(devices) if len(devices) > 1 else Local()


def tasks_of(
    cell: Cell, subject: Subject, given: Mapping[str, Any], timeout: float | None = None, batches: int = 1
) -> list[Task]:
    """The blocks of a cell, so many batches each."""
    threads = torch.get_num_threads()
    return [Task(cell, given, a, b, threads, timeout) for a, b in blocks_of(cell, subject, batches)]


class Ahead:
    """make(cell, subject, given) of a run whose cells are sent ahead: a small cell does not wait for the one before.

    Args:
        engine: Where the blocks are made.
        timeout: Of each block.
        cells: How many cells are sent ahead of the one that is asked for.
    """

    def __init__(self, engine: Engine, timeout: float | None = None, cells: int = 16) -> None:
        self.engine, self.timeout, self.cells = engine, timeout, cells
        self.queue: deque[tuple[Cell, Subject]] = deque()
        self.sent: dict[int, list[Any]] = {}

    def plan(self, cells: Sequence[tuple[Cell, Subject]]) -> None:
        """Say which cells will be asked for, in their order."""
        self.queue = deque(cells)

    def __call__(self, cell: Cell, subject: Subject, given: Mapping[str, Any]) -> Outcome:
        while self.queue and len(self.sent) <= self.cells:
            self._send(*self.queue.popleft(), given)
        if id(cell) not in self.sent:
            self._send(cell, subject, given)
        parts = [self.engine.result(sent) for sent in self.sent.pop(id(cell))]
        return joined(list(map(_made, parts)))

    def _send(self, cell: Cell, subject: Subject, given: Mapping[str, Any]) -> None:
        self.sent[id(cell)] = [self.engine.submit(task) for task in tasks_of(cell, subject, given, self.timeout)]


def _made(done: Done) -> Outcome:
    if isinstance(done, str):
        raise BenchError(done)
    return done


def make_with(engine: Engine | Local, timeout: float | None = None) -> Callable[..., Outcome] | None:
    """make(cell, subject, given) for `run_suite`; None for this process, which needs no blocks."""
    return None if isinstance(engine, Local) else Ahead(engine, timeout)


def _with_options(cell: Cell, options: Mapping[str, Any]) -> Cell:
    from dataclasses import replace

    return replace(cell, model=replace(cell.model, options=dict(options)))
