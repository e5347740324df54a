"""A block of a cell as a task: sent to a worker, made there, in whatever process that is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from .cell import CellTimeout, limited
from .outcome import Outcome, make_block
from .subject import Subject, open_subject
from .suite import Cell, ModelEntry

RETRIES = 10  # of a task whose worker died
AHEAD = 2  # tasks in flight for each that can run


class Task(NamedTuple):
    """One block of a cell, as it is sent to a worker."""

    cell: Cell
    given: Mapping[str, Any]
    start: int
    stop: int
    threads: int
    timeout: float | None


Done = Outcome | str  # a block, or the reason why there is none


def run_task(task: Task) -> Done:
    """Make a block, in whatever process this is."""
    if torch.get_num_threads() != task.threads:
        torch.set_num_threads(task.threads)  # sums over threads differ in their last bits
    try:
        subject = _subject(task.cell.model, task.given)  # loading is no part of a cell's time
        with limited(task.timeout):
            return make_block(task.cell, subject, task.given, task.start, task.stop)
    except CellTimeout:
        return f"it ran past --timeout, {task.timeout:g} seconds."
    except Exception as error:
        return f"{type(error).__name__}: {error}"


_loaded: dict[str, Subject] = {}  # of a worker: a model is loaded once


def _subject(entry: ModelEntry, given: Mapping[str, Any]) -> Subject:
    if entry.name in given:
        return open_subject(entry, given)
    key = json.dumps([entry.name, entry.batch_size, entry.num_samples, entry.options], sort_keys=True, default=str)
    if key not in _loaded:
        _loaded[key] = open_subject(entry, given)
    return _loaded[key]
