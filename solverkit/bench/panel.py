"""One model's part of a report: samplers against budgets, with one grid chosen for each where several were swept."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BenchError, UnknownNameError
from .named import is_peer
from .points import Point, card_of, loss, make_point, tied
from .store import CELL_KEYS, Row, latest
from .suite import NO_CACHE, short_name

PEER_MARK = "†"
DOUBTFUL = 0.05  # a reference whose own error is more than this part of the best error decides nothing
NO_METRIC = {
    *CELL_KEYS, "key", "suite", "cache", "nfe", "asked", "passes", "products", "blocks", "status", "peak_memory_bytes",
    "threads", "time", "images_per_second", "device", "dtype", "reference_error",
}  # fmt: skip
BESIDE = ("ode_median", "ode_flips")  # shown beside ode_error, not in tables of their own


@dataclass(frozen=True)
class Panel:
    """One model's part of a report.

    Attributes:
        title: Model, samples and seeds.
        budgets: NFE that were asked for, ascending.
        points: sampler (with its options, where they differ from row to row) -> budget -> its figure on its best grid.
        failures: What failed, one line each; grids of a sweep that failed beside others that did not are left out.
        metric: What the panel shows.
        warnings: Why the numbers are doubtful, or what is not among them.
        swept: How many grids a sweep had; 1 where there was none.
        chosen_by: The metric that chose among them.
    """

    title: str
    budgets: tuple[int, ...]
    points: dict[str, dict[int, Point]]
    failures: tuple[str, ...]
    metric: str
    warnings: tuple[str, ...] = ()
    swept: int = 1
    chosen_by: str = ""

    def best(self, budget: int) -> Point | None:
        """The best figure at a budget."""
        found = [line[budget] for line in self.points.values() if budget in line]
        return min(found, key=lambda point: loss(self.metric, point), default=None)

    def leading(self, budget: int) -> set[str]:
        """The sampler with the best figure at a budget, and those that tie with it."""
        best = self.best(budget)
        return {
            name
            for name, line in self.points.items()
            if best is not None and budget in line and tied(self.metric, best, line[budget])
        }

    def grids(self) -> str:
        """Which grids the figures are on, in words."""
        used = {(name, n): str(point.row["grid"]) for name, line in self.points.items() for n, point in line.items()}
        if not used:
            return ""
        usual = Counter(used.values()).most_common(1)[0][0]
        others: dict[str, dict[str, list[int]]] = {}
        for (name, n), grid in used.items():
            if grid != usual:
                others.setdefault(name, {}).setdefault(grid, []).append(n)
        said = [
            f"{name} {grid}" + ("" if len(budgets) == len(self.points[name]) else f" at {_list(budgets)}")
            for name, grids in others.items()
            for grid, budgets in grids.items()
        ]
        how = f" (best of {self.swept} by {self.chosen_by})" if self.swept > 1 else ""
        return f"grid{how}: {usual}" + (f", but {'; '.join(said)}" if said else "")


def _list(budgets: Sequence[int]) -> str:
    return ", ".join(map(str, budgets))


def metric_names(rows: Iterable[Row]) -> list[str]:
    """Metrics that have a value in some row, ode_error first; the reference's own error is none to compare by."""
    names = {
        key: None
        for row in rows
        for key, value in row.items()
        if key not in NO_METRIC
        and not key.startswith("seconds_")
        and isinstance(value, (int, float))
        and not isinstance(value, bool)
    }
    return sorted(names, key=lambda name: name != "ode_error")


def shown_metrics(rows: Iterable[Row]) -> list[str]:
    """Those with a table of their own: what stands beside another one has none."""
    names = metric_names(rows)
    return [name for name in names if name not in BESIDE or "ode_error" not in names]


