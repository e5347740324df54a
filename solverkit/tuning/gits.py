"""GITS: levels whose first-order jumps leave a converged trajectory least, by dynamic programming.

Chen et al. 2024, arXiv 2405.11326, and their released code: what a jump from level i to level j costs is measured from the
trajectory's own state at i, so the cost of a run is a sum over its jumps, and its least over all choices of levels is found
exactly.
Candidates are the levels of the trajectory; the last of them is 0, where the paper's end at sigma_min.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch

from ..model.denoiser import require_finite
from .rows import first_order
from .trajectories import Trajectories

Cost = Literal["distance", "deviation"]


def jump_costs(denoiser: Any, trajectories: Trajectories, cost: Cost = "distance") -> np.ndarray:
    """(M, M): what the first-order step from level i to level j > i costs; inf elsewhere.

    "distance" is the L2 distance of the state that the jump reaches from the trajectory's, "deviation" how much farther
    than that it lies from the chord between the trajectory's ends (two costs of the released code); means over the noises.
    One evaluation a level above 0 and noise.

    Raises:
        NonFiniteError: the network answers NaN or inf.
    """
    states, levels = [x.flatten(1) for x in trajectories.states], trajectories.grid
    away = _from_chord(states[0], states[-1])
    told = [away(x).mean() for x in states]
    out = np.full((len(levels), len(levels)), np.inf)
    for i, s in enumerate(levels.levels[:-1]):
        x = trajectories.states[i]
        denoised = torch.as_tensor(denoiser(x, s), dtype=x.dtype)
        require_finite(denoised, i, s)
        for j in range(i + 1, len(levels)):
            reached = first_order(x, denoised, float(s), float(levels[j])).flatten(1)
            if cost == "distance":
                out[i, j] = float((reached - states[j]).norm(dim=1).mean())
            else:
                out[i, j] = float(away(reached).mean() - told[j])
    return out


def _from_chord(start: torch.Tensor, end: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Distances (B,) of states (B, D) from the line through start and end (B, D)."""
    along = end - start
    along = along / along.norm(dim=1, keepdim=True)

    def distance(x: torch.Tensor) -> torch.Tensor:
        off = x - start
        return (off - (off * along).sum(1, keepdim=True) * along).norm(dim=1)

    return distance


def cheapest(costs: np.ndarray, steps: int, gamma: float = 1.0) -> dict[int, tuple[int, ...]]:
    """For each n up to `steps` the path of n jumps from 0 to M - 1 of least cost: its nodes, n + 1 of them.

    The cost of a path is c_01 + gamma (c_12 + gamma (c_23 + ...)); gamma above 1 weighs late jumps more. The optimum is
    exact: the best rest of a path from a node does not depend on how the node was reached.

    Args:
        costs: (M, M), used above the diagonal.
        steps: At most M - 1.
    """
    last = len(costs) - 1
    rest = costs[:, last].copy()  # the cost of one jump from each node to the end
    rest[last] = np.inf
    chosen: list[np.ndarray] = []
    paths: dict[int, tuple[int, ...]] = {1: (0, last)}
    for n in range(2, steps + 1):
        total = np.triu(costs, 1) + np.tril(np.full_like(costs, np.inf)) + gamma * rest[None, :]
        chosen.append(total.argmin(1))
        rest = total.min(1)
        path = [0]
        for table in reversed(chosen):
            path.append(int(table[path[-1]]))
        paths[n] = (*path, last)
    return paths
