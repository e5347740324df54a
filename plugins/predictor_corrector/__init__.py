"""Predictor-corrector samplers of Song et al. 2021 and what belongs to them: reverse SDEs, adaptive ODE, Metropolis."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import solverkit as sk
from solverkit.process.schedule import Schedule

from .metropolis import mala
from .ode import rk45
from .repaint import repaint
from .sampler import ncsn, pc, pc_ve, pc_vp, reverse_sde

SONG_2021 = "Song et al. 2021, arXiv 2011.13456"


def _pc_order(options: dict[str, Any]) -> int | None:
    quiet = options["corrector"] == "none" and options["predictor"] == "probability-flow"
    return 1 if quiet and not options["published"] else None


@sk.hookimpl
def register_samplers(register: Callable[..., None]) -> None:
    register(
        "pc",
        pc,
        order=_pc_order,
        linear=lambda options: options["corrector"] in ("annealed-langevin", "none"),
        reference=SONG_2021,
        variants=(
            {"corrector": "none"},
            {"predictor": "euler-maruyama", "corrector": "none"},
            {"predictor": "ancestral", "corrector": "annealed-langevin", "snr": 0.1, "n_steps": 2},
            {"predictor": "probability-flow", "corrector": "none"},
            {"predictor": "dpmpp-2m", "sequence": "predictor-first"},
            {"predictor": "heun", "corrector": "none"},
            {"predictor": "unipc:order=2"},
            {"predictor": "none", "n_steps": 2},
        ),
    )
    register("pc-ve", pc_ve, linear=False, reference=SONG_2021)
    register("pc-vp", pc_vp, reference=SONG_2021)
    register("ncsn", ncsn, reference="Song and Ermon 2019, arXiv 1907.05600")
    register(
        "reverse-sde",
        reverse_sde,
        order=lambda options: 1 if options["flow_share"] == 1 else None,
        reference="Huang et al. 2021, arXiv 2106.02808",
        variants=({"flow_share": 1.0}, {"flow_share": 0.5}),
    )
    register(
        "repaint",
        repaint,
        restarts=False,
        reference="Lugmayr et al. 2022, arXiv 2201.09865",
        variants=({"inner": "dpmpp-2m", "jump_length": 3, "jumps": 2}, {"inner": "ddim", "jumps": 1, "jump_length": 4}),
    )
    register("mala", mala, traceable=False, reference="Alain and Bengio 2014, arXiv 1211.4246")
    register("rk45", rk45, traceable=False, reference="Dormand and Prince 1980; Song et al. 2021, section 4.3")


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
