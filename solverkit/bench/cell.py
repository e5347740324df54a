"""One cell to one result row, whatever happens: a cell that fails is a row that says why."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from ..errors import BenchError, OptionError, SolverKitError
from ..registry.catalogue import metrics as metric_cards
from .accounting import peak_bytes, reset_peak
from .judged import Run
from .measured import KEPT, Measured
from .outcome import Outcome, grid_of, make_block
from .store import Row, provenance
from .subject import Subject
from .suite import Cell

LAST_RESORT = "energy"  # where no metric of the default ones says anything of a stochastic sampler
SHOWN = 10  # samples of a cell that the report shows


class CellTimeout(BaseException):
    """A cell ran past its time. No Exception, so that a sampler which catches those is stopped too."""


def run_cell(
    cell: Cell, subject: Subject, wanted: Sequence[str], given: Mapping[str, Any] | None = None,
    timeout: float | None = None, make: Callable[..., Outcome] = make_block, asked: bool = True,
) -> tuple[Row, torch.Tensor | None]:  # fmt: skip
    """Measure one cell: its row, and a few of its samples.

    Args:
        cell: What is measured.
        subject: Its model.
        wanted: Names of metrics.
        given: Objects behind names (`Suite.given`).
        timeout: Seconds after which it has failed; looked at between lines of Python, in the main thread only.
        make: make(cell, subject, given) -> what the cell makes; another engine has its own.
        asked: The metrics were asked for. Else those that compare with real samples take what costs nothing, and where none
            says anything of a sampler that draws noise there is the energy distance.
    """
    row, x = _empty(cell, subject, wanted), None
    try:
        row["grid"] = grid_of(cell, subject, given or {})
        reset_peak()
        with warnings.catch_warnings(record=True) as said, limited(timeout):
            warnings.simplefilter("always")
            outcome = make(cell, subject, given or {})
            x = _checked(outcome.x, cell, subject)
            _cost(row, outcome)
            row["remarks"] = list(dict.fromkeys(str(w.message) for w in said if issubclass(w.category, UserWarning)))
            began = time.perf_counter()
            _measure(row, cell, subject, outcome, wanted, asked)
            row["seconds_metric"] = time.perf_counter() - began
    except CellTimeout:
        row["status"] = f"failed: it ran past --timeout, {timeout:g} seconds."
    except Exception as error:  # one broken cell must not cost the others
        kind = "" if isinstance(error, SolverKitError) else f"{type(error).__name__}: "
        row["status"] = "failed: " + " ".join(f"{kind}{error}".split())[:500]
    shown = x is not None and row["status"] == "ok" and x.is_floating_point()  # ids are no picture
    return row, x[:SHOWN].clone() if shown and x is not None else None


def _empty(cell: Cell, subject: Subject, wanted: Sequence[str]) -> Row:
    denoiser = subject.denoiser
    return {
        "key": None,
        "suite": cell.suite,
        "model": cell.model.name,
        "model_fingerprint": subject.fingerprint,
        "sampler": cell.sampler,
        "options": cell.options,
        "cache": cell.cache,
        "grid": cell.grid,
        "budget": cell.nfe,
        "nfe": None,
        "asked": None,
        "passes": None,
        "products": None,
        "blocks": None,
        "num_samples": cell.model.num_samples,
        "seed": cell.seed,
        "device": str(getattr(denoiser, "device", "cpu")),
        "dtype": str(getattr(denoiser, "dtype", None) or torch.float32).removeprefix("torch."),
        **dict.fromkeys(wanted),
        "intervals": {},
        "floors": {},
        "against": {},
        "values": {},
        "reports": {},
        "remarks": [],
        "seconds_total": None,
        "seconds_model": None,
        "seconds_plan": None,
        "seconds_solver": None,
        "seconds_metric": None,
        "images_per_second": None,
        "peak_memory_bytes": None,
        "status": "ok",
        **provenance(),
    }


def _checked(x: torch.Tensor, cell: Cell, subject: Subject) -> torch.Tensor:
    expected = (cell.model.num_samples, *subject.denoiser.shape)
    if tuple(x.shape) != expected:
        raise BenchError(f"the sampler made {tuple(x.shape)}, expected {expected}.")
    if bad := int((~x.isfinite().flatten(1).all(1)).sum()):
        raise BenchError(f"NaN or inf in {bad} of {len(x)} samples.")
    return x


def _cost(row: Row, outcome: Outcome) -> None:
    n = len(outcome.x)
    row.update(
        nfe=outcome.rows / n,
        asked=outcome.asked / n,
        passes=outcome.passes,
        products=outcome.products,
        blocks=outcome.blocks,
        reports=outcome.reports,
        seconds_total=outcome.seconds,
        seconds_model=outcome.seconds_model,
        seconds_plan=outcome.seconds_plan,
        seconds_solver=outcome.seconds - outcome.seconds_model - outcome.seconds_plan,
        images_per_second=n / outcome.seconds if outcome.seconds > 0 else None,
        peak_memory_bytes=peak_bytes(),
    )


def _measure(
    row: Row, cell: Cell, subject: Subject, outcome: Outcome, wanted: Sequence[str], asked: bool
) -> None:
    def reference() -> Any:
        return subject.reference(cell.seed)

    def real(n: int, part: int) -> Any:
        return subject.real(n, part, None if asked else cell.seed)

    run = Run(cell.model.name, subject.denoiser, outcome.x, outcome.deterministic, reference, real, outcome.passes)
    for name in wanted:
        _one(row, name, run)
    if not asked and not outcome.deterministic and not any(row[name] is not None for name in wanted):
        _one(row, LAST_RESORT, run)


def _one(row: Row, name: str, run: Run) -> None:
    card = metric_cards()[name]
    row.setdefault(name, None)
    if len(run.x) < card.min_samples:
        return
    found = card.fn(run)
    made = found if isinstance(found, Measured) or found is None else Measured(float(found))
    if made is None:
        return
    if not abs(made.value) < float("inf"):
        raise OptionError(f"the metric {name} is {made.value}: the samples have diverged.")
    row[name] = made.value
    if made.interval is not None:
        row["intervals"][name] = list(made.interval)
    if made.floor is not None:
        row["floors"][name] = made.floor
    if made.against:
        row["against"][name] = made.against
    if made.values is not None and len(made.values) <= KEPT:
        same = next((other for other, values in row["values"].items() if values == list(made.values)), None)
        row["values"][name] = same if same is not None else list(made.values)


@contextlib.contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """Raise `CellTimeout` inside the block after so many seconds: where there are timers, in the main thread."""
    if seconds is None or threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def late(number: int, frame: Any) -> None:
        raise CellTimeout

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
