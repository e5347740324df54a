"""Langevin steps in a metric against isotropic ones: on the digits mixture at one level, and as a corrector on `mnist`.

    python benchmarks/lm_langevin.py mixture
    python benchmarks/lm_langevin.py mnist       # four runs of 1000 samples, and docs/lm-langevin.png

On the mixture: 4000 true samples, noised to the level and shrunk to 0.8 of their spread; the Fréchet distance to the exact
moments of the level after some steps, at the best SNR of a sweep. NFE counts finite differences.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

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


CORRECTORS = {
    "langevin, snr 0.1": {"corrector": "langevin", "snr": 0.1},
    "langevin, snr 0.2": {"corrector": "langevin", "snr": 0.2},
    "Gaussian metric, snr 0.1": {"corrector": "lm-langevin:metric=gaussian,stats=mnist,snr=0.1"},
    "Gaussian metric, snr 0.2": {"corrector": "lm-langevin:metric=gaussian,stats=mnist,snr=0.2"},
}


def on_mnist(samples: int, steps: int) -> None:
    net, features, statistics = sk.load("mnist"), load_features(), load_statistics()
    figure, axes = plt.subplots(len(CORRECTORS), 12, figsize=(9, 0.85 * len(CORRECTORS)))
    for (name, options), row in zip(CORRECTORS.items(), axes):
        x = torch.cat([
            sk.sample(net, "pc", steps=steps, grid="trailing", num_samples=250, seed=i, predictor="ancestral", **options).x
            for i in range(samples // 250)
        ])  # fmt: skip
        print(f"{name}: Fréchet distance {frechet_distance(*moments(features.features(x)), *statistics):.2f}", flush=True)
        for axis, picture in zip(row, x):
            axis.imshow(picture[0].clamp(-1, 1), cmap="gray", vmin=-1, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    figure.subplots_adjust(left=0.2, right=0.995, top=0.99, bottom=0.01, wspace=0.05, hspace=0.05)
    figure.savefig(Path(__file__).parents[1] / "docs" / "lm-langevin.png", dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("on", choices=("mixture", "mnist"))
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    if arguments.on == "mixture":
        for s in (0.3, 0.1):
            on_mixture(s)
    else:
        on_mnist(arguments.samples, arguments.steps)
