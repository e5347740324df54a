"""What a jump costs beside one evaluation of the network, in one interleaved run.

    python benchmarks/jump_cost.py

Prints the median of the ratio (jump over evaluation) for the bundled networks, 16 samples, rank 256, and what
rank 256 at 4 x 128 x 128 takes in memory and time.
"""

from __future__ import annotations

import statistics
import time

import torch

import solverkit as sk


def seconds(fn: object) -> float:
    start = time.perf_counter()
    fn()  # type: ignore[operator]
    return time.perf_counter() - start


def main() -> None:
    for name in ("mnist", "mnist-flow"):
        net, stats = sk.load(name), sk.GaussianStats.load(name)
        grid = sk.make_grid("karras", net.schedule, 10)
        x = torch.randn(16, 1, 28, 28) * float(grid[2])
        with torch.no_grad():
            ratios = [
                seconds(lambda: stats.transport(x, grid[2], grid[5])) / seconds(lambda: net(x, grid[2])) for _ in range(20)  # noqa: B023
            ]
        print(f"{name}: {statistics.median(ratios[5:]):.4f} of an evaluation")
    shape = (4, 128, 128)
    stats = sk.GaussianStats(torch.zeros(shape), torch.eye(256, 4 * 128 * 128), torch.linspace(9, 1, 256), 0.1)
    held = sum(v.numel() * v.element_size() for v in (stats.mean, stats.vectors, stats.values))
    schedule = sk.EDM()
    x = 80 * torch.randn(1, *shape)
    took = statistics.median(seconds(lambda: stats.transport(x, schedule.at(80.0), schedule.at(5.0))) for _ in range(9))
    print(f"rank 256 at 4 x 128 x 128: {held / 1e6:.1f} MB, {1000 * took:.0f} ms for one sample")


if __name__ == "__main__":
    main()
