"""docs/lml.png from benchmarks/results/lml.jsonl: error over the base solver's, against the budget.

    python benchmarks/lml_plot.py
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
from table_lml import DIMENSIONS, GRID, kind

ROOT = Path(__file__).parents[1]
LOW, HIGH = 0.4, 4.0
# settings of one sampler: shades of its colour in every figure, markers that differ, the released one dashed
STYLES = {
    "kappa = 0": ("#000000", "-", ""), "released, float32": ("#6F6F6F", "--", "s"), "c = 0.1": ("#E3B98F", "-", "o"),
    "c = 0.25": ("#C98545", "-", "^"), "c = 0.5": ("#A05A2C", "-", "D"), "c = 1": ("#53290E", "-", "v"),
}  # fmt: skip


def main() -> None:
    rows = [json.loads(line) for line in (ROOT / "benchmarks" / "results" / "lml.jsonl").open()]
    rows = [row for row in rows if row["status"] == "ok" and row.get("ode_error") is not None and row["grid"] == GRID]
    budgets = sorted({row["budget"] for row in rows})
    figure, axes = plt.subplots(2, 3, figsize=(11, 7), sharex=True, sharey=True)
    handles, remarks = {}, []
    for line, solver in zip(axes, ("ddim", "dpmpp-2m")):
        for axis, model in zip(line, DIMENSIONS):
            curves = ratios(rows, model, solver)
            for name, values in curves.items():
                colour, dash, marker = STYLES[name]
                x, y = list(values), list(values.values())
                (handles[name],) = axis.plot(x, y, color=colour, linestyle=dash, marker=marker, markersize=4)
            remarks += remarks_on(f"{model}, {solver}", curves)
            axis.set(title=f"{model}, {solver}", xscale="log", yscale="log", ylim=(LOW, HIGH))
            axis.set_xticks(budgets, [str(budget) for budget in budgets])
            axis.set_yticks([0.5, 1, 2, 4], ["0.5", "1", "2", "4"])
            axis.minorticks_off()
            axis.grid(color="#e4e4e4")
    for axis in axes[:, 0]:
        axis.set_ylabel("ODE error over the base solver's")
    for axis in axes[1]:
        axis.set_xlabel("network evaluations (NFE, counted)")
    figure.tight_layout(rect=(0, 0.13, 1, 1))
    where = {"loc": "lower center", "bbox_to_anchor": (0.5, 0.075)}
    figure.legend(handles.values(), handles, ncols=len(handles), frameon=False, **where)
    samples = "512 samples of mixture, 32 of the networks, seed 0, levels uniform in time"
    figure.text(0.01, 0.01, f"{samples}. " + " ".join(remarks), fontsize=8, color="#555555", wrap=True)
    figure.savefig(ROOT / "docs" / "lml.png", dpi=110)


def ratios(rows: list[dict], model: str, solver: str) -> dict[str, dict[int, float]]:
    """kind of lml -> budget -> error over the base solver's."""
    base = {r["budget"]: r["ode_error"] for r in rows if r["model"] == model and r["sampler"] == solver}
    curves: dict[str, dict[int, float]] = {}
    for row in rows:
        if row["model"] == model and row["sampler"] == "lml" and row["options"].get("solver") == solver:
            curves.setdefault(kind(row), {})[row["budget"]] = row["ode_error"] / base[row["budget"]]
    return curves


def remarks_on(panel: str, curves: dict[str, dict[int, float]]) -> list[str]:
    """What the panel does not show: lines that leave it, and those that lie on each other."""
    said = []
    for name, values in curves.items():
        if (most := max(values.values())) > HIGH:
            said.append(f"{panel}: {name} leaves the panel, at {most:.3g} at most.")
    spread = [max(c[b] for c in curves.values()) - min(c[b] for c in curves.values()) for b in next(iter(curves.values()))]
    if max(spread) < 0.1:
        said.append(f"{panel}: all lines lie within {max(spread):.2f} of each other.")
    return said


if __name__ == "__main__":
    main()