def make_panels(rows: Iterable[Row], metric: str | None = None) -> list[Panel]:
    """The panels of a report, one for each model, number of samples and machine (where there are several).

    Of the grids of a sweep one is chosen for each sampler and budget, by the first metric that these rows have, so that the
    panels of all metrics show the same runs.

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
        raise BenchError(f"no row has a metric to report. {_why_none(kept)}".strip())
    if metric is not None and metric not in names:
        raise UnknownNameError("metric of these rows", metric, names)
    shown = metric or (names[0] if names else "ode_error")
    machines = list(dict.fromkeys(str(row.get("machine")) for row in kept))
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in kept:
        where = machines.index(str(row.get("machine")))
        groups.setdefault((row["model"], row["model_fingerprint"], row["num_samples"], where), []).append(row)
    return [
        _panel(_title(group, machines[where] if len(machines) > 1 else None), group, shown, names)
        for (_, _, _, where), group in groups.items()
    ]


def _why_none(rows: Sequence[Row]) -> str:
    """Which of the metrics that were asked for need more samples than there are."""
    most = max(row["num_samples"] for row in rows)
    columns = dict.fromkeys(key for row in rows for key in row)
    cards = {name: card for name in columns if (card := card_of(name)) is not None}
    needing = [f"{name} at least {card.min_samples}" for name, card in cards.items() if card.min_samples > most]
    if not needing:
        return "None of its metrics says anything of these models and samplers: --metric energy, or --data FILE."
    return f"Cells have {most} samples, and {', '.join(needing)} are needed: -k."


def _title(rows: Sequence[Row], machine: str | None) -> str:
    seeds = sorted({row["seed"] for row in rows})
    said = f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds"
    parts = [short_name(rows[0]["model"]), f"{rows[0]['num_samples']} samples", said, machine]
    return " · ".join(filter(None, parts))


def _panel(title: str, rows: list[Row], metric: str, names: list[str]) -> Panel:
    several = _with_several_options(rows)
    cells: dict[tuple[str, int, str], list[Row]] = {}
    failed: dict[tuple[str, int], str] = {}
    for row in rows:
        name, budget = line_name(row, several), row["budget"]
        if row["status"] == "ok":
            cells.setdefault((name, budget, str(row["grid"])), []).append(row)
        else:
            failed[name, budget] = f"{name} at NFE {budget} on {row['grid']}: {row['status']}"
    lines: dict[str, dict[int, Point]] = {line_name(row, several): {} for row in rows}
    chosen: dict[tuple[str, int], tuple[float, Point | None]] = {}
    deciding = next((n for n in names if any(make_point(group, n) for group in cells.values())), metric)
    for (name, budget, _), group in cells.items():
        decides = make_point(group, deciding) or make_point(group, metric)
        if decides is None:
            continue
        cost = loss(deciding, decides)
        if (name, budget) not in chosen or cost < chosen[name, budget][0]:
            chosen[name, budget] = cost, make_point(group, metric)
    for (name, budget), (_, point) in chosen.items():
        if point is not None:
            lines[name][budget] = point
    if names and metric != names[0]:  # who has no figure is told once
        lines = {name: line for name, line in lines.items() if line}
    swept = max((len({grid for n, b, grid in cells if (n, b) == place}) for place in {c[:2] for c in cells}), default=1)
    panel = Panel(
        title=title,
        budgets=tuple(sorted({row["budget"] for row in rows})),
        points=lines,
        failures=tuple(text for (name, budget), text in failed.items() if (name, budget) not in chosen),
        metric=metric,
        swept=swept,
        chosen_by=deciding,
    )
    return Panel(**{**vars(panel), "warnings": tuple(_warnings(panel, rows, {c[0] for c in cells}))})


def _warnings(panel: Panel, rows: Sequence[Row], ran: set[str]) -> Iterable[str]:
    error = max((row.get("reference_error") or 0.0 for row in rows), default=0.0)
    values = [best.value for budget in panel.budgets if (best := panel.best(budget)) is not None]
    if panel.metric == "ode_error" and values and error > DOUBTFUL * min(values):
        yield (
            f"the converged solution is itself only known to {error:.1e} (half of its steps), and the best error is "
            f"{min(values):.1e}: raise reference_steps of the model in the suite."
        )
    silent = [name for name, line in panel.points.items() if name in ran and not line]
    if panel.metric.startswith("ode_") and silent:
        yield (
            f"{', '.join(silent)}: no {panel.metric}, which needs a sampler that draws no noise. Another metric judges it: "
            "--metric fd, energy, kid (with --data FILE, or against converged solutions)."
        )


def _with_several_options(rows: list[Row]) -> set[str]:
    seen: dict[str, set[str]] = {}
    for row in rows:
        seen.setdefault(row["sampler"], set()).add(json.dumps(row["options"], sort_keys=True))
    return {sampler for sampler, options in seen.items() if len(options) > 1}


def line_name(row: Row, several: set[str]) -> str:
    """What a sampler is called in tables and figures."""
    mark = PEER_MARK if is_peer(row["sampler"]) else ""
    said = [f"{k}={v}" for k, v in row["options"].items()] if row["sampler"] in several else []
    if row.get("cache", NO_CACHE) != NO_CACHE:
        said.append(row["cache"])
    return short_name(row["sampler"]) + (f" ({', '.join(said)})" if said else "") + mark


def best_grids(rows: Iterable[Row], metric: str = "ode_error") -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """model -> sampler -> the grid that won a sweep at each budget, for `[models.<model>.grids]` of a suite."""
    winners: dict[str, dict[str, dict[int, Row]]] = {}
    card = card_of(metric)
    lower = card is None or card.lower_is_better
    for row in latest(rows):
        if row["status"] == "ok" and row.get(metric) is not None:
            line = winners.setdefault(row["model"], {}).setdefault(row["sampler"], {})
            old = line.get(row["budget"])
            if old is None or (row[metric] < old[metric]) == lower:
                line[row["budget"]] = row
    return {
        model: {sampler: tuple(line[b]["grid"] for b in sorted(line)) for sampler, line in lines.items()}
        for model, lines in winners.items()
    }
