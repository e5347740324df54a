"""Langevin steps in a metric against isotropic ones: on the digits mixture at one level, and as a corrector on `mnist`.

    python benchmarks/lm_langevin.py mixture
    python benchmarks/lm_langevin.py mnist       # four runs of 1000 samples: Fréchet distances
    python benchmarks/lm_langevin.py picture     # the first twelve of them: docs/lm-langevin.png

On the mixture: 4000 true samples, noised to the level and shrunk to 0.8 of their spread; the Fréchet distance to the exact
moments of the level after some steps, at the best SNR of a sweep. NFE counts finite differences.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from solverkit_plugins.lml.langevin import lm_correct
from solverkit_plugins.predictor_corrector.sampler import correct

import solverkit as sk
from solverkit.bench.features import load_features, load_statistics
from solverkit.bench.frechet import frechet_distance, moments
from solverkit.problems import mixture
from solverkit.run.noise import Noise, SampleNoise, sample_seeds

N = 4000
SNRS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)


Step = Callable[[float, Noise], torch.Tensor]


def on_mixture(s: float) -> None:
    model = mixture()
    target, level = model.target, model.schedule.at(s)
    z = torch.randn(N, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    exact, covariance = target.sample(N, seed=1) + s * z, target.covariance + s * s * torch.eye(64, dtype=torch.float64)
    start = target.mean + 0.8 * (exact - target.mean)

    def distance(x: torch.Tensor) -> float:
        return frechet_distance(*moments(x), target.mean, covariance)

    def report(name: str, nfe: int, step: Step) -> None:
        found = {q: distance(step(q, Noise(SampleNoise(sample_seeds(5, N), (64,), torch.float64)))) for q in SNRS}
        snr = min(found, key=lambda q: found[q])
        print(f"  {name}, NFE {nfe}: {found[snr]:.3f} (snr {snr})", flush=True)

    def isotropic(n: int) -> Step:
        return lambda q, noise: correct(model, start, level, noise, "langevin", n, q)

    def gaussian(n: int) -> Step:
        return lambda q, noise: lm_correct(model, start, level, noise, "mixture", "gaussian", n, q)

    def secant(n: int, probes: int, pooled: bool) -> Step:
        return lambda q, noise: lm_correct(
            model, start, level, noise, None, "secant", n, q, probes=probes, pooled=pooled
        )

    print(f"s = {s}: exact samples {distance(exact):.3f}, start {distance(start):.3f}")
    for n in (1, 2, 4, 8):
        report(f"isotropic, {n} steps", n, isotropic(n))
    for n in (1, 2, 4):
        report(f"gaussian metric, {n} steps", n, gaussian(n))
    for pooled in (False, True):
        for n, probes in ((1, 1), (1, 2), (1, 3), (2, 1)):
            whose = "pooled" if pooled else "own"
            report(f"secant metric, {whose}, {n} steps, {probes} probes", n * (1 + probes), secant(n, probes, pooled))


METRIC = "lm-langevin:metric=gaussian,stats=mnist"
CORRECTORS: dict[str, dict[str, Any]] = {
    "langevin, snr 0.1": {"corrector": "langevin", "snr": 0.1},
    "langevin, snr 0.2": {"corrector": "langevin", "snr": 0.2},
    "lm-langevin, Gaussian metric, snr 0.1": {"corrector": f"{METRIC},snr=0.1"},
    "lm-langevin, Gaussian metric, snr 0.2": {"corrector": f"{METRIC},snr=0.2"},
}
PART = 250  # samples of a seed
SHOWN = 12


def sampled(options: dict[str, Any], steps: int, count: int, seed: int) -> torch.Tensor:
    """The first samples of a seed: ancestral steps on `mnist`, each followed by one corrector step."""
    net = sk.load("mnist")
    run = {"steps": steps, "grid": "trailing", "num_samples": count, "seed": seed, "predictor": "ancestral"}
    return sk.sample(net, "pc", **run, **options).x


def on_mnist(samples: int, steps: int) -> None:
    features, statistics = load_features(), load_statistics()
    for name, options in CORRECTORS.items():
        x = torch.cat([sampled(options, steps, PART, seed) for seed in range(samples // PART)])
        print(f"{name}: Fréchet distance {frechet_distance(*moments(features.features(x)), *statistics):.2f}", flush=True)


def picture(steps: int) -> None:
    """A row a corrector; a column is one starting noise."""
    rows, height = len(CORRECTORS), 4.3
    figure, axes = plt.subplots(rows, SHOWN, figsize=(10.5, height))
    for (name, options), line in zip(CORRECTORS.items(), axes):
        for axis, image in zip(line, sampled(options, steps, SHOWN, 0)):
            axis.imshow(image[0].clamp(-1, 1), cmap="gray", vmin=-1, vmax=1)
            axis.set_axis_off()
        line[0].set_title(name, loc="left", fontsize=9.5, pad=3)
    figure.subplots_adjust(left=0.006, right=0.994, top=0.93, bottom=0.12, wspace=0.04, hspace=0.32)
    caption = (
        f"mnist without a class, {steps} ancestral steps on the trailing grid, each followed by one step of the corrector: "
        f"{2 * steps} network evaluations.\n"
        f"The first {SHOWN} samples of seed 0, none chosen; a column shares its starting noise."
    )
    figure.text(0.006, 0.02, caption, fontsize=8.5, color="#555555", va="bottom")
    figure.savefig(Path(__file__).parents[1] / "docs" / "lm-langevin.png", dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("on", choices=("mixture", "mnist", "picture"))
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    if arguments.on == "mixture":
        for s in (0.3, 0.1):
            on_mixture(s)
    elif arguments.on == "mnist":
        on_mnist(arguments.samples, arguments.steps)
    else:
        picture(arguments.steps)
