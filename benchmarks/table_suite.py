"""Tables of the default suite: errors and grids by budget, what was measured where, and whether the ranking is stable."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from markdown_table import table
from ranking import compare
from ranking import load as load_errors

from solverkit.bench.panel import PEER_MARK, make_panels
from solverkit.bench.points import Point
from solverkit.bench.report import TIE, interval, number
from solverkit.bench.store import latest, read
from solverkit.registry.catalogue import metrics as registered

MODELS = ("mnist", "mnist-flow", "mixture")
SHORT = 10  # evaluations of the table in README.md


def _rows(results: Path) -> list[dict[str, Any]]:
    return [row for row in latest(read(results / "default-seed0.jsonl")) if row["status"] == "ok"]


def errors(model: str, results: Path) -> str:
    """Errors and grids of all samplers; the best of a column and its ties are bold, the ties marked."""
    (panel,) = (panel for panel in make_panels(_rows(results), "ode_error") if panel.title.startswith(f"{model} "))
    leading = {budget: panel.leading(budget) for budget in panel.budgets}

    def cell(name: str, budget: int) -> str:
        point = panel.points[name].get(budget)
        return "" if point is None else f"{figure(point, name, leading[budget])} {point.row['grid']}"

    return table(
        ["sampler", *(f"NFE {budget}" for budget in panel.budgets)],
        [[name.rstrip(PEER_MARK), *(cell(name, budget) for budget in panel.budgets)] for name in panel.points],
    )


def figure(point: Point, name: str, leading: set[str]) -> str:
    shown = f"**{number(point.value)}**" if name in leading else number(point.value)
    shown = (TIE if name in leading and len(leading) > 1 else "") + shown
    return shown + ("" if point.interval is None else f" ({interval(point.interval)})")


def readme(results: Path) -> str:
    """All samplers on all models at ten evaluations."""
    panels = {panel.title.partition(" · ")[0]: panel for panel in make_panels(_rows(results), "ode_error")}
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel.points))

    def cell(model: str, name: str) -> str:
        return figure(panels[model].points[name][SHORT], name, panels[model].leading(SHORT))

    return table(
        [f"NFE {SHORT}", *(f"`{model}`" for model in MODELS)],
        [[name.rstrip(PEER_MARK), *(cell(model, name) for model in MODELS)] for name in names],
    )


def metrics(results: Path) -> str:
    """What each metric measures, from its card."""
    lines = [
        [f"`{card.name}`", card.summary.rstrip("."), card.unit, card.better, str(card.min_samples), card.reference]
        for card in registered().values()
        if card.plugin == "bench"
    ]
    return table(["metric", "what", "unit", "better", "least samples", "source"], lines)


def measured(results: Path) -> str:
    """What was measured where, and how well the converged solution is known."""
    rows = _rows(results)
    lines = []
    for model in MODELS:
        row = next(row for row in rows if row["model"] == model and row.get("reference_error") is not None)
        threads = f"{row['threads']} threads, {row['omp_wait_policy'] or 'default'} wait" if "threads" in row else ""
        where = "; ".join(filter(None, (row["machine"], threads, f"torch {row['torch_version']}")))
        lines.append([f"`{model}`", str(row["num_samples"]), f"{row['reference_error']:.1e}", where])
    return table(["model", "samples", "error of the converged solution", "measured on"], lines)


def stability(results: Path) -> str:
    first, second = (load_errors(results / f"default-seed{seed}.jsonl") for seed in (0, 1))
    lines = []
    for model, budget in sorted(first.keys() & second.keys()):
        tau, swaps = compare(first[(model, budget)], second[(model, budget)])
        lines.append([model, str(budget), f"{tau:+.2f}", "; ".join(swaps) or "none"])
    return table(["model", "NFE", "tau", "clear swaps"], lines)


TABLES = {
    "measured": measured,
    "readme": readme,
    "metrics": metrics,
    **{f"default-{model}": functools.partial(errors, model) for model in MODELS},
    "stability": stability,
}
