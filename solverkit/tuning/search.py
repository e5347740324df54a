"""Levels by a compass search over a family with two parameters."""

from __future__ import annotations

import math
from collections.abc import Callable

from .trajectories import angle, level_at


def family(n: int, top: float, last: float, rho: float, frame: int) -> tuple[float, ...]:
    """n levels from `top` to `last`: angles a_i = a_L + (a_0 - a_L) (1 - i / (n - 1))^rho."""
    a_0, a_l = angle(top, frame), angle(last, frame)
    if n == 1:
        return (top,)
    inner = (level_at(a_l + (a_0 - a_l) * (1 - i / (n - 1)) ** rho, frame) for i in range(1, n))
    return (top, *inner)


def compass(
    loss: Callable[[float, float], float], last: float, rho: float, calls: int = 14, smallest: float = 0.04
) -> tuple[float, float, float]:
    """(last, rho, loss) of a local minimum, from a start; `last` moves in log.

    Steps begin at 25 % of `last` and .25 in rho, grow by 1.3 where they help and halve where they do not.
    """
    best, used = loss(last, rho), 1
    steps, at = [0.25, 0.25], [math.log(last), rho]
    while used < calls and max(steps) > smallest:
        for axis in (0, 1):
            for sign in (1, -1):
                if used >= calls:
                    break
                there = list(at)
                there[axis] += sign * steps[axis]
                value, used = loss(math.exp(there[0]), max(there[1], 0.2)), used + 1
                if value < best:
                    best, at, steps[axis] = value, there, steps[axis] * 1.3
                    break
            else:
                steps[axis] /= 2
    return math.exp(at[0]), max(at[1], 0.2), best
