"""docs/teleportation.png, from the rows of benchmarks/suites/teleportation.toml.

    python benchmarks/teleportation_plot.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from table_teleportation import BUDGETS, MODELS, Errors

ROOT = Path(__file__).parents[1]
LEVELS = {"mixture": 2.0, "mnist": 10.0, "mnist-flow": 10.0}


def main() -> None:
    errors = Errors(ROOT / "benchmarks" / "results")
    figure, axes = plt.subplots(2, 3, figsize=(11, 6.5), sharex=True)
    for column, model in zip(axes.T, MODELS):
        for axis, solver in zip(column, ("dpmpp-2m", "unipc")):
            jump = {"model": model, "sampler": "teleport", "solver": solver, "skip_to": LEVELS[model]}
            lines = {
                "no jump, best grid": [errors.best(model, solver, n) for n in BUDGETS],
                "plain noise": [errors.one(**jump, jump="noise", budget=n) for n in BUDGETS],
                "isotropic jump": [errors.one(**jump, jump="isotropic", budget=n) for n in BUDGETS],
                "Gaussian jump": [errors.one(**jump, jump="gaussian", budget=n) for n in BUDGETS],
                "teleport, auto": [errors.auto(model, solver, n) for n in BUDGETS],
                "gaussian-exponential": [
                    errors.one(model=model, sampler="gaussian-exponential", budget=n) for n in BUDGETS
                ],
            }
            for (name, values), style in zip(lines.items(), ("k-", ":", "--", "-", "o-", "s-")):
                axis.loglog(BUDGETS, values, style, label=name, markersize=4)
            axis.set_title(f"{model}, {solver} (fixed jumps to {LEVELS[model]:g})", fontsize=9)
            axis.set_xticks(BUDGETS, [str(n) for n in BUDGETS])
            axis.minorticks_off()
    axes[0, 0].legend(fontsize=7)
    for axis in axes[:, 0]:
        axis.set_ylabel("RMS error to the ODE")
    for axis in axes[1]:
        axis.set_xlabel("NFE")
    figure.tight_layout()
    figure.savefig(ROOT / "docs" / "teleportation.png", dpi=110)


if __name__ == "__main__":
    main()
