"""Tables of docs/lml.md, from the rows of benchmarks/suites/lml.toml and lml_fd.toml and of benchmarks/lml_control.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from markdown_table import short, table

from solverkit.bench.store import latest, read

DIMENSIONS = {"mixture": 64, "mnist": 784, "mnist-flow": 784}
SOLVERS = {"ddim": "DDIM", "dpmpp-2m": "2M"}
SHARES = (0.1, 0.25, 0.5, 1.0)
DAMPING = 1e-3
GRID = "time-uniform"
OWN_GRIDS = {"mnist": "trailing", "mnist-flow": "flow:shift=3"}  # that suit 2M best
KINDS = ("base", "kappa = 0", "released, float32", "c = 0.25", "c = 0.5", "turned by 0.2")


def kind(row: dict[str, Any]) -> str:
    """What a row of `lml` or of its base solver ran."""
    options = row["options"]
    if row["sampler"] != "lml":
        return "base"
    if options.get("released") or options.get("published_arithmetic"):
        return "released, float32"
    if "random_angle" in options:
        return "turned by 0.2"
    if "momentum" in options:
        share = options["momentum"] * DIMENSIONS[row["model"]] / DAMPING
        return f"c = {min(SHARES, key=lambda known: abs(known - share)):g}"
    return "kappa = 0"


def solver_of(row: dict[str, Any]) -> str:
    return str(row["options"].get("solver", row["sampler"]))


def _values(path: Path, metric: str) -> dict[tuple[str, str, str, int], float]:
    """(model, solver, kind, budget) -> value, of the runs on levels uniform in time."""
    rows = [row for row in latest(read(path)) if row["status"] == "ok" and row["grid"] == GRID]
    return {
        (row["model"], solver_of(row), kind(row), row["budget"]): row[metric]
        for row in rows if row.get(metric) is not None
    }  # fmt: skip


def momentum(results: Path) -> str:
    """Error over the base's."""
    found = _values(results / "lml.jsonl", "ode_error")
    lines = []
    for model in DIMENSIONS:
        for solver, name in SOLVERS.items():
            cells = [
                ", ".join(
                    short(found[model, solver, f"c = {c:g}", n] / found[model, solver, "base", n])
                    for n in (5, 8, 10, 15, 20)
                )
                for c in SHARES
            ]
            lines.append([f"{model}, {name}", *cells])
    return table(["", *(f"c = {c:g}" for c in SHARES)], lines)


def distances(results: Path) -> str:
    """Fréchet distances."""
    found = _values(results / "lml_fd.jsonl", "fd")
    lines = []
    for model in ("mnist", "mnist-flow"):
        for solver, name in SOLVERS.items():
            cells = [", ".join(f"{found[model, solver, k, n]:.1f}" for n in (5, 10, 20)) for k in KINDS]
            lines.append([f"{model}, {name}", *cells])
        cells = [", ".join(f"{found[model, 'lml-secant', 'base', n]:.1f}" for n in (5, 10, 20)), *[""] * (len(KINDS) - 1)]
        lines.append([f"{model}, lml-secant", *cells])
    return table(["NFE 5, 10, 20", *KINDS], lines)


def secant(results: Path) -> str:
    """Error of lml-secant over 2M's, on levels uniform in time and on the grid that suits 2M best."""
    rows = [row for row in latest(read(results / "lml.jsonl")) if row["status"] == "ok"]
    found = {(r["model"], r["sampler"], r["grid"], r["budget"]): r["ode_error"] for r in rows}
    lines, budgets = [], (5, 6, 8, 10, 15, 20)
    for model in DIMENSIONS:
        for grid in filter(None, (GRID, OWN_GRIDS.get(model))):
            ratios = [found[model, "lml-secant", grid, n] / found[model, "dpmpp-2m", grid, n] for n in budgets]
            lines.append([f"{model}, {grid}", *map(short, ratios)])
    return table(["lml-secant over 2M", *(f"NFE {n}" for n in budgets)], lines)


def control(results: Path) -> str:
    """The float32 arithmetic beside random turns by the same angle."""
    rows = [json.loads(line) for line in (results / "lml-control.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = []
    for model, dim in DIMENSIONS.items():
        own = [row for row in rows if row["model"] == model]
        cosine = sum(row["cosine"] for row in own) / len(own)
        cells = [", ".join(f"{row[name]:.3f}" for row in own) for name in ("released", "turned")]
        lines.append([f"{model} ({dim}{' dimensions' if model == 'mixture' else ''})", f"{cosine:.4f}", *cells])
    return table(["", "cosine to v", "released, float32: NFE 5, 10, 20", "turned at random"], lines)


TABLES = {"lml-control": control, "lml-momentum": momentum, "lml-distances": distances, "lml-secant": secant}
