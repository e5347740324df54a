"""Tables of the default suite: errors and grids by budget, what was measured where, and whether the ranking is stable."""

from __future__ import annotations

import functools
from collections import defaultdict
from pathlib import Path
from typing import Any

from markdown_table import table
from ranking import compare
from ranking import load as load_errors

from solverkit.bench.store import latest, read

MODELS = ("mnist", "mnist-flow", "mixture")


def _rows(results: Path) -> list[dict[str, Any]]:
    return [row for row in latest(read(results / "default-seed0.jsonl")) if row["status"] == "ok"]


def errors(model: str, results: Path) -> str:
    lines: dict[str, dict[int, Any]] = defaultdict(dict)
    for row in _rows(results):
        if row["model"] == model:
            lines[row["sampler"]][row["budget"]] = row
    budgets = sorted({budget for line in lines.values() for budget in line})
    best = {b: min(line[b]["ode_error"] for line in lines.values() if b in line) for b in budgets}

    def cell(row: dict[str, Any] | None) -> str:
        if row is None:
            return ""
        shown = f"{row['ode_error']:.4f}"
        return (f"**{shown}**" if row["ode_error"] == best[row["budget"]] else shown) + f" {row['grid']}"

    return table(
        ["sampler", *(f"NFE {b}" for b in budgets)],
        [[sampler, *(cell(line.get(b)) for b in budgets)] for sampler, line in lines.items()],
    )


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
    **{f"default-{model}": functools.partial(errors, model) for model in MODELS},
    "stability": stability,
}
