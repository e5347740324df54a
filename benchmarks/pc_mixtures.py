"""Predictor-corrector against its predictor alone on exact mixtures in 2, 16 and 64 dimensions.

    python benchmarks/pc_mixtures.py          writes benchmarks/results/pc-mixtures.jsonl and prints the table

At equal predictor steps: Fréchet distance of the samples to the exact moments, and the error of the mixture weights (half
the sum of |drawn share of a mode - its weight|, a sample belonging to the mode of largest responsibility). The floor is
what exact samples of the same number have. 4000 samples a cell.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

import solverkit as sk
from solverkit.bench.frechet import frechet_distance, moments
from solverkit.problems import mixture

OUT = Path(__file__).parent / "results" / "pc-mixtures.jsonl"
SAMPLES = 4000
STEPS = (10, 20, 40)
PREDICTORS = ("ancestral", "reverse-diffusion")
CORRECTORS = (("none", 0.1), ("annealed-langevin", 0.3), ("langevin", 0.05), ("langevin", 0.1))


def measures(target: Any, x: torch.Tensor) -> tuple[float, float]:
    """Fréchet distance to the exact moments, and the error of the weights."""
    y, q = target._project(x.double(), 1.0)
    modes = target._log_joint(y, q, 1.0, 1e-3).argmax(1)
    share = torch.bincount(modes, minlength=target.modes) / len(x)
    distance = frechet_distance(*moments(x.flatten(1)), target.mean, target.covariance)
    return distance, 0.5 * float((share - target.weights).abs().sum())


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for dim in (2, 16, 64):
        denoiser = mixture(dim=None if dim == 64 else dim, modes=10 if dim > 2 else 6)
        floor = measures(denoiser.target, denoiser.target.sample(SAMPLES, seed=9).reshape(SAMPLES, -1))
        print(f"{dim} dimensions; exact samples: Fréchet distance {floor[0]:.4f}, weights {floor[1]:.4f}")
        for steps in STEPS:
            for predictor in PREDICTORS:
                for corrector, snr in CORRECTORS:
                    options = {"predictor": predictor, "corrector": corrector, "snr": snr}
                    result = sk.sample(denoiser, "pc", steps=steps, num_samples=SAMPLES, grid="karras", **options)
                    distance, weights = measures(denoiser.target, result.x.reshape(SAMPLES, -1))
                    row = {"dim": dim, "steps": steps, "nfe": result.nfe, **options, "fd": distance, "weights": weights}
                    row |= {"floor_fd": floor[0], "floor_weights": floor[1], "num_samples": SAMPLES, "seed": 0}
                    rows.append(row)
                    name = f"{predictor} {corrector} {'' if corrector == 'none' else snr}"
                    print(f"  {steps:3d} steps {name:42} NFE {result.nfe:4.0f}  {distance:8.4f}  {weights:.4f}")
    OUT.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
