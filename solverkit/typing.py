"""Types of a sampler's signature, for those who annotate theirs.

    def heun(model: Model, x: S, grid: sk.Grid, noise: Noise, s_churn: float = 0.0) -> S: ...

A state is a tensor when the sampler runs and a symbol when it is traced: whatever supports + and - with states and * and /
with floats. `State` says no more than that.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar


class State(Protocol):
    """A state of a run: a tensor (B, ...) when pulled, a symbol when traced."""

    def __add__(self, other: Any, /) -> Any: ...
    def __radd__(self, other: Any, /) -> Any: ...
    def __sub__(self, other: Any, /) -> Any: ...
    def __rsub__(self, other: Any, /) -> Any: ...
    def __mul__(self, other: float, /) -> Any: ...
    def __rmul__(self, other: float, /) -> Any: ...
    def __truediv__(self, other: float, /) -> Any: ...
    def __neg__(self) -> Any: ...


S = TypeVar("S")


class Model(Protocol):
    """model(x, level) -> E[x_0 | x] of the state x at a level, same shape."""

    def __call__(self, x: Any, level: float, /) -> Any: ...


class Noise(Protocol):
    """noise(s, t) -> standard normal noise of the state's shape for the interval from s to t."""

    def __call__(self, s: float, t: float, /) -> Any: ...

    def draw(self, ordinal: int, s: float, t: float, /) -> Any:
        """For `sk.begin` and `sk.advance` of an inner plan."""
        ...
