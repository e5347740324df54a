"""Tables of docs/model-statistics.md, from the rows of benchmarks/statistical_solvers.py."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from markdown_table import short, table

MODELS = ("mixture", "mnist", "mnist-flow")


def cell(row: dict[str, Any]) -> str:
    """RMS (interval), median, and the grid where it was chosen."""
    grid = "" if row["grid"] in ("its own", "flow") else f" {row['grid']}"
    interval = f"{short(row['low'], 4)}-{short(row['high'], 4)}"
    return f"{short(row['rms'], 4)} ({interval}), {short(row['median'], 4)}{grid}"


def solvers(model: str, results: Path) -> str:
    """A line a solver, a column a budget."""
    text = (results / "statistical-solvers.jsonl").read_text(encoding="utf-8")
    found = {(row["solver"], row["nfe"]): row for row in map(json.loads, text.splitlines()) if row["model"] == model}
    budgets = sorted({nfe for _, nfe in found})
    lines = [[name, *(cell(found[name, n]) for n in budgets)] for name in dict.fromkeys(name for name, _ in found)]
    return table(["", *(f"NFE {n}" for n in budgets)], lines)


TABLES = {f"statistics-{model}": functools.partial(solvers, model) for model in MODELS}
