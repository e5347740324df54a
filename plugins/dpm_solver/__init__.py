"""DPM-Solver, DPM-Solver++ and UniPC: exponential integrators in the log-SNR."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import solverkit as sk

from .adaptive import dpm_solver_12, dpm_solver_23
from .multistep import dpmpp_2m, dpmpp_3m
from .singlestep import dpm_solver_1, dpm_solver_2, dpm_solver_3, dpmpp_2s, dpmpp_3s
from .stochastic import dpmpp_2m_sde, dpmpp_3m_sde
from .unipc import unipc

LU_2022 = "Lu et al. 2022, arXiv 2206.00927"
LU_2022B = "Lu et al. 2022, arXiv 2211.01095"
ENDING = {"lower_order_final": False}


def _third_order(options: dict[str, Any]) -> int:
    return 3 if abs(options["r2"] - 2 / 3) < 1e-9 and options["inner"] == "ratio" else 2


def _sde_order(order: int) -> Callable[[dict[str, Any]], int | None]:
    def of(options: dict[str, Any]) -> int | None:
        if options["eta"] != 0:
            return None
        return 2 if options.get("released") else order

    return of


def _unipc_order(options: dict[str, Any]) -> int:
    order = int(options["order"])
    if not options["corrector"]:
        return order
    return 1 if options["variant"] == "vary" and options["released"] and order > 1 else order + 1


@sk.hookimpl
def register_samplers(register: Callable[..., None]) -> None:
    register("dpm-solver-1", dpm_solver_1, order=1, reference=LU_2022)
    register("dpm-solver-2", dpm_solver_2, order=2, reference=LU_2022, variants=({"r1": 0.3},))
    register("dpm-solver-3", dpm_solver_3, order=_third_order, reference=LU_2022, variants=({"r2": 0.8},))
    register("dpmpp-2s", dpmpp_2s, order=2, reference=LU_2022B, variants=({"r1": 0.3},))
    register("dpmpp-3s", dpmpp_3s, order=_third_order, reference=LU_2022B, variants=({"r2": 0.8},))
    register("dpmpp-2m", dpmpp_2m, order=2, order_options=ENDING, reference=LU_2022B, variants=({"solver_type": "heun"},))
    register(
        "dpmpp-3m",
        dpmpp_3m,
        order=lambda options: 2 if options["released"] else 3,
        order_options=ENDING,
        reference=LU_2022B,
        variants=({"released": True},),
    )
    register(
        "dpmpp-2m-sde",
        dpmpp_2m_sde,
        order=_sde_order(2),
        order_options=ENDING,
        reference=LU_2022B,
        variants=({"eta": 0.0}, {"eta": 0.5, "solver_type": "heun"}),
    )
    register(
        "dpmpp-3m-sde",
        dpmpp_3m_sde,
        order=_sde_order(3),
        order_options=ENDING,
        reference="k-diffusion, sample_dpmpp_3m_sde",
        variants=({"eta": 0.0}, {"eta": 0.0, "released": True}, {"eta": 0.5}),
    )
    register(
        "unipc",
        unipc,
        order=_unipc_order,
        order_options=ENDING,
        reference="Zhao et al. 2023, arXiv 2302.04867",
        variants=(
            {"order": 1},
            {"order": 2, "variant": "bh1"},
            {"order": 3, "variant": "bh1"},
            {"order": 2},
            {"order": 3, "corrector": False},
            {"order": 2, "corrector": False},
            {"order": 2, "variant": "vary"},
            {"order": 3, "variant": "vary"},
            {"order": 3, "variant": "vary", "released": True},
        ),
    )
    register("dpm-solver-12", dpm_solver_12, traceable=False, reference=LU_2022)
    register("dpm-solver-23", dpm_solver_23, traceable=False, reference=LU_2022)
