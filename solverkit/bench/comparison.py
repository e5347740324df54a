"""Two runs beside each other: what moved beyond its interval, and which way."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BenchError
from .panel import line_name, metric_names
from .points import Point, change, make_point
from .store import Row, latest
from .suite import short_name

BETTER, WORSE, SAME, FAILED = "better", "worse", "tie", "failed"


@dataclass(frozen=True)
class Change:
    """One figure in both runs.

    Attributes:
        cell: Model, sampler, grid and budget, in words.
        metric: Which figure; "nfe" for counted evaluations, "status" where a cell failed.
        before, after: The figures; None where there is none.
        interval: 95 % interval of how much worse it became, relative for statistics of samples; None where it is exact.
        verdict: "better", "worse", "tie" or "failed".
    """

    cell: str
    metric: str
    before: float | None
    after: float | None
    interval: tuple[float, float] | None
    verdict: str
    reason: str = ""

    @property
    def regression(self) -> bool:
        """Whether it became worse beyond its interval, or failed."""
        return self.verdict in (WORSE, FAILED)


@dataclass(frozen=True)
class Comparison:
    """All changes, and the cells that are in one of the runs only."""

    changes: tuple[Change, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]

    @property
    def regressions(self) -> tuple[Change, ...]:
        """What became worse."""
        return tuple(change for change in self.changes if change.regression)


def compare(before: Iterable[Row], after: Iterable[Row], metric: str | None = None) -> Comparison:
    """Compare the cells that two runs share: same model, sampler, options, grid, budget and number of samples.

    A sampler that changed has the same name in both: names are compared, not keys. Samples that share their noise are
    compared one with one.

    Args:
        before, after: Rows of the runs.
        metric: One of them; default every metric that both have.

    Raises:
        BenchError: the runs share no cell, or none has the metric.
    """
    first, second = _cells(before), _cells(after)
    shared = [cell for cell in first if cell in second]
    if not shared:
        raise BenchError("the two runs share no cell: same model, sampler, options, grid, budget and number of samples.")
    changes = [change for cell in shared for change in _changes(first[cell], second[cell], metric)]
    if metric is not None and not any(change.metric == metric for change in changes):
        raise BenchError(f"no cell of both runs has the metric {metric!r}.")
    return Comparison(
        tuple(changes),
        tuple(_said(first[cell]) for cell in first if cell not in second),
        tuple(_said(second[cell]) for cell in second if cell not in first),
    )


def _cells(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in latest(rows):
        names = ("model", "model_fingerprint", "sampler", "options", "cache", "grid", "budget", "num_samples")
        found.setdefault(json.dumps([row.get(name) for name in names], sort_keys=True), []).append(row)
    return found


def _said(rows: Sequence[Row]) -> str:
    row = rows[0]
    name = line_name(row, {row["sampler"]}).rstrip("†")
    return f"{short_name(row['model'])} {name} {row['grid']} NFE {row['budget']}"


def _changes(before: list[Row], after: list[Row], metric: str | None) -> Iterable[Change]:
    cell = _said(before)
    old, new = (_good(rows) for rows in (before, after))
    if old and not new:
        yield Change(cell, "status", None, None, None, FAILED, after[0]["status"])
        return
    if new and not old:
        yield Change(cell, "status", None, None, None, BETTER, "it failed before")
        return
    seeds = {row["seed"] for row in old} & {row["seed"] for row in new}
    if seeds:
        old, new = ([row for row in rows if row["seed"] in seeds] for rows in (old, new))
    if old and new and metric in (None, "nfe") and (found := _nfe(cell, old, new)) is not None:
        yield found
    names = [name for name in metric_names(new) if name in metric_names(old)] if metric is None else [metric]
    for name in names:
        a, b = make_point(old, name), make_point(new, name)
        if a is not None and b is not None:
            yield _change(cell, name, a, b)


def _good(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["status"] == "ok"]


def _nfe(cell: str, old: list[Row], new: list[Row]) -> Change | None:
    a, b = (max(row["nfe"] for row in rows) for rows in (old, new))
    return None if a == b else Change(cell, "nfe", a, b, None, WORSE if b > a else BETTER)


def _change(cell: str, metric: str, a: Point, b: Point) -> Change:
    low, high = change(metric, a, b)
    verdict = WORSE if low > 0 else BETTER if high < 0 else SAME
    return Change(cell, metric, a.value, b.value, (low, high), verdict)


def as_records(comparison: Comparison) -> dict[str, Any]:
    """A comparison for other programs."""
    return {
        "changes": [{**vars(change), "regression": change.regression} for change in comparison.changes],
        "only_before": list(comparison.only_before),
        "only_after": list(comparison.only_after),
    }
