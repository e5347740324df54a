"""What UniPC's correction of the step from alpha = 0 is worth, and order 3 beside 2, on noises nothing was chosen on.

    python benchmarks/unipc_start.py                 # exact mixtures on the linear path, half a minute
    python benchmarks/unipc_start.py mnist-flow      # and a network, some minutes

For each budget: RMS and median error to the converged solution with and without the correction, the ratio of the RMS errors
and its 95 % bootstrap interval; a ratio whose interval holds 1 is a tie.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import torch

import solverkit as sk
from solverkit.bench.reference import solve
from solverkit.tuning.loss import interval

SEED, GRIDS, BUDGETS = 4242, ("flow", "flow:shift=3"), (5, 6, 8, 10, 15)
MIXTURES: tuple[dict[str, Any], ...] = ({}, {"dim": 16, "modes": 5, "seed": 3}, {"dim": 8, "modes": 3, "seed": 7})


def errors(denoiser: Any, exact: torch.Tensor, grid: str, nfe: int, **options: Any) -> torch.Tensor:
    """RMS error of each sample, (B,)."""
    x = sk.sample(denoiser, "unipc", nfe=nfe, num_samples=len(exact), seed=SEED, grid=grid, **options).x
    return (x.double() - exact.double()).flatten(1).square().mean(1).sqrt()


def line(name: str, grid: str, nfe: int, order: int, after: torch.Tensor, before: torch.Tensor) -> str:
    a, b = (float(v.square().mean().sqrt()) for v in (after, before))
    low, high = interval(after, before)
    return (
        f"{name} {grid} NFE {nfe} order {order}: RMS {b:.4f} -> {a:.4f}, ratio {a / b:.3f} [{low:.3f}, {high:.3f}], "
        f"median {float(before.median()):.4f} -> {float(after.median()):.4f}"
    )


def main(networks: list[str]) -> None:
    flow = sk.Flow()
    models = [(f"mixture {options or ''}".strip(), sk.problems.mixture(schedule=flow, **options)) for options in MIXTURES]
    for name, model in [*models, *((name, sk.load(name)) for name in networks)]:
        if hasattr(model, "target"):
            ratios = [math.inf, *(80 * (1e-5 / 80) ** (i / 300) for i in range(301)), 0.0]
            grid = sk.Grid.from_ratios(model.schedule, ratios)
            exact = sk.sample(model, "rk4", grid=grid, num_samples=256, seed=SEED, dtype=torch.float64).x
        else:
            exact = solve(model, 128, SEED, 96)
        for layout in GRIDS:
            for nfe in BUDGETS:
                for order in (2, 3):
                    pair = (errors(model, exact, layout, nfe, order=order, released=r) for r in (False, True))
                    print(line(name, layout, nfe, order, *pair), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
