"""Tables of docs/students.md, from the rows of benchmarks/students.py and benchmarks/w2sd.py."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import torch
from jackknife import jackknife
from markdown_table import table
from students import FAMILIES, MANY


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _distances(row: dict[str, Any]) -> torch.Tensor:
    return torch.tensor(row["distances"], dtype=torch.float64)


def _cells(row: dict[str, Any], against: dict[str, Any]) -> list[str]:
    """The distance, its difference to another row, and the share that is read as asked."""
    d, other = _distances(row), _distances(against)
    apart = "" if row is against else f"{d[0] - other[0]:+.2f} ± {jackknife(d - other):.2f}"
    return [f"{d[0]:.2f} ± {jackknife(d):.2f}", apart, f"{100 * row['right']:.1f} %"]


def students(student: str, results: Path) -> str:
    """A line a sampler and budget; differences are to the teacher's best solver at the most evaluations."""
    teacher = FAMILIES[student][0]
    rows = [row for row in _rows(results / "students.jsonl") if row["row"][0] in (student, teacher)]
    most = [row for row in rows if row["row"][0] == teacher and row["row"][3] == MANY[-1]]
    best = min(most, key=lambda row: row["distances"][0])
    lines = [[f"`{r['row'][0]}`", f"`{r['row'][1]}`", str(r["row"][3]), *_cells(r, best)] for r in rows]
    against = f"beside `{best['row'][1]}` at {best['row'][3]}"
    return table(["network", "sampler", "NFE", "Fréchet distance", against, "read as asked"], lines)


def reflection(gap: str, results: Path) -> str:
    """A line a method; differences are to the first."""
    rows = [row for row in _rows(results / "w2sd.jsonl") if row["gap"] == gap]
    lines = [[row["name"], f"{row['passes']:.0f}", *_cells(row, rows[0])] for row in rows]
    return table(["", "passes", "Fréchet distance", "to the first row", "read as asked"], lines)


TABLES = {f"students-{name}": functools.partial(students, name) for name in FAMILIES} | {
    f"reflection-{gap}": functools.partial(reflection, gap) for gap in ("training", "guidance")
}
