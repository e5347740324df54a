"""docs/control.png: constrained and guided runs of the bundled digits, on pictures that the network drew itself.

    python benchmarks/control_pictures.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import torch

import solverkit as sk
from solverkit import constraints, guidance
from solverkit.bench.features import load_features

OUT = Path(__file__).parents[1] / "docs" / "control.png"
N = 6


def sampled(denoiser: object, sampler: str = "ddpm", nfe: int = 60, seed: int = 3, **options: object) -> torch.Tensor:
    run = {"nfe": nfe} if sampler != "repaint" else {"steps": nfe}
    return sk.sample(denoiser, sampler, shape=(N, 1, 28, 28), seed=seed, **run, **options).x


def main() -> None:
    torch.set_num_threads(2)
    net = sk.load("mnist")
    digits = torch.cat([sk.sample(sk.load("mnist", labels=k), "unipc", nfe=20, num_samples=1, seed=k).x for k in range(N)])
    half = torch.zeros(28, 28)
    half[:, :14] = 1
    lines = torch.zeros(28, 28)
    lines[::3] = 1
    rows: list[tuple[str, torch.Tensor]] = [("drawn by the network", digits)]
    for name, mask in (("left half known", half), ("every third line known", lines)):
        known = constraints.inpaint(digits, mask)
        rows.append((name, digits * mask + (mask - 1)))
        rows.append(("  replacement, ddpm, 60", sampled(net, constrain=known)))
        if mask is half:
            many = {"jump_length": 5, "jumps": 4}
            rows.append(("  repaint, 25 steps", sampled(net, "repaint", 25, constrain=known, **many)))
    pool = torch.zeros(49, 784)
    for i in range(49):
        patch = torch.zeros(28, 28)
        patch[4 * (i // 7) : 4 * (i // 7) + 4, 4 * (i % 7) : 4 * (i % 7) + 4] = 0.25
        pool[i] = patch.flatten()
    means = digits.flatten(1) @ pool.T
    rows.append(("means of 4 x 4 known", (means @ pool).reshape(-1, 1, 28, 28)))
    rows.append(("  orthogonal replacement", sampled(net, constrain=constraints.observe(pool, means))))
    blur = torch.ones(1, 1, 9, 9) / 81

    def blurred(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(x, blur.to(x), padding=4)

    rows.append(("blurred (9 x 9)", blurred(digits)))
    sharp = guidance.posterior(net, blurred, blurred(digits), noise_std=0.02, scale=3.0)
    rows.append(("  posterior, linear", sampled(sharp)))
    rows.append(("absolute values known", digits.abs()))
    rows.append(("  posterior, non-linear", sampled(guidance.posterior(net, torch.abs, digits.abs(), scale=4.0))))
    classifier = load_features()

    def is_seven(x: torch.Tensor) -> torch.Tensor:
        return classifier(x).log_softmax(1)[:, 7:8]

    seven = guidance.posterior(net, is_seven, torch.zeros(1, 1), scale=12.0, noise_std=0.5)
    rows.append(("a classifier's 7", sampled(seven)))
    free = sk.load("mnist", labels=7, guidance=3.0)
    rows.append(("classifier-free 7, weight 3", sampled(free, "dpmpp-2m", 20)))
    figure, axes = plt.subplots(len(rows), N, figsize=(7.5, 0.85 * len(rows)))
    for (label, pictures), line in zip(rows, axes):
        for axis, picture in zip(line, pictures):
            axis.imshow(picture[0].detach().clamp(-1, 1), cmap="gray", vmin=-1, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    figure.subplots_adjust(left=0.32, right=0.995, top=0.995, bottom=0.005, wspace=0.05, hspace=0.05)
    figure.savefig(OUT, dpi=110)
    print(OUT)


if __name__ == "__main__":
    main()
