"""Fit the bundled 64-dimensional Gaussian mixture: one mode a digit of MNIST at 8 x 8.

    python benchmarks/train/mixture.py --data mnist.npz --out solverkit/networks/mixture/mixture.safetensors

``mnist.npz`` holds ``train_x`` (60000, 28, 28) uint8 and ``train_y``: the MNIST of LeCun, Cortes and Burges,
https://yann.lecun.org/exdb/mnist/ (any lossless copy will do). Images are scaled to [-1, 1], padded with
black (-1) to 32 x 32 and averaged over 4 x 4 blocks. Each class gives its share, its mean and its unbiased
covariance. The corners never change, so their covariance is singular; a ridge of 1e-5 (a standard deviation
of 0.4 grey values in 255) on every eigenvalue makes it regular, and keeps the condition numbers between 1e3
and 1e6.

Writes float64 ``weights`` (10,), ``means`` (10, 64), ``eigenvalues`` (10, 64), descending, and ``basis`` (10,
64, 64), whose columns are the eigenvectors.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

RIDGE = 1e-5


def shrink(images: np.ndarray) -> Tensor:
    """(N, 28, 28) bytes to (N, 64) in [-1, 1]: area average of the image in a black 32 x 32 frame."""
    x = torch.from_numpy(images).double().div(127.5).sub(1)
    return avg_pool2d(pad(x, (2, 2, 2, 2), value=-1.0).unsqueeze(1), 4).flatten(1)


def fit(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (64,), eigenvalues (64,), descending, and eigenvectors (64, 64) of one class."""
    mean = x.mean(dim=0)
    covariance = (x - mean).T @ (x - mean) / (len(x) - 1)
    eigenvalues, basis = torch.linalg.eigh(covariance)
    return mean, eigenvalues.clamp(min=0).flip(0) + RIDGE, basis.flip(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    torch.set_num_threads(1)
    data = np.load(args.data)
    x, labels = shrink(data["train_x"]), torch.from_numpy(data["train_y"].astype(np.int64))
    fits = [fit(x[labels == k]) for k in range(10)]
    means, eigenvalues, basis = (torch.stack(v) for v in zip(*fits, strict=True))
    weights = torch.bincount(labels, minlength=10).double() / len(labels)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"weights": weights, "means": means, "eigenvalues": eigenvalues, "basis": basis}
    save_file({k: v.contiguous() for k, v in tensors.items()}, args.out)
    condition = eigenvalues[:, 0] / eigenvalues[:, -1]
    print("condition numbers:", ", ".join(f"{c:.3g}" for c in condition.tolist()))


if __name__ == "__main__":
    main()
