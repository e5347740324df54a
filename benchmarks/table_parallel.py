"""Table of docs/parallel.md: sweeps, rows and error at the default tolerance."""

from __future__ import annotations

import json
from pathlib import Path

from markdown_table import table

TOLERANCE = 1e-3


def parallel(results: Path) -> str:
    """Each setting at the default tolerance."""
    rows = [json.loads(line) for line in (results / "parallel.jsonl").read_text().splitlines()]
    lines = [
        [f"`{r['model']}`", f"`{r['solver']}`", str(r["sequential"]), str(r["window"]), str(r["sweeps"]),
         f"{r['rows']:.0f}", f"{r['error']:.1e}"]
        for r in rows if r["tolerance"] == TOLERANCE
    ]  # fmt: skip
    return table(["model", "solver", "evaluations of the plan", "window", "sweeps", "rows", "error"], lines)


TABLES = {"parallel": parallel}
