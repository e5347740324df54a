"""Predictor-corrector samplers of Song et al. 2021 and what belongs to them: reverse SDEs, adaptive ODE, Metropolis."""

from __future__ import annotations

import math
from collections.abc import Callable

import solverkit as sk
from solverkit.process.schedule import Schedule

from .metropolis import mala
from .ode import rk45
from .repaint import repaint
from .sampler import SONG_2021, ncsn, pc, pc_ve, pc_vp, reverse_sde


@sk.hookimpl
def register_samplers(register: Callable[..., None]) -> None:
    for fn in (pc, pc_ve, pc_vp, ncsn, reverse_sde, repaint, mala, rk45):
        register(fn)


def score_sde(schedule: Schedule, n: int, epsilon: float = 1e-3) -> list[float]:
    """n times evenly from T to epsilon T, then 0: the released loop (Song et al. 2021; epsilon is 1e-5 for VE).

    In the network's own time; in log sigma for VE and EDM.
    """
    low, high = getattr(schedule, "sigma_min", None), getattr(schedule, "sigma_max", None)
    times = [1.0 - i * (1 - epsilon) / max(n - 1, 1) for i in range(n)]
    if low is not None and high is not None:
        return [*(low * (high / low) ** t for t in times), 0.0]
    top = schedule.time(schedule.ratio_max)
    ratios = [schedule.ratio(top * t) for t in times]
    ratios[0] = schedule.ratio_max
    return [*(r for r in ratios if not math.isnan(r)), 0.0]


@sk.hookimpl
def register_grids(register: Callable[..., None]) -> None:
    register("score-sde", score_sde, reference=SONG_2021)
