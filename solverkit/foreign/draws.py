"""Where other libraries' code gets its noise: from the keyed draws of a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class BrownianPath:
    """noise_sampler(sigma, sigma_next) -> normalised increments of one Brownian path in sigma, of keyed draws.

    What k-diffusion's Brownian tree is: increments of intervals that share a part share its noise, and those of disjoint
    intervals are independent. The path is made as it is asked for: below the lowest level so far by a fresh increment,
    between two levels by a bridge.

    Args:
        draw: draw(s, t) -> standard normal noise of the interval from s to t, (B, ...).
        named: sigma -> the level that its draws are keyed by.
    """

    def __init__(self, draw: Callable[[float, float], torch.Tensor], named: Callable[[float], float] = float) -> None:
        self._draw, self._named = draw, named
        self._path: list[tuple[float, Any]] = []  # falling levels and W there

    def __call__(self, sigma: Any, sigma_next: Any) -> torch.Tensor:
        """(W(sigma) - W(sigma_next)) / sqrt(|sigma - sigma_next|), (B, ...)."""
        a, b = self._named(float(sigma)), self._named(float(sigma_next))
        high, low = max(a, b), min(a, b)
        if high == low:
            return self._draw(high, low)
        if not self._path:
            self._path.append((high, 0.0))
        fallen = self._at(high) - self._at(low)
        return fallen / (math.sqrt(high - low) * (1 if a > b else -1))  # type: ignore[no-any-return]

    def _at(self, sigma: float) -> Any:
        i = sum(level > sigma for level, _ in self._path)
        if i < len(self._path) and self._path[i][0] == sigma:
            return self._path[i][1]
        if i == 0:  # above all that is known: the path runs on upwards
            w = self._path[0][1] + math.sqrt(sigma - self._path[0][0]) * self._draw(sigma, self._path[0][0])
        elif i == len(self._path):
            level, w_above = self._path[-1]
            w = w_above - math.sqrt(level - sigma) * self._draw(level, sigma)
        else:
            (above, w_above), (below, w_below) = self._path[i - 1], self._path[i]
            share = (above - sigma) / (above - below)
            spread = math.sqrt((above - sigma) * (sigma - below) / (above - below))
            w = (1 - share) * w_above + share * w_below + spread * self._draw(above, sigma)
        self._path.insert(i, (sigma, w))
        return w


class KeyedRandom(TorchFunctionMode):
    """Inside the block, torch.randn_like(x) and torch.randn of a batch's shape are draws of the run.

    Args:
        shape: Of the batch; other draws are left alone.
        draw: draw() -> the next one, (B, ...).
    """

    def __init__(self, shape: torch.Size, draw: Callable[[], torch.Tensor]) -> None:
        super().__init__()
        self.shape, self.draw, self.asleep = tuple(shape), draw, False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.asleep and func in (torch.randn_like, torch.randn) and _shape(func, args, kwargs) == self.shape:
            z, dtype = self.draw(), kwargs.get("dtype")
            return z if dtype is None else z.to(dtype)
        return func(*args, **kwargs)


def _shape(func: Any, args: Any, kwargs: Any) -> tuple[int, ...]:
    if func is torch.randn_like:
        return tuple((args[0] if args else kwargs["input"]).shape)
    size = kwargs.get("size", args)
    return tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else tuple(size)
