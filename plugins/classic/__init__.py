"""Classical solvers: Euler, Heun, Runge-Kutta, Adams, DEIS, and the ancestral family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import solverkit as sk

from .ancestral import ddim, ddpm, euler_ancestral
from .euler import euler, heun
from .multistep import adams_bashforth, deis, ipndm
from .runge_kutta import midpoint, rk4


def _order(options: dict[str, Any]) -> int:
    return int(options["order"])


def _ddim_order(options: dict[str, Any]) -> int | None:
    return 1 if options["eta"] == 0 else None


def _heun_order(options: dict[str, Any]) -> int | None:
    return 2 if options["s_churn"] == 0 else None


@sk.hookimpl
def register_samplers(register: Callable[..., None]) -> None:
    register("euler", euler, order=1, reference="Karras et al. 2022, Algorithm 1")
    register(
        "heun",
        heun,
        order=_heun_order,
        reference="Karras et al. 2022, Algorithms 1 and 2",
        variants=({"s_churn": 5.0, "s_noise": 1.003},),
    )
    register("midpoint", midpoint, order=2, reference="Hairer, Norsett, Wanner 1993, II.1")
    register("rk4", rk4, order=4, reference="Kutta 1901")
    register(
        "adams-bashforth",
        adams_bashforth,
        order=_order,
        reference="Hairer, Norsett, Wanner 1993, III.5",
        variants=({"order": 1}, {"order": 2}, {"order": 4}),
    )
    register(
        "ipndm",
        ipndm,
        order=lambda options: min(int(options["order"]), 2),
        smooth_steps=True,
        reference="Zhang and Chen 2023, eq. 40-42",
        variants=({"order": 1}, {"order": 2}, {"order": 3}),
    )
    register(
        "deis",
        deis,
        order=_order,
        order_options={"lower_order_final": False},
        reference="Zhang and Chen 2023, Proposition 3",
        variants=(
            {"order": 1},
            {"order": 2},
            {"order": 2, "variable": "rho"},
            {"order": 3, "variable": "rho"},
            {"order": 2, "variable": "log-rho"},
            {"order": 3, "variable": "log-rho"},
        ),
    )
    register(
        "ddim", ddim, order=_ddim_order, reference="Song, Meng, Ermon 2021, eq. 12", variants=({"eta": 0.5}, {"eta": 1.0})
    )
    register("ddpm", ddpm, reference="Ho et al. 2020, eq. 6-7")
    register(
        "euler-ancestral",
        euler_ancestral,
        reference="k-diffusion, sample_euler_ancestral",
        variants=({"eta": 0.5, "s_noise": 1.003},),
    )
