"""Few-step students and flow maps: one answer is nearly a sample, and a handful of levels is a run."""

from __future__ import annotations

from collections.abc import Callable

import solverkit as sk

from .flow_map import flow_map
from .renoise import renoise
from .resshift import resshift
from .tables import FROM_THE_TOP, TABLES
from .tcd import tcd


@sk.hookimpl
def register_samplers(register: Callable[..., None]) -> None:
    for fn in (renoise, tcd, flow_map, resshift):
        register(fn)


@sk.hookimpl
def register_grids(register: Callable[..., None]) -> None:
    for name, (fn, reference) in TABLES.items():
        register(name, fn, reference=reference, from_the_top=name in FROM_THE_TOP)
