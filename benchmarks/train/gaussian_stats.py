"""The bundled Gaussian statistics: solverkit/networks/*/gaussian_stats.safetensors.

    python benchmarks/train/gaussian_stats.py --data mnist.npz

The file holds `train_x` (60000, 28, 28) uint8. `mnist` and `mnist-flow`: mean and 256 directions of the training images,
and the network's profile along 64 trajectories (7808 evaluations). `mixture`: its exact moments, 256 trajectories. Both
networks are unconditional here (the null class).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

import solverkit as sk
from solverkit.gaussian.files import FILE
from solverkit.problems import mixture

NETWORKS = Path(sk.__file__).parent / "networks"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    images = torch.from_numpy(np.load(parser.parse_args().data)["train_x"]).unsqueeze(1)
    target = mixture()
    values, vectors = torch.linalg.eigh(target.target.covariance)
    mean = target.target.mean.reshape(target.target.shape)
    exact = sk.GaussianStats(mean, vectors.T.flip(0), values.flip(0), 0.0, None, {"source": "exact moments"})
    exact.measured(target, samples=256).save(NETWORKS / "mixture" / FILE)
    stats = sk.GaussianStats.from_data(images, rank=256).with_provenance(data="MNIST, 60000 training images")
    for name in ("mnist", "mnist-flow"):
        start = time.perf_counter()
        measured = stats.measured(sk.load(name), samples=64)
        assert measured.profile is not None
        print(f"{name}: {measured.profile.nfe} evaluations, {time.perf_counter() - start:.0f} s; {measured}")
        measured.save(NETWORKS / name / FILE)


if __name__ == "__main__":
    main()
