"""DPM-Solver, DPM-Solver++ and UniPC: exponential integrators in the log-SNR."""

from __future__ import annotations

from collections.abc import Callable

import solverkit as sk

from .adaptive import dpm_solver_12, dpm_solver_23
from .multistep import dpmpp_2m, dpmpp_3m
from .singlestep import (
    dpm_singlestep,
    dpm_solver_1,
    dpm_solver_2,
    dpm_solver_3,
    dpmpp_2s,
    dpmpp_3s,
    dpmpp_singlestep,
)
from .stochastic import dpmpp_2m_sde, dpmpp_3m_sde
from .two_stage_sde import dpmpp_2s_ancestral, dpmpp_sde
from .unipc import unipc
from .v3 import dpm_solver_v3

SINGLE_STEP = (
    dpm_solver_1, dpm_solver_2, dpm_solver_3, dpmpp_2s, dpmpp_3s, dpmpp_singlestep, dpm_singlestep, dpmpp_sde,
    dpmpp_2s_ancestral,
)  # fmt: skip
MULTISTEP = (dpmpp_2m, dpmpp_3m, dpmpp_2m_sde, dpmpp_3m_sde, unipc, dpm_solver_v3)
ADAPTIVE = (dpm_solver_12, dpm_solver_23)


@sk.hookimpl
def register_samplers(register: Callable[..., None]) -> None:
    for fn in (*SINGLE_STEP, *MULTISTEP, *ADAPTIVE):
        register(fn)
