"""The clock of a system: one time u in [0, 1] for all components, whatever each one's network is told.

u is the process's own time over its end: t of flows and continuous VP, the timestep of discrete VP over the last, and of VE
and EDM the place in log sigma, sigma = sigma_min (sigma_max / sigma_min)^u (Song et al. 2021, eq. 30; GDSS).
"""

from __future__ import annotations

import math

from ..process.level import FLOW_FRAME, Level, from_ratio, to_ratio
from ..process.schedule import VE, Flow, Schedule


def clock(schedule: Schedule, ratio: float) -> float:
    """u of sigma / alpha; may be below 0 under VE's sigma_min. 0 at noise level 0 is said by the level itself."""
    if isinstance(schedule, Flow):
        return from_ratio(ratio, FLOW_FRAME)
    if isinstance(schedule, VE):
        return math.log(ratio / schedule.sigma_min) / _span(schedule)
    return schedule.time(ratio) / schedule.time(schedule.ratio_max)


def ratio_at(schedule: Schedule, u: float) -> float:
    """sigma / alpha at u: the inverse of `clock`."""
    if isinstance(schedule, Flow):
        return to_ratio(u, FLOW_FRAME)
    if isinstance(schedule, VE):
        return schedule.sigma_min * math.exp(u * _span(schedule))
    return schedule.ratio_max if u >= 1 else schedule.ratio(u * schedule.time(schedule.ratio_max))


def level_at(schedule: Schedule, u: float | None) -> Level:
    """The level at u in the schedule's frame; None is noise level 0."""
    return schedule.level(0.0 if u is None else ratio_at(schedule, u))


def place(schedule: Schedule, level: Level) -> float | None:
    """u of a level; None at noise level 0, which every clock reaches last."""
    return None if level == 0 else clock(schedule, level.ratio)


def earliest(schedule: Schedule) -> float:
    """The smallest u that the network was trained on."""
    return clock(schedule, schedule.ratio_min)


def _span(schedule: VE) -> float:
    return math.log(schedule.sigma_max / schedule.sigma_min) or 1.0
