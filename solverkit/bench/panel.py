"""One model's part of a report."""

from __future__ import annotations

from dataclasses import dataclass

from .store import Row

PEER_MARK = "†"



@dataclass(frozen=True)
class Panel:
    """One model's part of a report.

    Attributes:
        title: Model, samples and seed.
        budgets: NFE that were asked for, ascending.
        rows: sampler (with its options, where they differ from row to row) -> budget -> the best row of its grids.
        failures: What failed, one line each; grids of a sweep that failed beside others that did not are left out.
        metric: What the panel shows.
        lower_is_better: Direction of the metric.
        warning: Empty, or why the numbers are doubtful.
    """

    title: str
    budgets: tuple[int, ...]
    rows: dict[str, dict[int, Row]]
    failures: tuple[str, ...]
    metric: str
    lower_is_better: bool
    warning: str = ""

    def best(self, budget: int) -> float | None:
        """The best value at a budget."""
        values = [row[budget][self.metric] for row in self.rows.values() if budget in row]
        return (min if self.lower_is_better else max)(values, default=None)
