"""One figure of a report: the rows of a cell on all seeds, as a value with its interval; when two of them are a tie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .measured import STATISTICS, Z95, bootstrap, ratio_interval
from .store import Row


@dataclass(frozen=True)
class Point:
    """A metric of one cell, over all seeds that were run.

    Attributes:
        value: The figure: of all samples together where the metric is a statistic of samples, else the mean over seeds.
        interval: 95 %; None where nothing is known of it.
        rows: The rows behind it, one a seed.
        values: What each sample contributes, in the order of seeds and samples; None where the rows do not say.
        floor: What real samples get; None where that is not known.
    """

    value: float
    interval: tuple[float, float] | None
    rows: tuple[Row, ...]
    values: np.ndarray | None = None
    floor: float | None = None

    @property
    def row(self) -> Row:
        """The first of the rows."""
        return self.rows[0]

    @property
    def nfe(self) -> float:
        """Counted evaluations a sample."""
        return float(np.mean([row["nfe"] for row in self.rows]))

    @property
    def seconds(self) -> float:
        """Wall seconds of all samples of a seed."""
        return float(np.mean([row["seconds_total"] for row in self.rows]))

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, in order."""
        return tuple(row["seed"] for row in self.rows)


def make_point(rows: Sequence[Row], metric: str) -> Point | None:
    """The figure of rows that differ in their seed alone; None where one of them has none."""
    ordered = sorted(rows, key=lambda row: row["seed"])
    found = [float(row[metric]) for row in ordered if _number(row.get(metric))]
    if len(found) < len(ordered):
        return None
    card, floors = card_of(metric), [f for row in ordered if (f := (row.get("floors") or {}).get(metric)) is not None]
    floor = float(np.mean(floors)) if len(floors) == len(ordered) else None
    parts = [values_of(row, metric) for row in ordered]
    statistic = getattr(card, "statistic", None)
    if statistic is not None and all(part is not None for part in parts):
        pooled: np.ndarray = np.concatenate([part for part in parts if part is not None])
        value = found[0] if len(ordered) == 1 else float(STATISTICS[statistic](pooled))
        interval = (ordered[0].get("intervals") or {}).get(metric) if len(ordered) == 1 else bootstrap(pooled, statistic)
        return Point(value, _pair(interval), tuple(ordered), pooled, floor)
    values = np.array(found, float)
    return Point(float(values.mean()), _over_seeds(ordered, metric, values), tuple(ordered), None, floor)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _pair(interval: Any) -> tuple[float, float] | None:
    return None if interval is None else (float(interval[0]), float(interval[1]))


def _over_seeds(rows: Sequence[Row], metric: str, values: np.ndarray) -> tuple[float, float] | None:
    """That of the mean: from the intervals of the seeds, or from their spread where that is larger."""
    halves = [_half((row.get("intervals") or {}).get(metric)) for row in rows]
    known = [half for half in halves if half is not None]
    if len(known) < len(rows):
        return None
    if len(rows) == 1:
        return _pair(rows[0]["intervals"][metric])
    k, centre = len(rows), float(values.mean())
    within = math.sqrt(sum(half**2 for half in known)) / k
    between = Z95 * float(values.std(ddof=1)) / math.sqrt(k)
    half = max(within, between)
    return centre - half, centre + half


def _half(interval: Any) -> float | None:
    return None if interval is None else (interval[1] - interval[0]) / 2


def values_of(row: Row, metric: str) -> np.ndarray | None:
    """What each sample of a row contributes to a metric; None where the row does not say."""
    values = (row.get("values") or {}).get(metric)
    if isinstance(values, str):  # the same as those of another metric
        values = row["values"].get(values)
    return None if values is None else np.array(values, float)


def card_of(metric: str) -> Any:
    """The metric's card; None for one that is not installed here."""
    from ..registry.catalogue import metrics

    return metrics().get(metric)


def loss(metric: str, point: Point) -> float:
    """A number that is smaller where the figure is better."""
    card = card_of(metric)
    if card is not None and card.to_floor and point.floor is not None:
        return abs(point.value - point.floor)
    return point.value if card is None or card.lower_is_better else -point.value


def change(metric: str, a: Point, b: Point) -> tuple[float, float]:
    """95 % interval of what b's loss is more than a's: a difference, or (ratio - 1) for a paired statistic.

    Samples that share their noise are compared one with one; else the figures are taken as independent.
    """
    card = card_of(metric)
    paired = a.values is not None and b.values is not None and a.seeds == b.seeds and len(a.values) == len(b.values)
    if paired and card is not None and card.statistic in ("rms", "mean") and not card.to_floor:
        assert a.values is not None and b.values is not None
        low, high = ratio_interval(a.values, b.values, card.statistic)
        return (low - 1, high - 1) if card.lower_is_better else (1 - high, 1 - low)
    if paired and card is not None and card.statistic == "median":
        assert a.values is not None and b.values is not None
        low, high = ratio_interval(a.values, b.values, "median")
        return low - 1, high - 1
    centre = loss(metric, b) - loss(metric, a)
    spread = math.hypot(_half(a.interval) or 0.0, _half(b.interval) or 0.0)
    return centre - spread, centre + spread


def tied(metric: str, a: Point, b: Point) -> bool:
    """Whether the difference of two figures lies inside its interval."""
    if a is b:
        return True
    low, high = change(metric, a, b)
    return low <= 0 <= high
