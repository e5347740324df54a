"""docs/control.png: constrained and guided runs of the bundled digits, on pictures that the network drew itself.

    python benchmarks/control_pictures.py --data mnist.npz

The file holds `train_x` (N, 28, 28) uint8 and `train_y` (N,): a classifier of noisy digits is trained on it first.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import solverkit as sk
from solverkit import constraints, guidance
from solverkit.bench.features import load_features

OUT = Path(__file__).parents[1] / "docs" / "control.png"
N = 6


def sampled(denoiser: object, sampler: str = "ddpm", nfe: int = 60, seed: int = 3, **options: object) -> torch.Tensor:
    run = {"nfe": nfe} if sampler != "repaint" else {"steps": nfe}
    return sk.sample(denoiser, sampler, shape=(N, 1, 28, 28), seed=seed, **run, **options).x


class NoisyClassifier(nn.Module):
    """log p(digit | x, s) for x = x_0 + s eps (B, 1, 28, 28), s (B,): it sees x / sqrt(1 + s^2) and log s as a channel."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(2, 32, 3, 2, 1), nn.GroupNorm(4, 32), nn.SiLU(),
            nn.Conv2d(32, 64, 3, 2, 1), nn.GroupNorm(8, 64), nn.SiLU(),
            nn.Conv2d(64, 128, 3, 2, 1), nn.GroupNorm(8, 128), nn.SiLU(), nn.Flatten(), nn.Linear(128 * 16, 10),
        )  # fmt: skip

    def forward(self, x: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        s = s.to(x).reshape(-1, 1, 1, 1)
        told = (s.log() / 4).expand(len(x), 1, 28, 28)
        return self.net(torch.cat([x / (1 + s**2).sqrt(), told], 1)).log_softmax(1)


def train(data: str, steps: int = 1200) -> NoisyClassifier:
    """Cross-entropy at levels log-uniform from 0.02 to 50."""
    torch.manual_seed(0)
    file = np.load(data)
    x = (torch.from_numpy(file["train_x"]).float() / 127.5 - 1).unsqueeze(1)
    y = torch.from_numpy(file["train_y"]).long()
    net = NoisyClassifier()
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    for step in range(steps):
        rows = torch.randint(len(x), (128,))
        s = (torch.rand(128) * np.log(50 / 0.02) + np.log(0.02)).exp()
        noisy = x[rows] + s.reshape(-1, 1, 1, 1) * torch.randn(128, 1, 28, 28)
        log_p = net(noisy, s)
        loss = nn.functional.nll_loss(log_p, y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 200 == 199:
            right = float((log_p.argmax(1) == y[rows])[s < 1].float().mean())
            print(f"step {step + 1}: loss {loss.item():.3f}, right below s = 1: {right:.3f}", flush=True)
    return net.eval().requires_grad_(False)


Group = tuple[str, torch.Tensor, list[tuple[str, torch.Tensor]]]  # what is known, its pictures, and the runs


def groups(noisy: NoisyClassifier) -> list[Group]:
    """What is known of the pictures, and what the runs make of it."""
    net = sk.load("mnist")
    digits = torch.cat([sk.sample(sk.load("mnist", labels=k), "unipc", nfe=20, num_samples=1, seed=k).x for k in range(N)])
    half, lines = torch.zeros(28, 28), torch.zeros(28, 28)
    half[:, :14] = 1
    lines[::3] = 1
    made: list[Group] = [("drawn by the network (digits 0 to 5)", digits, [])]
    for name, mask in (("left half known", half), ("every third line known", lines)):
        known = constraints.inpaint(digits, mask)
        runs = [("replacement, ddpm", sampled(net, constrain=known))]
        if mask is half:
            many = {"jump_length": 5, "jumps": 4}
            runs.append(("repaint, 25 steps, 4 jumps of 5", sampled(net, "repaint", 25, constrain=known, **many)))
        made.append((name, digits * mask + (mask - 1), runs))
    pool = torch.zeros(49, 784)
    for i in range(49):
        patch = torch.zeros(28, 28)
        patch[4 * (i // 7) : 4 * (i // 7) + 4, 4 * (i % 7) : 4 * (i % 7) + 4] = 0.25
        pool[i] = patch.flatten()
    means = digits.flatten(1) @ pool.T
    observed = sampled(net, constrain=constraints.observe(pool, means))
    made.append(("means of 4 x 4 known", (means @ pool).reshape(-1, 1, 28, 28), [("orthogonal replacement", observed)]))
    blur = torch.ones(1, 1, 9, 9) / 81

    def blurred(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(x, blur.to(x), padding=4)

    sharp = guidance.posterior(net, blurred, blurred(digits), noise_std=0.02, scale=3.0)
    made.append(("blurred, 9 x 9", blurred(digits), [("posterior, linear", sampled(sharp))]))
    outlines = sampled(guidance.posterior(net, torch.abs, digits.abs(), scale=4.0))
    made.append(("absolute values known", digits.abs(), [("posterior, non-linear", outlines)]))
    classifier = load_features()

    def is_seven(x: torch.Tensor) -> torch.Tensor:
        return classifier(x).log_softmax(1)[:, 7:8]

    def log_prob(x: torch.Tensor, level: sk.Level) -> torch.Tensor:
        return noisy(x.float(), torch.full((len(x),), float(level)))[:, 7]

    seven = guidance.posterior(net, is_seven, torch.zeros(1, 1), scale=12.0, noise_std=0.5)
    free = sk.load("mnist", labels=7, guidance=3.0)
    runs = [
        ("a clean classifier's, by the posterior", sampled(seven)),
        ("a noisy classifier's, scale 3", sampled(guidance.classifier(net, log_prob, scale=3.0))),
        ("classifier-free, weight 3, dpmpp-2m, 20", sampled(free, "dpmpp-2m", 20)),
    ]
    made.append(("a seven is asked for", digits[:0], runs))
    return made


def draw(made: list[Group]) -> None:
    """A block a group: what is known in bold, the runs below it."""
    row, gap, below = 0.85, 0.14, 0.62
    lines: list[tuple[float, str, torch.Tensor, bool]] = []
    top = 0.05
    for name, known, runs in made:
        for label, pictures, first in [(name, known, True), *((label, x, False) for label, x in runs)]:
            lines.append((top, label, pictures, first))
            top += row if len(pictures) else 0.35
        top += gap
    total = top + below
    figure = plt.figure(figsize=(8.2, total))
    for top, label, pictures, first in lines:
        height = row if len(pictures) else 0.35
        bottom = 1 - (top + height) / total
        figure.text(
            0.008 if first else 0.03, bottom + 0.5 * height / total, label, fontsize=9.5 if first else 9, va="center",
            fontweight="bold" if first else "normal",
        )  # fmt: skip
        for k, picture in enumerate(pictures):
            axis = figure.add_axes((0.385 + 0.102 * k, bottom, 0.098, 0.8 / total))
            axis.imshow(picture[0].detach().clamp(-1, 1), cmap="gray", vmin=-1, vmax=1)
            axis.set_axis_off()
    caption = (
        "Bold: what is known; below it, runs of the bundled mnist (no class) that know it, from the noise of seed 3: "
        "ddpm\nwith 60 network evaluations where nothing else is said. Six samples, none chosen, failures as they came. "
        "Black is -1,\nwhite 1; what is unknown is black."
    )
    figure.text(0.008, 0.06 / total, caption, fontsize=8, color="#555555", va="bottom")
    figure.savefig(OUT, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    draw(groups(train(parser.parse_args().data)))
    print(OUT)


if __name__ == "__main__":
    main()
