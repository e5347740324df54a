"""Samplers of a posterior that are no denoiser around a denoiser: they need a measurement, sk.inverse.measured."""

from __future__ import annotations

from collections.abc import Callable

import solverkit as sk

from .daps import daps
from .dps import dps
from .red_diff import red_diff


@sk.hookimpl
def register_samplers(register: Callable[..., None]) -> None:
    for fn in (dps, daps, red_diff):
        register(fn)
