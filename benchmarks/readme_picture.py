"""The picture of README.md: what the bundled networks draw at ten evaluations, above the report of `solverkit bench`.

solverkit bench && python benchmarks/readme_picture.py solverkit-bench/report.png docs/bench.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

import solverkit as sk

ROWS = (("mnist", "trailing"), ("mnist-flow", "flow:shift=3"))


def strip(model: str, grid: str, count: int = 20) -> torch.Tensor:
    labels = torch.arange(count) % 10
    x = sk.sample(sk.load(model, labels=labels), "unipc", nfe=10, grid=grid, num_samples=count).x
    return torch.cat(list(x[:, 0].clamp(-1, 1)), dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    report = plt.imread(args.report)
    height, width = report.shape[:2]
    figure = plt.figure(figsize=(width / 150, height / 150 + 2.4), dpi=110)
    grid = figure.add_gridspec(3, 1, height_ratios=[1.0, 1.0, height / 150 * 0.9], hspace=0.12)
    for row, (model, name) in enumerate(ROWS):
        axis = figure.add_subplot(grid[row])
        axis.imshow(strip(model, name).numpy(), cmap="gray", vmin=-1, vmax=1)
        axis.set_title(f"{model}: unipc, 10 network evaluations", fontsize=11, loc="left", pad=3)
        axis.axis("off")
    axis = figure.add_subplot(grid[2])
    axis.imshow(report)
    axis.axis("off")
    figure.savefig(args.out, bbox_inches="tight", pad_inches=0.05)


if __name__ == "__main__":
    main()
