"""Plans that were fitted to a network, as samplers."""

from __future__ import annotations

from collections.abc import Callable

import solverkit as sk

from .auto import auto
from .tuned import tuned


@sk.hookimpl
def register_samplers(register: Callable[..., None]) -> None:
    register(tuned)
    register(auto)
