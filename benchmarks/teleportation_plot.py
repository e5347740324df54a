"""docs/teleportation.png, from the rows of benchmarks/suites/teleportation.toml.

    python benchmarks/teleportation_plot.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from table_teleportation import BUDGETS, MODELS, Errors

from solverkit.bench.colours import KNOWN
from solverkit.bench.figure import label_values

ROOT = Path(__file__).parents[1]
LEVELS = {"mixture": 2.0, "mnist": 10.0, "mnist-flow": 10.0}
BASE = "no jump, best grid"
TELEPORT, EXPONENTIAL = KNOWN["teleport"][0], KNOWN["gaussian-exponential"][0]


def main() -> None:
    errors = Errors(ROOT / "benchmarks" / "results")
    figure, axes = plt.subplots(2, 3, figsize=(11, 7.4), sharex=True)
    handles = {}
    for column, model in zip(axes.T, MODELS):
        for axis, solver in zip(column, ("dpmpp-2m", "unipc")):
            jump = {"model": model, "sampler": "teleport", "solver": solver, "skip_to": LEVELS[model]}
            lines = {
                BASE: ([errors.best(model, solver, n) for n in BUDGETS], KNOWN[solver][0], "-", KNOWN[solver][1]),
                "plain noise": ([errors.one(**jump, jump="noise", budget=n) for n in BUDGETS], "#888888", ":", "x"),
                "isotropic jump": ([errors.one(**jump, jump="isotropic", budget=n) for n in BUDGETS], "#AA4499", "--", "^"),
                "Gaussian jump": ([errors.one(**jump, jump="gaussian", budget=n) for n in BUDGETS], TELEPORT, "--", "D"),
                "teleport, auto": ([errors.auto(model, solver, n) for n in BUDGETS], TELEPORT, "-", KNOWN["teleport"][1]),
                "gaussian-exponential": (
                    [errors.one(model=model, sampler="gaussian-exponential", budget=n) for n in BUDGETS],
                    EXPONENTIAL, "-", KNOWN["gaussian-exponential"][1],
                ),
            }  # fmt: skip
            for name, (values, colour, dash, marker) in lines.items():
                (line,) = axis.loglog(BUDGETS, values, color=colour, linestyle=dash, marker=marker, markersize=5)
                handles.setdefault(f"{solver}, {BASE}" if name == BASE else name, line)
            axis.set_title(f"{model}, {solver} (fixed jumps to {LEVELS[model]:g})", fontsize=9)
            axis.set_xticks(BUDGETS, [str(n) for n in BUDGETS])
            axis.set_xlim(BUDGETS[0] / 1.1, BUDGETS[-1] * 1.1)
            axis.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
            found = [value for values, *_ in lines.values() for value in values]
            label_values(axis, min(found), max(found))
            axis.grid(color="#e4e4e4")
    for axis in axes[:, 0]:
        axis.set_ylabel("RMS error to the converged solution")
    for axis in axes[1]:
        axis.set_xlabel("network evaluations (NFE, counted)")
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    figure.legend(handles.values(), handles, loc="lower center", ncols=4, frameon=False, bbox_to_anchor=(0.5, 0.035))
    caption = "256 samples of mixture, 128 of the networks, seed 11, on which nothing was chosen; measured at two budgets."
    figure.text(0.01, 0.01, caption, fontsize=8, color="#555555")
    figure.savefig(ROOT / "docs" / "teleportation.png", dpi=110)


if __name__ == "__main__":
    main()
