"""Grids that were made for token models, registered through the same hook as everyone else's."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..process.level import FLOW_FRAME, from_ratio, to_ratio
from ..process.schedule import Schedule
from ..registry.hookspecs import hookimpl


@hookimpl
def register_grids(register: Callable[..., None]) -> None:
    register("uniform", uniform, reference="Ou et al. 2025, arXiv 2406.03736")
    register("cosine", cosine, reference="Chang et al. 2022, arXiv 2202.04200")


def uniform(schedule: Schedule, n: int) -> list[float]:
    """Even steps in the model's own time, from its noisiest level to 0."""
    top = schedule.time(schedule.ratio_max)
    inner = [schedule.ratio(top * (1 - i / n)) for i in range(1, n)]
    return [schedule.ratio_max, *(r for r in inner if 0 < r < schedule.ratio_max), 0.0]


def cosine(schedule: Schedule, n: int) -> list[float]:
    """Noise share cos(pi i / 2n) of the largest: few tokens in the first steps, many in the last (made for MaskGIT)."""
    top = from_ratio(schedule.ratio_max, FLOW_FRAME)
    shares = (top * math.cos(math.pi / 2 * i / n) for i in range(1, n))
    return [schedule.ratio_max, *(to_ratio(m, FLOW_FRAME) for m in shares), 0.0]
