"""Classical solvers: Euler, Heun, Runge-Kutta, Adams, DEIS, and the ancestral family."""

from __future__ import annotations

from collections.abc import Callable

import solverkit as sk

from .ancestral import ddim, ddpm, euler_ancestral
from .dpm2 import kdpm2, kdpm2_ancestral
from .euler import euler, heun
from .multistep import adams_bashforth, deis, ipndm, lms
from .pndm import pndm
from .runge_kutta import midpoint, rk4

ONE_STEP = (euler, heun, midpoint, rk4, kdpm2)
MULTISTEP = (adams_bashforth, lms, ipndm, pndm, deis)
STOCHASTIC = (ddim, ddpm, euler_ancestral, kdpm2_ancestral)


@sk.hookimpl
def register_samplers(register: Callable[..., None]) -> None:
    for fn in (*ONE_STEP, *MULTISTEP, *STOCHASTIC):
        register(fn)
