"""Tables of docs/inverse.md, from the rows of `solverkit bench --suite inverse`."""

from __future__ import annotations

import functools
import json
from pathlib import Path

from markdown_table import table

from solverkit.bench.inverse_front import MODELS, TASKS, cost, figures


def methods(model: str, results: Path) -> str:
    """A line a method, a column a task."""
    text = (results / "inverse.jsonl").read_text(encoding="utf-8")
    rows = [row for row in map(json.loads, text.splitlines()) if row["model"] == model and row["method"] != "truth"]
    lines = []
    for name in dict.fromkeys(row["method"] for row in rows):
        own = {row["task"]: row for row in rows if row["method"] == name}
        lines.append([name, cost(own[TASKS[0]]), *(", ".join(figures(own[task])) for task in TASKS)])
    return table(["", "NFE + products", *TASKS], lines)


TABLES = {f"inverse-{model}": functools.partial(methods, model) for model in MODELS}
