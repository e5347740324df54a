"""docs/teleportation.png and the tables of docs/teleportation.md, from the rows of benchmarks/suites/teleportation.toml.

    python benchmarks/teleportation_plot.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[1]
SOLVERS = ("dpmpp-2m", "unipc", "heun", "deis", "ipndm", "dpmpp-3m")
MODELS = ("mixture", "mnist", "mnist-flow")
LEVELS = {"mixture": 2.0, "mnist": 10.0, "mnist-flow": 10.0}
BUDGETS = (5, 6, 8, 10, 15, 20)


def main() -> None:
    rows = [json.loads(line) for line in (ROOT / "benchmarks" / "results" / "teleportation.jsonl").open()]

    def errors(**wanted: Any) -> list[float]:
        def fits(row: dict[str, Any]) -> bool:
            flat = {"skip_to": "auto", "jump": "gaussian", **row["options"]}
            flat |= {k: row[k] for k in ("model", "sampler", "budget")}
            return row["status"] == "ok" and all(flat.get(k) == v for k, v in wanted.items())

        return [row["ode_error"] for row in rows if fits(row)]

    figure, axes = plt.subplots(2, 3, figsize=(11, 6.5), sharex=True)
    for column, model in zip(axes.T, MODELS):
        for axis, solver in zip(column, ("dpmpp-2m", "unipc")):
            jump = {"model": model, "sampler": "teleport", "solver": solver}
            lines = {
                "no jump, best grid": [min(errors(model=model, sampler=solver, budget=n)) for n in BUDGETS],
                "plain noise": [errors(**jump, skip_to=LEVELS[model], jump="noise", budget=n)[0] for n in BUDGETS],
                "isotropic jump": [errors(**jump, skip_to=LEVELS[model], jump="isotropic", budget=n)[0] for n in BUDGETS],
                "Gaussian jump": [errors(**jump, skip_to=LEVELS[model], jump="gaussian", budget=n)[0] for n in BUDGETS],
                "teleport, auto": [errors(**jump, skip_to="auto", budget=n)[0] for n in BUDGETS],
                "gaussian-exponential": [errors(model=model, sampler="gaussian-exponential", budget=n)[0] for n in BUDGETS],
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
    print("| | " + " | ".join(f"NFE {n}" for n in BUDGETS) + " |\n" + "|---" * 7 + "|")
    for model in MODELS:
        for solver in SOLVERS:
            cells = []
            for n in BUDGETS:
                base = min(errors(model=model, sampler=solver, budget=n))
                auto = errors(model=model, sampler="teleport", solver=solver, skip_to="auto", budget=n)[0]
                cells.append(f"{auto / base:.2f}")
            print(f"| {model}, {solver} | " + " | ".join(cells) + " |")
        two = [min(errors(model=model, sampler="dpmpp-2m", budget=n)) for n in BUDGETS]
        ours = [errors(model=model, sampler="gaussian-exponential", budget=n)[0] for n in BUDGETS]
        cells = [f"{a / b:.2f}" for a, b in zip(ours, two)]
        print(f"| {model}, gaussian-exponential over 2M | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
