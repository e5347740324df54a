"""Evaluations of many steps at once: a plan run by sweeps over a window, instead of one evaluation after the other."""

from __future__ import annotations

from collections.abc import Callable

import solverkit as sk

from .parallel import parallel


@sk.hookimpl
def register_samplers(register: Callable[..., None]) -> None:
    register(parallel)
