"""Data on a few values spread evenly over a range, as 8-bit images are: noise of one bin, and the decoder of a bound."""

from __future__ import annotations

import hashlib
import math
import numbers
from collections.abc import Sequence

import torch

from ..errors import OptionError
from ..run.noise import DEQUANTISE, SampleNoise, sample_seeds
from .precision import sent

FINE = 2**16  # places in a bin
CHUNK = 2**14  # values whose bins are in memory at a time
TAIL = 12.0  # standard deviations of the noise beyond which no bin counts: e^-72 of the nearest


def sample_keys(x: torch.Tensor, seed: int | Sequence[int]) -> list[int]:
    """The key of each sample's draws (see `solverkit.run.noise`): the seeds if they are a list, else made of seed and data.

    Data have no number in a run: sample x of seed s has the key 2^64 s + (a digest of x in float32), so that it draws the
    same alone, among others, and in any order. Equal samples draw the same.

    Raises:
        OptionError: as `sample_seeds`.
    """
    keys = sample_seeds(seed, len(x))
    if not (isinstance(seed, numbers.Integral) or (isinstance(seed, torch.Tensor) and seed.ndim == 0)):
        return keys
    return [(key >> 64 << 64) + _digest(row) for key, row in zip(keys, x)]


def _digest(row: torch.Tensor) -> int:
    data = (row.detach().cpu().float() + 0.0).contiguous().numpy().tobytes()  # + 0: minus zero is zero
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def scaled(x: torch.Tensor, bins: int, data_range: tuple[float, float]) -> torch.Tensor:
    """Numbers 0 .. bins - 1 (integers) as data over the range, in float32: low + k (high - low) / (bins - 1)."""
    low, high = data_range
    return low + x.float() * ((high - low) / (bins - 1))


def dequantised(
    x: torch.Tensor,
    bins: int = 256,
    data_range: tuple[float, float] = (-1.0, 1.0),
    seed: int | Sequence[int] = 0,
) -> torch.Tensor:
    """8-bit data with uniform noise of one bin: value k of `bins` becomes low + (k + u) width, u uniform in [0, 1).

    Args:
        x: (B, ...), values low + k (high - low) / (bins - 1) as images are usually scaled, or the integers k (uint8).
        bins, data_range: As for `log_likelihood`.
        seed: An int, or one a sample. A sample's noise depends on its seed and itself alone, never on the batch.

    Returns:
        The data with noise, (B, ...) like x (float32 for integers).

    Raises:
        OptionError: a seed that is none.
    """
    low, high = data_range
    width = (high - low) / bins
    k = x.float() if not x.is_floating_point() else ((x - low) / (high - low) * (bins - 1)).round()
    u = SampleNoise(sample_keys(x, seed), x.shape[1:], torch.float64).uniform(DEQUANTISE)
    u = (u * FINE).floor() / FINE  # so that k + u is exact in float32 and never rounds to k + 1
    return low + (k + sent(u, k.dtype, k.device)) * width


def bin_numbers(flat: torch.Tensor, bins: int, data_range: tuple[float, float]) -> torch.Tensor:
    """k of values (..., float64) that lie on `bins` values spread evenly over the range, long.

    Raises:
        OptionError: data between the values.
    """
    low, high = data_range
    place = (flat - low) / (high - low) * (bins - 1)
    k = place.round().clamp(0, bins - 1)
    if float((place - k).abs().max()) > 1e-3:
        raise OptionError(
            f"method='vlb' is for data on {bins} values spread evenly over {data_range}; these lie between them. Give the "
            "data as they are (no dequantisation), or method='ode'."
        )
    return k.long()


def decoded(noisy: torch.Tensor, k: torch.Tensor, bins: int, data_range: tuple[float, float], std: float) -> torch.Tensor:
    """log P(k | noisy) of each sample, (B,): the posterior of the bins under N(noisy; centre, std^2), all equally likely.

    In chunks of values, and of bins only those that the noise can reach: memory does not grow with either.

    Args:
        noisy: (B, d) float64.
        k: The bins, (B, d) long.
        bins, data_range: Of the data.
        std: Standard deviation of the noise.
    """
    low, high = data_range
    width, total = (high - low) / (bins - 1), []
    reach = min(math.ceil(TAIL * std / width) + 1, bins)
    near = torch.arange(-reach, reach + 1).to(noisy)
    for values, own in zip(noisy.reshape(-1).split(CHUNK), k.reshape(-1).split(CHUNK)):
        bin_ = ((values - low) / width).round().clamp(0, bins - 1)[:, None] + near
        logits = -0.5 * ((values[:, None] - (low + width * bin_)) / std).square()
        logits = logits.masked_fill((bin_ < 0) | (bin_ >= bins), -math.inf)
        here = -0.5 * ((values - (low + width * own.to(values))) / std).square()
        total.append(here - logits.logsumexp(1))
    return torch.cat(total).reshape(noisy.shape).sum(1)


def eight_bit_images(x: torch.Tensor) -> bool:
    """Whether data are taken for 8-bit images: uint8, or batches of one or three channels (B, C, H, W)."""
    return x.dtype == torch.uint8 or (x.ndim == 4 and x.shape[1] in (1, 3))
