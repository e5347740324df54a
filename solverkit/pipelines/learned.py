"""The learned variance of DDPM's networks: the second half of what they answer (Nichol and Dhariwal 2021, section 3.1).

A plan weighs each draw by the posterior's standard deviation, "small". A network that learned its variance scales the draw.
"""

from __future__ import annotations

import math

import torch

from ..process.level import to_ratio
from .stepper import Draw

KINDS = ("learned", "learned_range")


def scaled(draw: Draw, half: torch.Tensor, kind: str, frame: int) -> Draw:
    """The draws of an evaluation, scaled to the variance that the network answered.

    Args:
        draw: Standard normal draws.
        half: What the network says: with "learned_range" v in [-1, 1] between the logarithms of the posterior's variance
            and of beta (eq. 15 with v = 2 v' - 1); with "learned" the variance itself.
        kind: One of `KINDS`.
        frame: Of the plan's levels.
    """

    def learned(ordinal: int, s: float, t: float) -> torch.Tensor:
        z = draw(ordinal, s, t)
        v, (sigma_s, sigma_t, posterior) = half.to(z), _deviations(to_ratio(s, frame), to_ratio(t, frame))
        if kind == "learned":
            return z * v.clamp(min=0).sqrt() / posterior
        return z * torch.exp(
            (v + 1) / 2 * math.log(sigma_s / sigma_t)
        )  # beta = posterior's variance * (sigma_s / sigma_t)^2

    return learned


def _deviations(r: float, q: float) -> tuple[float, float, float]:
    """sigma at both ends of a step of a VP process from their sigma / alpha, and the posterior's standard deviation."""
    sigma_s, sigma_t = (1.0 if math.isinf(a) else a / math.hypot(1.0, a) for a in (r, q))
    return sigma_s, sigma_t, sigma_t * math.sqrt(1 - (q / r) ** 2)
