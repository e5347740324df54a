"""Tables of a fitted plan's peers, from the rows of benchmarks/tune_peers.py."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from markdown_table import short, table

MODELS = ("mixture", "mnist", "mnist-flow")
CHOSEN = {"gits": "GITS levels", "oss": "OSS levels"}
SOLVERS = ("euler", "deis", "dpmpp-2m", "ipndm")
OTHERS = {
    "teleport": "teleport, best of 4 solvers", "gaussian-exponential": "gaussian-exponential", "tuned": "fitted plan",
}  # fmt: skip


def peers(model: str, results: Path) -> str:
    """A line a method, a column a budget: RMS (median), and the ratio of RMS to the best untuned pair's."""
    text = (results / "tune-peers.jsonl").read_text(encoding="utf-8")
    rows = [row for row in map(json.loads, text.splitlines()) if row["model"] == model]
    budgets = sorted({row["nfe"] for row in rows})
    if not rows:
        raise KeyError(model)

    def cells(method: str, sampler: str | None = None) -> list[str]:
        found = {}
        for row in rows:  # the least RMS first
            if row["method"] == method and sampler in (None, row["sampler"]):
                found.setdefault(row["nfe"], row)
        return [cell(found.get(n)) for n in budgets]

    def cell(row: dict[str, Any] | None) -> str:
        if row is None:
            return ""
        error = f"{row['rms']:.4f} ({row['median']:.4f})"
        low, high = row["interval"]
        ratio = "" if row["method"] == "untuned" else f", {short(row['ratio_rms'])} [{short(low)}, {short(high)}]"
        which = f", `{row['sampler'].removeprefix('diffusers:')}` on {row['grid']}"
        return error + ratio + (which if row["method"] in ("untuned", "diffusers") else "")

    lines = [["best untuned", *cells("untuned")], ["best of diffusers' classes", *cells("diffusers")]]
    lines += [[f"{name}, `{s}`", *cells(method, s)] for method, name in CHOSEN.items() for s in SOLVERS]
    lines += [[name, *cells(method)] for method, name in OTHERS.items()]
    return table(["", *(f"NFE {n}" for n in budgets)], [line for line in lines if any(line[1:])])


TABLES = {f"tune-peers-{model}": functools.partial(peers, model) for model in MODELS}
