"""docs/lml.png from benchmarks/results/lml.jsonl: error over the base solver's, against the budget.

    python benchmarks/lml_plot.py
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
from table_lml import DIMENSIONS, GRID, kind

ROOT = Path(__file__).parents[1]


def main() -> None:
    rows = [json.loads(line) for line in (ROOT / "benchmarks" / "results" / "lml.jsonl").open()]
    rows = [row for row in rows if row["status"] == "ok" and row.get("ode_error") is not None and row["grid"] == GRID]
    figure, axes = plt.subplots(2, 3, figsize=(11, 6), sharex=True, sharey=True)
    for line, solver in zip(axes, ("ddim", "dpmpp-2m")):
        for axis, model in zip(line, DIMENSIONS):
            base = {r["budget"]: r["ode_error"] for r in rows if r["model"] == model and r["sampler"] == solver}
            curves: dict[str, dict[int, float]] = {}
            for row in rows:
                if row["model"] != model or row["sampler"] != "lml" or row["options"].get("solver") != solver:
                    continue
                name = kind(row)
                curves.setdefault(name, {})[row["budget"]] = row["ode_error"] / base[row["budget"]]
            for name, values in curves.items():
                style = {"kappa = 0": "k-", "released, float32": "r--"}.get(name, "o-")
                axis.semilogy(list(values), list(values.values()), style, label=name, markersize=4)
            axis.set_title(f"{model}, {solver}", fontsize=9)
            axis.set_ylim(0.4, 4)
            axis.set_yticks([0.5, 1, 2, 4], ["0.5", "1", "2", "4"])
            axis.minorticks_off()
    axes[0, 0].legend(fontsize=7)
    for axis in axes[:, 0]:
        axis.set_ylabel("ODE error over the base solver's")
    for axis in axes[1]:
        axis.set_xlabel("NFE")
    figure.tight_layout()
    figure.savefig(ROOT / "docs" / "lml.png", dpi=110)


if __name__ == "__main__":
    main()
