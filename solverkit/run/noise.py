"""Draws that belong to a sample and to a place in the run, not to a batch or a generator's history.

Draw number k of sample i is a function of (seed_i, k) alone: Philox, a counter-based generator, keyed by the two. So a
sample comes out the same alone or among 64 others, on any device, and a repeated step draws what it drew before.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence

import numpy as np
import torch

from ..errors import OptionError

PRIOR = 2**62  # the ordinal of the noise that a run starts from; no run makes that many draws

FIXED = 2**40  # the ordinals of draws that belong to a whole run

Draw = Callable[[int, float, float], torch.Tensor]


def sample_seeds(seed: int | Sequence[int], n: int) -> list[int]:
    """One seed a sample, each below 2^64. An int s gives 2^32 s + i, so that sample i of seed 0 is `seed=[i]`.

    Raises:
        OptionError: no integers, a list whose length is not n, or a negative seed.
    """
    if isinstance(seed, torch.Tensor):
        seed = seed.tolist()
    given = [seed] if isinstance(seed, numbers.Integral) else seed
    if not isinstance(given, (list, tuple, range, np.ndarray)) or not all(
        isinstance(s, numbers.Integral) and not isinstance(s, bool) for s in given
    ):
        raise OptionError(f"seed must be an integer, or a list of them, one a sample; got {seed!r}.")
    numbers_given = [int(s) for s in given]
    if isinstance(seed, numbers.Integral):
        numbers_given = [(numbers_given[0] << 32) + i for i in range(n)] if numbers_given[0] >= 0 else numbers_given * n
    seeds = [s % 2**64 if s >= 0 else s for s in numbers_given]
    if len(seeds) != n:
        raise OptionError(f"seed has {len(seeds)} entries for {n} samples; give one int, or one seed a sample.")
    if any(s < 0 for s in seeds):
        raise OptionError(f"seeds must not be negative, got {min(seeds)}.")
    return seeds


class SampleNoise:
    """draw(ordinal, s, t) -> standard normal noise of shape (B, *shape), sample by sample.

    Args:
        seeds: One seed a sample (`sample_seeds`).
        shape: Shape of one sample.
        dtype, device: Of the result; the draw is made in float64 on the host, so every precision sees the same noise.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        shape: Sequence[int],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.seeds, self.shape, self.dtype, self.device = list(seeds), tuple(shape), dtype, device

    def __call__(self, ordinal: int, s: float = 0.0, t: float = 0.0) -> torch.Tensor:
        keys = (np.array([seed, ordinal], dtype=np.uint64) for seed in self.seeds)
        rows = [np.random.Generator(np.random.Philox(key=key)).standard_normal(self.shape) for key in keys]
        return torch.from_numpy(np.stack(rows)).to(device=self.device, dtype=self.dtype)


class Noise:
    """What a sampler receives as `noise`: noise(s, t) is the next draw, for the interval from s to t.

    Pass `noise.draw` to `begin` and `advance` when a wrapper drives an inner plan: inner draws are then numbered along
    with the wrapper's own.
    """

    def __init__(self, draw: Draw) -> None:
        self._draw, self.count = draw, 0

    def __call__(self, s: float, t: float) -> torch.Tensor:
        ordinal, self.count = self.count, self.count + 1
        return self._draw(ordinal, float(s), float(t))

    def fixed(self, number: int = 0) -> torch.Tensor:
        """A draw that is the same whenever it is asked for, apart from those that are counted."""
        return self._draw(FIXED + number, 0.0, 0.0)

    def draw(self, ordinal: int, s: float, t: float) -> torch.Tensor:
        """The same as calling it; an inner plan's own ordinal is replaced by the run's."""
        return self(s, t)
