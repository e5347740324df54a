"""Samplers of GDSS for systems of components: S4, and the predictor-corrector with a temperature."""

from __future__ import annotations

from collections.abc import Callable

import solverkit as sk

from .gdss_pc import gdss_pc
from .s4 import s4


@sk.hookimpl
def register_samplers(register: Callable[..., None]) -> None:
    for fn in (s4, gdss_pc):
        register(fn)
