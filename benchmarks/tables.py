"""Write docs/benchmarks.md from the committed rows: nothing in it is typed by hand but the prose.

solverkit bench --out runs/seed0 && solverkit bench --seed 1 --out runs/seed1
cp runs/seed0/results.jsonl benchmarks/results/default-seed0.jsonl      # and seed1
python benchmarks/tables.py
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from ranking import compare
from ranking import load as load_errors

from solverkit.bench.store import read

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
HEAD = """# Benchmarks

`solverkit bench` without arguments: RMS distance (`ode_error`) of the samples to the converged solution of the same
probability-flow ODE from the same noise, against counted network evaluations. Each sampler, diffusers' own included, runs
on the grid that won a sweep at that budget on another seed (`benchmarks/choose_grids.py`); diffusers' classes have fewer
grids to choose from, and that is part of what is compared. Rows: `benchmarks/results/`. Machine: {machine}; torch {torch}.

The converged solution is by DEIS of order 3 (networks) or RK4 (exact target); its distance to the solution with half
as many steps is {reference}.
"""
STABLE = """
## Is the ranking stable?

Kendall's tau between the rankings of the nine samplers on seed 0 and on seed 1 (1 = the same order), and the pairs that
changed places although they were more than 10 % apart (`benchmarks/ranking.py`).

| model | NFE | tau | clear swaps |
|---|---|---|---|
"""


def main() -> None:
    rows = [row for row in read(RESULTS / "default-seed0.jsonl") if row["status"] == "ok"]
    references: dict[str, float] = {}
    table: dict[str, dict[str, dict[int, dict]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        table[row["model"]][row["sampler"]][row["budget"]] = row
        if row.get("reference_error") is not None:
            references[row["model"]] = row["reference_error"]
    reference = ", ".join(f"{error:.1e} (`{model}`)" for model, error in references.items())
    text = HEAD.format(machine=rows[0]["machine"], torch=rows[0]["torch_version"], reference=reference)
    for model, samplers in table.items():
        budgets = sorted({b for line in samplers.values() for b in line})
        best = {b: min(line[b]["ode_error"] for line in samplers.values() if b in line) for b in budgets}
        count = next(iter(next(iter(samplers.values())).values()))["num_samples"]
        text += f"\n## {model} ({count} samples, seed 0)\n\n| sampler | " + " | ".join(f"NFE {b}" for b in budgets)
        text += " |\n|---|" + "---|" * len(budgets) + "\n"
        for sampler, line in samplers.items():
            cells = []
            for b in budgets:
                error, grid = line[b]["ode_error"], line[b]["grid"]
                shown = f"{error:.4f}"
                cells.append((f"**{shown}**" if error == best[b] else shown) + f" {grid}")
            text += f"| {sampler} | " + " | ".join(cells) + " |\n"
    text += STABLE
    first, second = (load_errors(RESULTS / f"default-seed{seed}.jsonl") for seed in (0, 1))
    for model, budget in sorted(first.keys() & second.keys()):
        tau, swaps = compare(first[(model, budget)], second[(model, budget)])
        text += f"| {model} | {budget} | {tau:+.2f} | {'; '.join(swaps) or 'none'} |\n"
    (ROOT / "docs" / "benchmarks.md").write_text(text)


if __name__ == "__main__":
    main()
