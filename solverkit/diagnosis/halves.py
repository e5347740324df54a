"""The same network in half precision, and the seconds that it takes."""

from __future__ import annotations

import copy
import statistics
import time
from typing import Any

import torch

from ..model.denoiser import Denoiser
from ..process.level import Level
from .probed import Probed

BATCHES = (1, 4, 16, 64)


def halves(denoiser: Any) -> dict[str, Denoiser]:
    """The network of a denoiser in bfloat16 and float16, by name; none where it is no module of 32 bits or more."""
    if not isinstance(denoiser, Denoiser) or not isinstance(denoiser.net, torch.nn.Module):
        return {}
    own = denoiser.dtype
    if own is None or own.itemsize < 4:
        return {}
    found = {}
    for dtype in (torch.bfloat16, torch.float16):
        half = denoiser.view()
        half.net, half._dtype = torch.nn.Module.to(copy.deepcopy(denoiser.net), dtype), dtype
        half.inputs = {name: _cast(value, dtype) for name, value in denoiser.inputs.items()}
        found[str(dtype).removeprefix("torch.")] = half
    return found


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def seconds(denoiser: Any, level: Level, x: torch.Tensor, dtype: torch.dtype, most: int) -> dict[int, float]:
    """Seconds of one evaluation by rows: the median of three after one that warms up.

    Args:
        denoiser: Of the network.
        level: Where it is asked.
        x: Frame states (B, ...), repeated as needed.
        dtype: Of states.
        most: Rows of the largest batch.
    """
    found = {}
    for rows in [n for n in BATCHES if n <= most]:
        state = x[torch.arange(rows) % len(x)]
        probed = Probed(denoiser, level, rows, dtype)
        probed.denoised(state)
        taken = []
        for _ in range(3):
            start = time.perf_counter()
            probed.denoised(state)  # ends on the host: a device is done
            taken.append(time.perf_counter() - start)
        found[rows] = statistics.median(taken)
    return found
