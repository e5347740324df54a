"""Caching rules on the networks beside solvers, at equal counted evaluations."""

from __future__ import annotations

import functools
from pathlib import Path

from markdown_table import table
from table_suite import figure

from solverkit.bench.points import Point, loss, make_point, tied
from solverkit.bench.report import number
from solverkit.bench.store import latest, read
from solverkit.bench.suite import NO_CACHE

MODELS = ("mnist", "mnist-flow")
COUNTED = (5, 10, 20)
METRIC, BESIDE = "ode_error", "ode_median"


def front(model: str, results: Path) -> str:
    """RMS with its interval and the median, where so many evaluations were counted; another count is told."""
    rows = [row for row in latest(read(results / "caching-networks.jsonl")) if row["model"] == model]
    points: dict[tuple[str, str], dict[int, Point]] = {}
    for row in rows:
        point = make_point([row], METRIC) if row["status"] == "ok" else None
        if point is not None:
            nearest = min(COUNTED, key=lambda n, nfe=point.nfe: abs(n - nfe))
            line = points.setdefault((row["sampler"], row["cache"]), {})
            if abs(point.nfe - nearest) <= 0.1 * nearest:
                line[nearest] = point
    there = {n: [line[n] for line in points.values() if n in line] for n in COUNTED}
    best = {n: min(found, key=functools.partial(loss, METRIC)) for n, found in there.items()}

    def cell(name: tuple[str, str], n: int) -> str:
        point = points[name].get(n)
        if point is None:
            return ""
        leading = {" ".join(other) for other, line in points.items() if n in line and tied(METRIC, best[n], line[n])}
        median = make_point(point.rows, BESIDE)
        beside = "" if median is None else f" ~{number(median.value)}"
        counted = "" if round(point.nfe, 2) == n else f" at {point.nfe:.3g}"
        return figure(point, " ".join(name), leading) + beside + counted

    ordered = sorted(points, key=lambda name: (name[0], name[1] != NO_CACHE))
    lines = [[f"`{s}`", "" if c == NO_CACHE else f"`{c}`", *(cell((s, c), n) for n in COUNTED)] for s, c in ordered]
    return table(["solver", "rule", *(f"{n} evaluated" for n in COUNTED)], lines)


TABLES = {f"caching-{model}": functools.partial(front, model) for model in MODELS}
