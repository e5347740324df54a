"""Levenberg-Marquardt-Langevin: the published sampler in closed form; Langevin steps whose metric carries information."""

from __future__ import annotations

from collections.abc import Callable

import solverkit as sk

from .langevin import lm_langevin
from .lml import lml
from .secant import lml_secant


@sk.hookimpl
def register_samplers(register: Callable[..., None]) -> None:
    for fn in (lml, lm_langevin, lml_secant):
        register(fn)
