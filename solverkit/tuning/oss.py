"""OSS: levels of a first-order run that stays near a converged trajectory, by dynamic programming on the run's own states.

Pei et al. 2025, arXiv 2503.21774, and their released code: after k steps each candidate level keeps one state, the nearest
to the trajectory of all that one more first-order step reaches from the states kept after k - 1 steps.

One state a level is greedy: a state that is farther now may end nearer. It is the global optimum where that cannot be, as
for a Gaussian of one variance about its mean m. There a step takes x - alpha m to c (x - alpha m) with c > 0 and falls
short of the flow, whose states are convex in the level: the largest state is the nearest, and stays so. With several
variances there is no such order, and on a mixture the least error of all choices is lower in places.

Two differences from the released code: one choice of levels for all noises, where it searches each noise by itself; and
exactly k steps to each state, where it lets a state stand for fewer. The paper's amplitude correction is no choice of
levels and is left out.
"""

from __future__ import annotations

from typing import Any

import torch

from ..model.denoiser import require_finite
from .rows import first_order
from .trajectories import Trajectories


def carried(denoiser: Any, trajectories: Trajectories, steps: int) -> dict[int, tuple[int, ...]]:
    """For each n up to `steps` the path of n steps from the first level to the last: its nodes, n + 1 of them.

    About `steps` evaluations a candidate level and noise.

    Args:
        steps: At most the number of levels less 1.

    Raises:
        NonFiniteError: the network answers NaN or inf.
    """
    grid, goal = trajectories.grid, trajectories.states
    last = len(grid) - 1
    kept: dict[int, tuple[torch.Tensor, tuple[int, ...]]] = {0: (trajectories.start, (0,))}
    paths = {}
    for n in range(1, steps + 1):
        nearest: dict[int, tuple[float, torch.Tensor, tuple[int, ...]]] = {}
        for i, (x, path) in sorted(kept.items()):
            if i == last:
                continue
            denoised = torch.as_tensor(denoiser(x, grid[i]), dtype=x.dtype)
            require_finite(denoised, n - 1, grid[i])
            for j in range(i + 1, last + 1):
                reached = first_order(x, denoised, float(grid[i]), float(grid[j]))
                error = float((reached - goal[j]).square().mean())
                if j not in nearest or error < nearest[j][0]:
                    nearest[j] = (error, reached, (*path, j))
        kept = {j: (reached, path) for j, (_, reached, path) in nearest.items()}
        paths[n] = kept[last][1]
    return paths
