"""Where a run stands: a bar on a terminal, now and then a line where there is none."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..bench.runner import Progress

EVERY = 60.0  # seconds between two lines about one model


def progress_of_run(stack: ExitStack) -> Callable[[Progress], None]:
    """What is told where a run stands, on standard error; the bar ends with the stack."""
    return _bar(stack) if sys.stderr.isatty() else lines_of_run()


def lines_of_run(now: Callable[[], float] = time.monotonic) -> Callable[[Progress], None]:
    """A line at each new model, and one a minute: for logs and pipes."""
    said: dict[str, float] = {}

    def watch(progress: Progress) -> None:
        words = progress.label.split()
        model = words[1] if words[:1] == ["loading"] and len(words) > 1 else words[0] if words else ""
        if now() - said.get(model, -EVERY) < EVERY:
            return
        said[model] = now()
        unknown = progress.total <= progress.done or words[:1] == ["loading"]  # its seconds are not known yet
        left = "" if unknown else f", {progress.total - progress.done:.0f} s of the network left"
        print(f"cell {progress.cell} of {progress.cells}: {progress.label}{left}", file=sys.stderr, flush=True)

    return watch


def _bar(stack: ExitStack) -> Callable[[Progress], None]:
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.TextColumn("{task.fields[cells]}"),
        bars.BarColumn(bar_width=14),
        bars.TimeRemainingColumn(),
        bars.TextColumn("left, now {task.description}"),
    )
    screen = Console(stderr=True)
    bar = stack.enter_context(bars.Progress(*columns, console=screen, transient=True, speed_estimate_period=60))
    task = bar.add_task("starting", total=None, cells="")

    def watch(progress: Progress) -> None:
        bar.update(
            task, description=progress.label, completed=progress.done, total=progress.total,
            cells=f"{progress.cell}/{progress.cells}",
        )  # fmt: skip

    return watch
