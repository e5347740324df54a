"""Classical solvers: Euler, Heun, Runge-Kutta, Adams, DEIS, and the ancestral family."""

from __future__ import annotations

from collections.abc import Callable

import solverkit as sk

from .ancestral import ddim, ddpm, euler_ancestral
from .euler import euler, heun
from .multistep import adams_bashforth, deis, ipndm
from .runge_kutta import midpoint, rk4


@sk.hookimpl
def register_samplers(register: Callable[..., None]) -> None:
    for fn in (euler, heun, midpoint, rk4, adams_bashforth, ipndm, deis, ddim, ddpm, euler_ancestral):
        register(fn)
