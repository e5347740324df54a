"""Tables of docs/imputation.md, from the rows of benchmarks/imputation.py."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path

import torch
from markdown_table import table

TASKS, SCORES = ("missing", "forecast"), ("crps", "mae")


def methods(task: str, score: str, results: Path) -> str:
    """A line a method, a column a budget: mean over the series, twice the standard error of its distance to the optimum;
    a distance inside that is a tie."""
    text = (results / "imputation.jsonl").read_text(encoding="utf-8")
    rows = [row for row in map(json.loads, text.splitlines()) if row["task"] == task]
    own = {(row["method"], row["budget"]): row for row in rows}
    budgets = sorted({budget for _, budget in own if budget})
    best = torch.tensor(own["optimum", 0][score], dtype=torch.float64)
    lines = [["optimum", "", *[f"{float(best.mean()):.3f}"] * len(budgets)]]
    for name in dict.fromkeys(name for name, budget in own if budget):
        cells, products = [], []
        for budget in budgets:
            if (name, budget) not in own:
                cells.append("-")
                continue
            one = torch.tensor(own[name, budget][score], dtype=torch.float64)
            off = 2 * float((one - best).std()) / math.sqrt(len(best))
            tie = "≈" if float((one - best).mean()) <= off else ""
            cells.append(f"{tie}{float(one.mean()):.3f} ± {off:.3f}")
            products.append(str(own[name, budget]["products"]))
        lines.append([name, ", ".join(products) if any(int(p) for p in products) else "0", *cells])
    return table(["", "products", *(f"NFE {n}" for n in budgets)], lines)


TABLES = {
    f"imputation-{score}-{task}": functools.partial(methods, task, score) for score in SCORES for task in TASKS
}  # fmt: skip
