"""Reflection: a step of a strong model down, and one of a weak model up, before each step of a solver."""

from __future__ import annotations

from collections.abc import Callable

import solverkit as sk

from .reflect import reflect


@sk.hookimpl
def register_samplers(register: Callable[..., None]) -> None:
    register(reflect)
