"""What one solver step costs outside the network, against the diffusers class that does the same.

    python benchmarks/overhead.py

One thread, float32, one interleaved run: each round times one full run of every contestant in random order, and the
medians over rounds are compared, so that a machine that slows down slows all of them. Theirs is `step` (model output
given). Ours is a row of the plan (`advance`, denoised prediction given), and `SolverKitScheduler.step`, which takes the
model output and returns the denoised prediction too.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

import solverkit as sk
from solverkit.tuning.plans import Budget

STEPS = 20
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
PAIRS = {
    "dpmpp-2m": (DPMSolverMultistepScheduler, {}, {"solver_order": 2}),
    "unipc": (UniPCMultistepScheduler, {"order": 2}, {"solver_order": 2}),
    "unipc-3": (UniPCMultistepScheduler, {"order": 3}, {"solver_order": 3}),
}
LIMITS = {
    ("advance", "dpmpp-2m", "small"): 0.15, ("advance", "dpmpp-2m", "large"): 0.20,
    ("advance", "unipc", "small"): 0.10, ("advance", "unipc", "large"): 0.15,
    ("step", "dpmpp-2m", "small"): 0.18, ("step", "dpmpp-2m", "large"): 0.35,
    ("step", "unipc", "small"): 0.10, ("step", "unipc", "large"): 0.15,
}  # fmt: skip
TUNED = {"tuned, 2 predictions": 2, "tuned, 6 predictions": 6}
SHAPES = {"small": (1, 4, 64, 64), "large": (4, 4, 128, 128)}


def fitted(predictions: int) -> sk.TunedPlans:
    """A plan that weighs so many predictions; which weights they are costs nothing."""
    schedule = sk.VP("scaled_linear", 0.00085, 0.012)
    grid = sk.make_grid("trailing", schedule, STEPS)
    weights = np.tril(np.full((STEPS, STEPS + 1), 0.1), 1) - np.tril(np.full((STEPS, STEPS + 1), 0.1), 1 - predictions)
    weights[:, 0] = 0.9
    levels = tuple(float(s) for s in grid[:STEPS])
    return sk.TunedPlans(repr(schedule), 0, levels[0], None, {STEPS: Budget(levels, weights)})


def our_run(name: str, options: dict, x: torch.Tensor, denoised: torch.Tensor) -> Callable[[], float]:
    grid = sk.make_grid("trailing", sk.VP("scaled_linear", 0.00085, 0.012), STEPS)
    plan = sk.trace(fitted(TUNED[name]).sampler if name in TUNED else name.removesuffix("-3"), grid, **options)

    def run() -> float:
        y, state = sk.begin(plan, x)
        start = time.perf_counter()
        for _ in range(plan.nfe):
            y, state = sk.advance(plan, state, y, denoised)
        return (time.perf_counter() - start) / plan.nfe

    return run


def scheduler_run(peer: Any, x: torch.Tensor, output: torch.Tensor) -> Callable[[], float]:
    def run() -> float:
        peer.set_timesteps(STEPS)
        peer.set_begin_index(0)
        y = x
        start = time.perf_counter()
        for t in peer.timesteps:
            y = peer.step(output, t, y, return_dict=False)[0]
        return (time.perf_counter() - start) / STEPS

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=60)
    args = parser.parse_args()
    torch.set_num_threads(1)
    random.seed(0)
    contestants: dict[tuple[str, str, str], Callable[[], float]] = {}
    for size, shape in SHAPES.items():
        x, output = torch.randn(shape), torch.randn(shape)
        for name, (cls, ours, theirs) in PAIRS.items():
            peer = cls(**BETAS, timestep_spacing="trailing", **theirs)
            sampler = name.removesuffix("-3")
            scheduler = sk.SolverKitScheduler.from_config(peer.config, sampler=sampler, sampler_options=ours)
            contestants[(name, size, "advance")] = our_run(name, ours, x, output)
            contestants[(name, size, "step")] = scheduler_run(scheduler, x, output)
            contestants[(name, size, "theirs")] = scheduler_run(peer, x, output)
        for name in TUNED:
            contestants[(name, size, "advance")] = our_run(name, {}, x, output)
    times: dict[tuple[str, str, str], list[float]] = {key: [] for key in contestants}
    for round_ in range(args.rounds + 3):
        order = list(contestants)
        random.shuffle(order)
        for key in order:
            seconds = contestants[key]()
            if round_ >= 3:  # the first rounds warm the allocator
                times[key].append(seconds)
    print(f"{'sampler':10} {'shape':18} {'ours':8} {'ours':>9} {'diffusers':>10} {'ratio':>7}  limit")
    for what in ("advance", "step"):
        for name in PAIRS:
            for size, shape in SHAPES.items():
                ours, theirs = (1e6 * statistics.median(times[(name, size, who)]) for who in (what, "theirs"))
                figures = f"{ours:6.1f} us {theirs:7.1f} us {ours / theirs:7.3f}  {LIMITS.get((what, name, size), '')}"
                print(f"{name:10} {shape!s:18} {what:8} {figures}")
    print(f"{'plan':22} {'shape':18} {'its row':>9} {'of 2M':>11} {'ratio':>7}")
    for name in TUNED:
        for size, shape in SHAPES.items():
            own, two = (1e6 * statistics.median(times[(who, size, "advance")]) for who in (name, "dpmpp-2m"))
            print(f"{name:22} {shape!s:18} {own:6.1f} us {two:8.1f} us {own / two:7.3f}")


if __name__ == "__main__":
    main()
