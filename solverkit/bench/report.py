"""Stored rows as tables on the screen and as a figure: one of each a model, samplers against NFE."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BenchError, UnknownNameError
from .panel import PEER_MARK, Panel
from .store import CELL_KEYS, Row, latest
from .suite import PEER, short_name

if TYPE_CHECKING:
    from rich.table import Table

DOUBTFUL = 0.05  # a reference whose own error is more than this part of the best error decides nothing
SECONDS = ("seconds_total", "seconds_model", "seconds_plan", "seconds_solver")
NO_METRIC = {*CELL_KEYS, *SECONDS, "nfe", "passes", "status", "peak_memory_bytes", "threads", "time"}


def metric_names(rows: Iterable[Row]) -> list[str]:
    """Metrics that have a value in some row, ode_error first; the reference's own error is none to compare by."""
    names = {
        key: None
        for row in rows
        for key, value in row.items()
        if key not in NO_METRIC and isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    names.pop("reference_error", None)
    return sorted(names, key=lambda name: name != "ode_error")


def make_panels(rows: Iterable[Row], metric: str | None = None) -> list[Panel]:
    """The panels of a report, one for each model, number of samples and seed.

    Args:
        rows: From `store.read` or `runner.run_suite`; of repeated cells the last counts.
        metric: Default: the first of `metric_names`.

    Raises:
        BenchError: no row has a metric.
        UnknownNameError: no row has that metric.
    """
    kept = latest(rows)
    names = metric_names(kept)
    if metric is None and not names and any(row["status"] == "ok" for row in kept):
        raise BenchError("no row has a metric to report.")
    if metric is not None and metric not in names:
        raise UnknownNameError("metric of these rows", metric, names)
    chosen = metric or (names[0] if names else "ode_error")
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in kept:
        groups.setdefault((row["model"], row["model_fingerprint"], row["num_samples"], row["seed"]), []).append(row)
    lower = _lower_is_better(chosen)
    return [
        _panel(f"{model} · {n} samples · seed {seed}", group, chosen, lower)
        for (model, _, n, seed), group in groups.items()
    ]


def _lower_is_better(metric: str) -> bool:
    from ..registry.catalogue import metrics

    card = metrics().get(metric)
    return True if card is None else card.lower_is_better


def _panel(title: str, rows: list[Row], metric: str, lower: bool) -> Panel:
    best: dict[str, dict[int, Row]] = {}
    failed: dict[tuple[str, int], str] = {}
    several = _with_several_options(rows)
    for row in rows:
        name = _line_name(row, several)
        line, budget = best.setdefault(name, {}), row["budget"]
        if row["status"] != "ok":
            failed[name, budget] = f"{name} at NFE {budget} on {row['grid']}: {row['status']}"
        elif isinstance(row.get(metric), (int, float)):
            old = line.get(budget)
            if old is None or (row[metric] < old[metric]) == lower:
                line[budget] = row
    panel = Panel(
        title=title,
        budgets=tuple(sorted({row["budget"] for row in rows})),
        rows=best,
        failures=tuple(text for (name, budget), text in failed.items() if budget not in best[name]),
        metric=metric,
        lower_is_better=lower,
    )
    error = max((row.get("reference_error") or 0.0 for row in rows), default=0.0)
    values = [value for budget in panel.budgets if (value := panel.best(budget)) is not None]
    if metric == "ode_error" and values and error > DOUBTFUL * min(values):
        warning = (
            f"the converged solution is itself only known to {error:.1e} (half of its steps), and the best error is "
            f"{min(values):.1e}: raise reference_steps of the model in the suite."
        )
        return Panel(**{**vars(panel), "warning": warning})
    return panel


def _with_several_options(rows: list[Row]) -> set[str]:
    seen: dict[str, set[str]] = {}
    for row in rows:
        seen.setdefault(row["sampler"], set()).add(json.dumps(row["options"], sort_keys=True))
    return {sampler for sampler, options in seen.items() if len(options) > 1}


def _line_name(row: Row, several: set[str]) -> str:
    mark = PEER_MARK if row["sampler"].startswith(PEER) else ""
    text = ", ".join(f"{k}={v}" for k, v in row["options"].items()) if row["sampler"] in several else ""
    return short_name(row["sampler"]) + (f" ({text})" if text else "") + mark


def make_table(panel: Panel) -> Table:
    """A panel as a rich table: samplers by NFE, the best of each column bold."""
    from rich.table import Table
    from rich.text import Text

    title = f"{panel.title} · {panel.metric}"
    table = Table(title=title, title_justify="left", caption=_caption(panel), caption_justify="left")
    table.add_column("sampler \\ NFE", no_wrap=True)
    for budget in panel.budgets:
        table.add_column(str(budget), justify="right", no_wrap=True)
    bests = {budget: panel.best(budget) for budget in panel.budgets}
    for name, line in panel.rows.items():
        cells = [Text(name, style="dim" if name.endswith(PEER_MARK) else "")]
        for budget in panel.budgets:
            row = line.get(budget)
            if row is None:
                failed = any(text.startswith(f"{name} at NFE {budget} ") for text in panel.failures)
                cells.append(Text("failed" if failed else "-", style="red" if failed else "dim"))
                continue
            text = Text(number(row[panel.metric]), style="bold green" if row[panel.metric] == bests[budget] else "")
            if row["nfe"] != budget:
                text.append(f" at {row['nfe']:g}", style="dim")
            cells.append(text)
        table.add_row(*cells)
    return table


def _caption(panel: Panel) -> str | None:
    parts = []
    if any(name.endswith(PEER_MARK) for name in panel.rows):
        parts.append(f"{PEER_MARK} diffusers' own")
    if any(row["nfe"] != budget for line in panel.rows.values() for budget, row in line.items()):
        parts.append("'at n': n evaluations were counted, the most that fit the budget")
    return "; ".join(parts) or None


def number(value: float) -> str:
    """Three significant digits without an exponent where that is readable."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{value:.{min(max(digits, 0), 6)}f}" if 1e-4 <= abs(value) < 1e5 else f"{value:.2e}"


def write_figure(panels: list[Panel], path: Path) -> None:
    """report.png: a panel a model, error against NFE.

    Raises:
        BenchError: the file cannot be written.
    """
    from .figure import draw

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(panels, path)
    except OSError as error:
        raise BenchError(f"cannot write {path}: {error.strerror or error}.") from None


def best_grids(rows: Iterable[Row], metric: str = "ode_error") -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """model -> sampler -> the grid that won a sweep at each budget, for `[models.<model>.grids]` of a suite."""
    winners: dict[str, dict[str, dict[int, Row]]] = {}
    for row in latest(rows):
        if row["status"] == "ok" and row.get(metric) is not None:
            line = winners.setdefault(row["model"], {}).setdefault(row["sampler"], {})
            if row["budget"] not in line or row[metric] < line[row["budget"]][metric]:
                line[row["budget"]] = row
    return {
        model: {sampler: tuple(line[b]["grid"] for b in sorted(line)) for sampler, line in lines.items()}
        for model, lines in winners.items()
    }
