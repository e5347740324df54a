"""Draws of a system: of each component in its space, and belonging to sample, component, interval and node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..run.noise import SampleNoise
from .model import JointDenoiser

APART = 2**48  # between the ordinals of two components: no interval sees that many draws

Draw = Callable[[int, float, float], Tensor]


def component_draws(
    joint: JointDenoiser, seeds: Sequence[int], mask: Tensor | None, dtype: torch.dtype, device: torch.device
) -> Mapping[str, Draw]:
    """draw(ordinal, s, t) -> standard normal noise (B, *shape) of each component's space, zero where there is no node.

    Args:
        joint: Of these samples (`rows`).
        seeds: One key a sample.
        mask: (B, N), or None.
        dtype, device: Of the draws.
    """
    keys = None if joint.keys is None else joint.keys.to(device).expand(len(seeds), -1)

    def of(number: int, name: str) -> Draw:
        part = joint.components[name]
        plain = SampleNoise(seeds, part.space.numbers(part.shape), dtype, device)

        def draw(ordinal: int, s: float = 0.0, t: float = 0.0) -> Tensor:
            return part.space.project(part.space.place(plain(ordinal + number * APART, s, t), keys), mask)

        return draw

    return {name: of(number, name) for number, name in enumerate(joint.components)}
