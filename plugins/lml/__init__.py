"""Levenberg-Marquardt-Langevin: the published sampler in closed form; Langevin steps whose metric carries information."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import solverkit as sk

from .langevin import lm_langevin
from .lml import lml
from .secant import lml_secant

LML_2025 = "arXiv 2505.24222"


def _plain(options: dict[str, Any]) -> bool:
    return options["momentum"] == 0 and not options["released"] and not options["random_angle"]


def _order(options: dict[str, Any]) -> int | None:
    """Of the default solver, where nothing is changed."""
    return 2 if _plain(options) and options["solver"] == "dpmpp-2m" and options["insertion"] != "ddim" else None


@sk.hookimpl
def register_samplers(register: Callable[..., None]) -> None:
    register(
        "lml",
        lml,
        order=_order,
        order_options={"solver": "dpmpp-2m:lower_order_final=false"},
        linear=_plain,
        restarts=False,  # the last direction is a memory that does not fade with the step
        reference=LML_2025,
        variants=(
            {"momentum": 5e-5, "solver": "unipc", "damping": "cifar10"},
            {"momentum": 5e-5, "insertion": "ddim"},
            {"momentum": 5e-5, "insertion": "data-increment"},
            {"momentum": 1e-6, "insertion": "noise-increment", "solver": "dpm-solver-1"},
        ),
        option_examples=({"released": True}, {"random_angle": 0.1}),
    )
    register(
        "lm-langevin",
        lm_langevin,
        linear=False,
        reference=f"{LML_2025}; Girolami and Calderhead 2011",
        variants=(
            {"metric": "gaussian", "stats": "isotropic:variance=0.8"},
            {"probes": 0, "n_steps": 1},
        ),
        option_examples=(
            {"metric": "gaussian", "stats": "isotropic:variance=0.5"},
            {"stats": "isotropic:variance=0.5"},
        ),
        informed=True,
    )
    register(
        "lml-secant",
        lml_secant,
        order=2,
        order_options={"lower_order_final": False, "most": math.inf},
        linear=False,
        reference=LML_2025,
    )
