"""Draws that belong to a sample and to a place in the run, not to a batch, a call or a generator's history.

The draw of a sample on an interval is a function of the sample's key, of the interval's ends (as sigma / alpha), and of how
many draws the run made there before. So a sample comes out the same alone or among 64 others, in every frame and on any
device; a repeated step draws what it drew before; and a run in parts draws what the whole run draws, however it is cut.

Philox (Salmon et al. 2011) is the generator: a function of a 128-bit key and a 256-bit counter. The key is (seed, number of
the sample), the counter (block, ordinal, s, t): nothing is hashed, so different places cannot collide.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ..errors import OptionError
from ..process.places import Places, level_bits

LARGEST_SEED = 2**63 - 1

# Ordinals of draws that belong to a whole run or to another purpose; no interval sees that many draws.
PRIOR = 2**62  # the noise that a run starts from
FIXED = 2**40
CONSTRAINT = 2**61  # the draws of a constraint, apart from the sampler's
PROBE = 2**60  # of a divergence
DEQUANTISE = 2**59  # of 8-bit data

Draw = Callable[[int, float, float], torch.Tensor]


def sample_seeds(seed: int | Sequence[int], n: int) -> list[int]:
    """One key a sample: sample i of seed s has the key 2^64 s + i, 0 <= s < 2^63, 0 <= i < 2^64.

    A list gives the keys themselves, so that sample i of seed 0 alone is `seed=[i]`, and of seed s `seed=[2**64 * s + i]`.
    Different keys have different streams.

    Raises:
        OptionError: no integers, a list whose length is not n, or a seed that is negative or too large.
    """
    if isinstance(seed, torch.Tensor):
        seed = seed.tolist()
    single = isinstance(seed, numbers.Integral) and not isinstance(seed, bool)
    given: Any = [seed] if single else seed
    if not isinstance(given, (list, tuple, range, np.ndarray)) or not all(
        isinstance(s, numbers.Integral) and not isinstance(s, bool) for s in given
    ):
        raise OptionError(f"seed must be an integer, or a list of them, one a sample; got {seed!r}.")
    keys = [int(s) for s in given]
    most = LARGEST_SEED if single else (LARGEST_SEED << 64) + 2**64 - 1
    for s in keys:
        if not 0 <= s <= most:
            what = "a seed must be 0 to 2^63 - 1" if single else "the key of a sample must be 0 to 2^127 - 1"
            raise OptionError(f"{what}, not negative and not larger; got {s}.")
    if single:
        keys = [(keys[0] << 64) + i for i in range(n)]
    if len(keys) != n:
        raise OptionError(f"seed has {len(keys)} entries for {n} samples; give one int, or one seed a sample.")
    return keys


class SampleNoise:
    """draw(ordinal, s, t) -> standard normal noise of shape (B, *shape), sample by sample.

    Args:
        seeds: One key a sample (`sample_seeds`).
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
        """Draw number `ordinal` on the interval from s to t."""
        return self._rows(ordinal, s, t, lambda generator: generator.standard_normal(self.shape))

    def uniform(self, ordinal: int, s: float = 0.0, t: float = 0.0) -> torch.Tensor:
        """The same, uniform in [0, 1)."""
        return self._rows(ordinal, s, t, lambda generator: generator.random(self.shape))

    def _rows(self, ordinal: int, s: float, t: float, made: Callable[[np.random.Generator], Any]) -> torch.Tensor:
        counter = np.array([0, ordinal, level_bits(s), level_bits(t)], dtype=np.uint64)
        rows = [made(np.random.Generator(np.random.Philox(key=_key(seed), counter=counter))) for seed in self.seeds]
        return torch.from_numpy(np.stack(rows)).to(dtype=self.dtype).to(device=self.device)

    def part(self, start: int, stop: int) -> SampleNoise:
        """The draws of samples start .. stop - 1."""
        return SampleNoise(self.seeds[start:stop], self.shape, self.dtype, self.device)


def _key(seed: int) -> np.ndarray:
    return np.array([seed >> 64, seed % 2**64], dtype=np.uint64)


class Noise:
    """What a sampler receives as `noise`: noise(s, t) is the next draw on the interval from s to t.

    Pass `noise.draw` to `begin` and `advance` when a wrapper drives an inner plan: their draws then differ.
    """

    def __init__(self, draw: Draw) -> None:
        self._draw, self._places = draw, Places()

    def __call__(self, s: float, t: float) -> torch.Tensor:
        return self._draw(self._places.next(s, t), s, t)

    def fixed(self, number: int = 0) -> torch.Tensor:
        """A draw that is the same whenever it is asked for, apart from those that are counted."""
        return self._draw(FIXED + number, 0.0, 0.0)

    def draw(self, ordinal: int, s: float, t: float) -> torch.Tensor:
        """The same as calling it; an inner plan's own ordinal is replaced by the run's."""
        return self(s, t)
