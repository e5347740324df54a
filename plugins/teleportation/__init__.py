"""Analytical teleportation: Gaussian statistics in the place of the first steps."""

from __future__ import annotations

from collections.abc import Callable

import solverkit as sk

from .exponential import gaussian_exponential
from .teleport import teleport


@sk.hookimpl
def register_samplers(register: Callable[..., None]) -> None:
    for fn in (teleport, gaussian_exponential):
        register(fn)
