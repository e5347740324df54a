"""Solvers of the reverse SDE beyond DPM-Solver++, and restarts between two noise levels."""

from __future__ import annotations

from collections.abc import Callable

import solverkit as sk

from .er_sde import er_sde
from .restart import restart
from .sa_solver import sa_solver
from .seeds import seeds_2, seeds_3


@sk.hookimpl
def register_samplers(register: Callable[..., None]) -> None:
    for fn in (sa_solver, er_sde, seeds_2, seeds_3, restart):
        register(fn)
