"""Samplers of policy-gradient codes on flow models: each step a Gaussian transition with a known mean and deviation."""

from __future__ import annotations

from collections.abc import Callable

import solverkit as sk

from .policy import cps, flow_sde


@sk.hookimpl
def register_samplers(register: Callable[..., None]) -> None:
    for fn in (flow_sde, cps):
        register(fn)
