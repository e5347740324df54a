"""Analytical teleportation: Gaussian statistics in the place of the first steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import solverkit as sk

from .exponential import gaussian_exponential
from .teleport import prepare, teleport

WANG_2024 = "Wang and Vastola 2024, arXiv 2412.09726"


def _order(options: dict[str, Any]) -> int:
    return int(options["order"])


@sk.hookimpl
def register_samplers(register: Callable[..., None]) -> None:
    unit = {"stats": "isotropic:variance=0.8"}  # in any dimension: what the proofs run on
    register(
        "teleport",
        teleport,
        reference=WANG_2024,
        restarts=False,
        informed=True,
        prepare=prepare,
        option_examples=({"stats": "mixture", "skip_to": 4.0, "rank": 8},),
        variants=(
            {**unit, "skip_to": 4.0},
            {**unit, "skip_to": 4.0, "solver": "heun", "allocation": "keep"},
            {**unit, "skip_to": "30%", "solver": "ddpm", "tail": "log-snr", "jump": "noise"},
        ),
    )
    register(
        "gaussian-exponential",
        gaussian_exponential,
        order=_order,
        order_options={"lower_order_final": False, "start": math.inf},
        multistep=True,
        reference=WANG_2024,
        restarts=False,
        informed=True,
        prepare=prepare,
        option_examples=({**unit, "tail": "karras"},),
        variants=({**unit}, {**unit, "order": 2, "residual": "denoised"}, {**unit, "start": math.inf, "order": 2}),
    )
