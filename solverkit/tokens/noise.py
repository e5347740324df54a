"""The three draws of a token run: whether something happens, which token, in what order.

Each is a function of the sample's key, the position, the step, and how many draws of its kind the step made before. WHETHER
and WHICH never share a draw, so a probability is not multiplied by a small rate first (Zheng et al. 2024, arXiv 2409.02908:
in float32 that product has too few bits), and a token is drawn in float64 by inversion of its own distribution.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

HAPPENS, TOKEN, ORDER, ONE = 1, 2, 3, 4
START = -1  # the step of draws that a run begins with


class TokenNoise:
    """Draws of samples with their own keys.

    Args:
        seeds: One key a sample (`solverkit.run.noise.sample_seeds`).
        length: Positions L.
        device: Of the results; the draws are made on the host, in float64.
    """

    def __init__(self, seeds: Sequence[int], length: int, device: torch.device | str = "cpu") -> None:
        self.seeds, self.length, self.device = list(seeds), length, torch.device(device)
        self._made: dict[tuple[int, int], int] = {}

    def uniform(self, kind: int, step: int) -> Tensor:
        """The next draw of a kind at a step: uniform in [0, 1), (B, L) float64."""
        ordinal = self._made.get((kind, step), 0)
        self._made[kind, step] = ordinal + 1
        counter = np.array([0, ordinal, kind, step - START], dtype=np.uint64)
        rows = np.empty((len(self.seeds), self.length))
        for row, seed in zip(rows, self.seeds):
            key = np.array([seed >> 64, seed % 2**64], dtype=np.uint64)
            row[:] = np.random.Generator(np.random.Philox(key=key, counter=counter)).random(self.length)
        return torch.from_numpy(rows).to(self.device)

    def happens(self, probability: float | Tensor, step: int, where: Tensor) -> Tensor:
        """(B, L) bool: an event at each position of `where` (B, L), of one probability or of one each; False elsewhere."""
        return (self.uniform(HAPPENS, step) < probability) & where

    def token(self, log_p: Tensor, step: int, where: Tensor) -> Tensor:
        """(B, L) ids drawn from log-probabilities (B, L, V), where `where` (B, L) says; 0 elsewhere."""
        u = self.uniform(TOKEN, step)
        drawn = torch.zeros(u.shape, dtype=torch.long, device=self.device)
        if bool(where.any()):
            drawn[where] = inverted(log_p[where], u[where])
        return drawn

    def one(self, step: int) -> Tensor:
        """(B,) uniform in [0, 1): one number a sample."""
        return self.uniform(ONE, step)[:, 0]

    def order(self, step: int) -> Tensor:
        """(B, L) numbers in [0, 1) whose order is a uniformly random permutation of the positions."""
        return self.uniform(ORDER, step)


def inverted(log_p: Tensor, u: Tensor) -> Tensor:
    """Inverse of the distribution function: the first id whose cumulative probability exceeds u; (N, V), (N,) -> (N,).

    An id of probability 0 is never drawn.
    """
    log_p = log_p.double()
    cumulative = (log_p - log_p.amax(dim=-1, keepdim=True)).exp().cumsum(dim=-1)
    target = u[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True)[:, 0].clamp(max=log_p.shape[-1] - 1)
