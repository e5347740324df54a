"""Tables of docs/score.md, from the rows of benchmarks/pc_mixtures.py and benchmarks/suites/score_sde.toml."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from markdown_table import table

from solverkit.bench.store import latest, read

CORRECTORS = (("none", 0.1), ("annealed-langevin", 0.3), ("langevin", 0.05), ("langevin", 0.1))
PREDICTORS = ("ancestral", "reverse-diffusion", "probability-flow")
PUBLISHED = {  # Song et al. 2021, Table 1, CIFAR-10
    "ancestral": ("4.98, 4.88, 3.62", "3.24, 3.24, 3.21"),
    "reverse-diffusion": ("4.79, 4.74, 3.60", "3.21, 3.19, 3.18"),
    "probability-flow": ("15.41, 10.54, 3.51", "3.59, 3.23, 3.06"),
    "none": ("20.43", "19.06"),
}


def mixtures(results: Path) -> str:
    """Fréchet distance and error of the weights, the ancestral predictor alone and with correctors."""
    rows = [json.loads(line) for line in (results / "pc-mixtures.jsonl").read_text(encoding="utf-8").splitlines()]
    found = {(r["dim"], r["steps"], r["predictor"], r["corrector"], r["snr"]): r for r in rows}
    lines = []
    for dim in sorted({row["dim"] for row in rows}):
        for steps in sorted({row["steps"] for row in rows}):
            own = [found[dim, steps, "ancestral", corrector, snr] for corrector, snr in CORRECTORS]
            cells = [f"{row['fd']:.4f}, {row['weights']:.4f}" for row in own]
            floor = f"{own[0]['floor_fd']:.4f}, {own[0]['floor_weights']:.4f}"
            lines.append([str(dim), str(steps), *cells, floor])
    names = ["predictor alone (NFE N)", "+ annealed-langevin, snr 0.3 (2 N)", "+ langevin, snr 0.05", "+ langevin, snr 0.1"]
    return table(["dimensions", "steps", *names, "exact samples"], lines)


def digits(results: Path) -> str:
    """Predictor, twice its steps, and with a corrector, beside the published figures."""
    rows = [row for row in latest(read(results / "score_sde.jsonl")) if row["status"] == "ok"]
    found: dict[tuple[Any, ...], float] = {
        (row["options"]["predictor"], row["options"]["corrector"], row["budget"]): row["fd"] for row in rows
    }

    def shown(*key: Any) -> str:
        return f"{found[key]:.1f}" if found[key] < 100 else f"{found[key]:.0f}"

    lines = []
    for predictor in PREDICTORS:
        cells = []
        for n in (10, 40):
            cells += [shown(predictor, "none", n), shown(predictor, "none", 2 * n), shown(predictor, "langevin", 2 * n)]
        lines.append([predictor.replace("-", " "), *cells, *PUBLISHED[predictor]])
    alone = [shown("none", "langevin", 21), "", "", shown("none", "langevin", 81), "", ""]
    lines.append(["C alone", *alone, *PUBLISHED["none"]])
    head = ["", "P, 10 steps", "2P", "PC", "P, 40 steps", "2P", "PC", "Song et al. VE: P1000, P2000, PC1000", "VP"]
    return table(head, lines)


TABLES = {"pc-mixtures": mixtures, "score-digits": digits}
