"""Blocks of samples on several GPUs of this computer: one process each, which the default engine starts by itself.

A sample depends on its own seed alone, so that which device made a block does not matter: the samples are those of one GPU.
A block whose process died is sent again to a new one.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any

import torch

from .suite import ModelEntry
from .task import AHEAD, RETRIES, Done, Task, run_task

CUDA = "cuda"


def devices_of(models: Iterable[ModelEntry]) -> list[str]:
    """The GPUs that blocks of these models may be made on: all of them, where every model is on "cuda" without a number."""
    if any(str(entry.options.get("device")) != CUDA for entry in models):
        return []
    return [f"{CUDA}:{i}" for i in range(torch.cuda.device_count())]


class Sent:
    """A task on its way: to which device, and how often it was sent."""

    def __init__(self, task: Task, place: int, pool: ProcessPoolExecutor, future: Future[Done]) -> None:
        self.task, self.place, self.pool, self.future, self.tries = task, place, pool, future, 1


class Devices:
    """One process a device.

    Args:
        devices: As models are told them: "cuda:0", "cuda:1". A model without the option `device` is left as it is.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        self.devices = list(devices)
        self.pools = [_opened() for _ in self.devices]
        self.flying = [0] * len(self.devices)

    def submit(self, task: Task) -> Sent:
        """Send a task to the device with the fewest of them."""
        place = min(range(len(self.devices)), key=self.flying.__getitem__)
        self.flying[place] += 1
        return Sent(task, place, *self._sent(task, place))

    def result(self, sent: Sent) -> Done:
        """Wait for a task; it is sent again where its process died."""
        while True:
            try:
                done = sent.future.result()
            except BrokenProcessPool:
                if sent.tries == RETRIES:
                    done = f"its worker was lost {RETRIES} times."
                else:
                    self._again(sent)
                    continue
            self.flying[sent.place] -= 1
            return done

    def results(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Done]]:
        """Make all tasks, and yield each when it is done; not many more are in flight than can run."""
        waiting, flying = list(reversed(tasks)), list[Sent]()
        while waiting or flying:
            while waiting and len(flying) < AHEAD * len(self.devices):
                flying.append(self.submit(waiting.pop()))
            wait([sent.future for sent in flying], return_when=FIRST_COMPLETED)
            for sent in [sent for sent in flying if sent.future.done()]:
                flying.remove(sent)
                yield sent.task, self.result(sent)

    def close(self) -> None:
        """End the processes; what is not begun is not made."""
        for pool in self.pools:
            pool.shutdown(wait=False, cancel_futures=True)

    def _again(self, sent: Sent) -> None:
        if self.pools[sent.place] is sent.pool:  # the first of its tasks to be told
            self.pools[sent.place] = _opened()
        sent.tries += 1
        sent.pool, sent.future = self._sent(sent.task, sent.place)

    def _sent(self, task: Task, place: int) -> tuple[ProcessPoolExecutor, Future[Done]]:
        placed = self._placed(task, place)
        try:
            return self.pools[place], self.pools[place].submit(run_task, placed)
        except BrokenProcessPool:  # its process died, and no task of it was asked for yet
            self.pools[place] = _opened()
            return self.pools[place], self.pools[place].submit(run_task, placed)

    def _placed(self, task: Task, place: int) -> Task:
        model = task.cell.model
        if "device" not in model.options:
            return task
        options: dict[str, Any] = {**model.options, "device": self.devices[place]}
        return task._replace(cell=replace(task.cell, model=replace(model, options=options)))


def _opened() -> ProcessPoolExecutor:
    # a forked process cannot use CUDA
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
