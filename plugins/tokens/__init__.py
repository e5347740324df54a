"""Decoders: samplers of token models, masked and of uniform noise."""

from __future__ import annotations

from collections.abc import Callable

import solverkit as sk

from .ancestral import ancestral, euler, tau
from .blocks import blocks
from .chosen import choose_then_sample, sample_then_choose
from .first_hitting import first_hitting
from .p2 import p2
from .remask import dfm_corrector, remdm
from .thresholds import block_refinement, entropy_bounded, threshold
from .trapezoidal import theta_trapezoidal
from .uniform import gibbs, posterior

DECODERS = (
    ancestral, euler, tau, first_hitting, theta_trapezoidal, remdm, dfm_corrector, p2, choose_then_sample,
    sample_then_choose, blocks, threshold, entropy_bounded, block_refinement, posterior, gibbs,
)  # fmt: skip


@sk.hookimpl
def register_decoders(register: Callable[..., None]) -> None:
    for fn in DECODERS:
        register(fn)
