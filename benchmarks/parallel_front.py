"""Sweeps, rows and error of 'parallel' against its tolerance, and docs/parallel.png.

    python benchmarks/parallel_front.py measure      # rows to benchmarks/results/parallel.jsonl, anew
    python benchmarks/parallel_front.py resume       # the same, on from where it stopped
    python benchmarks/parallel_front.py picture      # docs/parallel.png; its table: table_parallel.py

The error is the RMS to the same plan driven one evaluation at a time (window 1), over that of the samples.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

import solverkit as sk

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "parallel.jsonl"
PICTURE = ROOT / "docs" / "parallel.png"
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4)
SAMPLES = {"mixture": 16, "mnist": 4}
GRIDS = {"mixture": "flow", "mnist": "trailing"}
BUDGETS = (50, 100, 200)
CELLS = [
    *(("mixture", solver, nfe, nfe) for solver in ("ddim", "dpmpp-2m", "heun", "euler-ancestral") for nfe in BUDGETS),
    *(("mixture", "dpmpp-2m", 200, window) for window in (8, 16, 32, 64)),
    *(("mnist", solver, nfe, nfe) for solver in ("ddim", "dpmpp-2m") for nfe in BUDGETS),
]  # model, solver, NFE of the plan, window


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def measure() -> None:
    RESULTS.unlink(missing_ok=True)
    resume()


def resume() -> None:
    torch.set_num_threads(1)
    done = {(r["model"], r["solver"], r["nfe"], r["window"], r["tolerance"]) for r in rows()}
    for model, solver, nfe, window in CELLS:
        left = [tolerance for tolerance in TOLERANCES if (model, solver, nfe, window, tolerance) not in done]
        if not left:
            continue
        denoiser = sk.load(model)
        setting = {"nfe": nfe, "num_samples": SAMPLES[model], "grid": GRIDS[model], "solver": solver}
        alone = sk.sample(denoiser, "parallel", window=1, **setting)
        for tolerance in left:
            made = sk.sample(denoiser, "parallel", window=window, tolerance=tolerance, **setting)
            row = {
                "model": model, "solver": solver, "nfe": nfe, "window": window, "tolerance": tolerance,
                "num_samples": SAMPLES[model], "grid": GRIDS[model], "sequential": alone.passes, "sweeps": made.passes,
                "rows": made.nfe, "error": float(((made.x - alone.x).square().mean() / alone.x.square().mean()).sqrt()),
                "torch": torch.__version__,
            }  # fmt: skip
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


def picture() -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = [row for row in rows() if row["window"] == row["nfe"]]
    colours = {"ddim": "C0", "dpmpp-2m": "C1", "heun": "C2", "euler-ancestral": "C3"}
    styles = {50: ":", 100: "--", 200: "-"}
    figure, axes = plt.subplots(2, 3, figsize=(11, 6.4), sharex=True, layout="constrained")
    for line, model in zip(axes, SAMPLES):
        for solver, colour in colours.items():
            for nfe, style in styles.items():
                own = sorted((r for r in found if (r["model"], r["solver"], r["nfe"]) == (model, solver, nfe)),
                             key=lambda r: r["tolerance"])  # fmt: skip
                x = [r["tolerance"] for r in own]
                for axis, y in zip(line, ("sweeps", "rows", "error")):
                    values = [r[y] / (r["sequential"] if y != "error" else 1) for r in own]
                    axis.plot(x, values, style, color=colour, marker="o", markersize=3)
        names = ("sweeps / evaluations of the plan", "rows / evaluations of the plan", "error to the sequential run")
        for axis, name in zip(line, names):
            axis.set(xscale="log", title=f"{model}: {name}", xlabel="tolerance")
            axis.title.set_fontsize(9.5)
            axis.grid(alpha=0.3)
        line[0].set_ylim(0, None)
        line[1].set_ylim(0, None)
        line[2].set_yscale("log")
    handles = [plt.Line2D([], [], color=c, label=name) for name, c in colours.items()]
    handles += [plt.Line2D([], [], color="black", linestyle=style, label=f"NFE {nfe}") for nfe, style in styles.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9, frameon=False)
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    actions = {"measure": measure, "resume": resume, "picture": picture}
    if len(sys.argv) != 2 or sys.argv[1] not in actions:
        sys.exit(f"say one of {', '.join(actions)}")
    actions[sys.argv[1]]()
