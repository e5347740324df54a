"""A denoiser at one level, with its derivatives: products with the Jacobian by finite differences and by autograd."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..errors import DenoiserError
from ..flow.divergence import probe_vectors
from ..model.counting import record_product
from ..process.level import Level
from ..run.noise import SampleNoise

STEP = 0.05  # of a finite difference, in units of s: predictions change over distances of the noise


class Probed:
    """D, J v and J^T u at one level, J = dD/dx; states are asked in parts and answers are float64 on the host.

    Args:
        denoiser: Of the network.
        level: Where it is asked.
        batch: Rows of one call.
        dtype: Of the states that it is given.
    """

    def __init__(self, denoiser: Any, level: Level, batch: int, dtype: torch.dtype) -> None:
        self.denoiser, self.level, self.batch, self.dtype = denoiser, level, batch, dtype
        self.device = torch.device(getattr(denoiser, "device", "cpu"))

    def denoised(self, x: torch.Tensor) -> torch.Tensor:
        """D (B, ...) of frame states (B, ...)."""
        with torch.no_grad():
            parts = [self.denoiser(rows.to(self.dtype).to(self.device), self.level) for rows in x.split(self.batch)]
        return torch.cat(parts).detach().cpu().double()

    def ends(self, x: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
        """D(x + c v), D(x - c v) and c."""
        c = STEP * float(self.level)
        return self.denoised(x + c * v), self.denoised(x - c * v), c

    def forward(self, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """J v (B, ...), by the central difference."""
        above, below, c = self.ends(x, v)
        return (above - below) / (2 * c)

    def pulled(self, x: torch.Tensor, probes: list[torch.Tensor]) -> list[torch.Tensor]:
        """J^T u (B, ...) of each probe u, by one pass backwards each.

        Raises:
            DenoiserError: the network has no gradient with respect to its input.
        """
        found: list[list[torch.Tensor]] = [[] for _ in probes]
        for i in range(0, len(x), self.batch):
            rows = slice(i, i + self.batch)
            with torch.enable_grad():
                state = x[rows].to(self.dtype).to(self.device).detach().requires_grad_(True)
                answer = self.denoiser(state, self.level)
                if not answer.requires_grad:
                    raise DenoiserError("the network's answer has no gradient with respect to its input.")
                for k, u in enumerate(probes):
                    along = (answer * u[rows].to(answer.dtype).to(answer.device)).sum()
                    (back,) = torch.autograd.grad(along, state, retain_graph=k + 1 < len(probes))
                    record_product()
                    found[k].append(back.detach().cpu().double())
        return [torch.cat(parts) for parts in found]


def signs(seeds: list[int], shape: tuple[int, ...], number: int) -> torch.Tensor:
    """Rademacher probe `number` of each sample, (B, *shape) float64."""
    return probe_vectors(SampleNoise(seeds, shape, torch.float64), "rademacher", number)


def inner(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """<a, b> of each sample, (B,)."""
    return (a * b).flatten(1).sum(1)


def largest_gain(probed: Probed, x: torch.Tensor, start: torch.Tensor, rounds: int, autograd: bool) -> float:
    """The largest ||J||_2 at states x (B, ...), by power iteration on J^T J; on J itself without autograd.

    Args:
        probed: The denoiser.
        x: States.
        start: Vectors (B, ...) that it begins with.
        rounds: Of the iteration.
        autograd: Whether J^T can be had.
    """
    v, gain = _unit(start), torch.zeros(len(x), dtype=torch.float64)
    for _ in range(rounds):
        w = probed.forward(x, v * math.sqrt(v[0].numel()))
        gain = w.flatten(1).norm(dim=1) / math.sqrt(v[0].numel())
        if autograd and bool((gain > 0).all()):
            (w,) = probed.pulled(x, [_unit(w)])
        v = _unit(w)
    return float(gain.max())


def _unit(v: torch.Tensor) -> torch.Tensor:
    norms = v.flatten(1).norm(dim=1).clamp_min(1e-300)
    return v / norms.reshape(-1, *[1] * (v.ndim - 1))
