"""Measure a trained network and write its model card: README.md and samples.png beside the weights.

    python benchmarks/train/card.py --network solverkit/networks/mnist --data mnist.npz

Draws class-conditional samples (labels 0, 1, ..., 9, 0, 1, ...) with `--nfe` evaluations of dpmpp-2m, checks how far they
are from the converged solution of the ODE on 64 of them, and states the Fréchet distance of 5000 samples to the test set in
the features of the bundled classifier, beside the distance of 5000 training images.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

import solverkit as sk
from solverkit.bench.features import load_features, load_statistics
from solverkit.bench.frechet import frechet_distance, moments

CARD = """# {name}

A class-conditional `UNet2DModel` ({parameters:,} parameters, 1x28x28, images in [-1, 1]) with a null class (label 10) for
classifier-free guidance. {objective}

    import solverkit as sk
    x = sk.sample(sk.load("{name}", labels=7), "dpmpp-2m", nfe=10, num_samples=16).x      # or guidance=2.0

![100 samples]({sheet})

| | |
|---|---|
| data | MNIST (LeCun, Cortes, Burges), the 60000 training images; the images are not part of this repository |
| training | {steps} steps of {batch} images ({epochs:.1f} epochs), AdamW, lr {learning_rate}, {seconds} s on one CPU core |
| loss, last 500 steps | {loss_last_500} ({weighting}) |
| samples | {count} of {nfe} evaluations (dpmpp-2m, {grid} grid); RMS distance to the converged solution {converged:.4f} |
| **Fréchet distance of {count} samples to the test set** | **{fd:.2f}** |
| the same for {count} training images | {fd_train:.2f} |
| samples that the classifier reads as the digit asked for | {accuracy:.1%} |

The Fréchet distance is in the 64 features of `networks/mnist-classifier` (99.45 % test accuracy) against 10000 test images.
It depends on the number of samples: compare it only with figures for {count}. Made by `benchmarks/train/mnist.py` and
`benchmarks/train/card.py`. Licence of the weights: Apache-2.0.
"""
OBJECTIVES = {
    "epsilon": "It predicts epsilon on 1000 discrete linear betas (1e-4 to 0.02) and takes float timesteps in 0..999.",
    "flow": "It predicts the velocity eps - x_0 on the linear path and is told 1000 t, t in (0, 1].",
}
WEIGHTING = {"epsilon": "weighted by sigma / alpha within [1, 25]", "flow": "not weighted"}


def draw(folder: Path, labels: torch.Tensor, nfe: int, grid: str, seeds: list[int]) -> torch.Tensor:
    denoiser = sk.load(folder, labels=labels)
    return sk.sample(denoiser, "dpmpp-2m", nfe=nfe, grid=grid, num_samples=len(labels), seed=seeds).x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--network", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--nfe", type=int, default=25)
    parser.add_argument("--grid", default="trailing", help="trailing for the epsilon network, flow for the other")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    features, (mean, covariance) = load_features(), load_statistics()
    images = np.load(args.data)["train_x"]
    pick = np.random.default_rng(0).choice(len(images), args.count, replace=False)
    train = torch.from_numpy(images[pick]).float().div(127.5).sub(1).unsqueeze(1)
    fd_train = frechet_distance(*moments(features.features(train)), mean, covariance)

    labels = torch.arange(args.count) % 10
    batches, start = [], time.perf_counter()
    for i in range(0, args.count, 100):
        batches.append(
            draw(args.network, labels[i : i + 100], args.nfe, args.grid, list(range(i, min(i + 100, args.count))))
        )
        print(f"{i + 100} of {args.count}, {time.perf_counter() - start:.0f} s", flush=True)
    x = torch.cat(batches)
    fd = frechet_distance(*moments(features.features(x.clamp(-1, 1))), mean, covariance)
    accuracy = float((torch.cat([features(b.clamp(-1, 1)).argmax(1) for b in x.split(500)]) == labels).float().mean())
    fine = draw(args.network, labels[:64], 8 * args.nfe, args.grid, list(range(64)))
    converged = float((fine - x[:64]).square().mean().sqrt())

    sheet = torch.cat([torch.cat(list(row[:, 0].clamp(-1, 1)), dim=1) for row in x[:100].split(10)]).numpy()
    plt.imsave(args.network / "samples.png", np.kron(sheet, np.ones((2, 2))), cmap="gray", vmin=-1, vmax=1)
    record = json.loads((args.network / "training.json").read_text())
    net = sk.load(args.network, labels=0).net  # type: ignore[attr-defined]
    (args.network / "README.md").write_text(
        CARD.format(
            name=args.network.name,
            parameters=sum(p.numel() for p in net.parameters()),
            sheet="samples.png",
            epochs=record["images_seen"] / len(images),
            count=args.count,
            nfe=args.nfe,
            grid=args.grid,
            converged=converged,
            fd=fd,
            fd_train=fd_train,
            accuracy=accuracy,
            weighting=WEIGHTING[record["objective"]],
            **{**record, "objective": OBJECTIVES[record["objective"]]},
        )
    )
    print(
        f"Fréchet distance {fd:.3f} (training images {fd_train:.3f}), accuracy {accuracy:.4f}, converged to {converged:.4f}"
    )


if __name__ == "__main__":
    main()
