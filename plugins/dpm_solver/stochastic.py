"""Stochastic multistep DPM-Solver++: the reverse SDE instead of the ODE, with `eta` between the two."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import solverkit as sk
from solverkit import Grid, Level
from solverkit.errors import OptionError
from solverkit.steps import OVERSHOOTS, History, contraction, phi, step_length, usable_orders

from .multistep import ENDING, ended, third_differences
from .singlestep import LU_2022B


def _sde_order(order: int) -> Callable[[dict[str, Any]], int | None]:
    def of(options: dict[str, Any]) -> int | None:
        if options["eta"] != 0:
            return None
        return 2 if options["released"] else order

    return of


def _first_order(x: Any, m0: Any, s: Level, t: Level, eta: float) -> Any:
    """(t / s) r^eta x + alpha_t (1 - r^(1 + eta)) m_0, without the noise."""
    r = contraction(s, t)
    return (t / s * r**eta) * x + (t.alpha * (1 - r ** (1 + eta))) * m0


def _noise(x: Any, s: Level, t: Level, eta: float, s_noise: float, noise: Any) -> Any:
    """t sqrt(1 - r^(2 eta)) z, the exact noise of the frozen reverse SDE."""
    if t == 0 or eta == 0:
        return x
    return x + (s_noise * t * math.sqrt(1 - contraction(s, t) ** (2 * eta))) * noise(s, t)


@sk.sampler(
    "dpmpp-2m-sde",
    order=_sde_order(2),
    order_options=ENDING,
    reference=LU_2022B,
    cite="lu2022dpmsolverpp",
    variants=({"eta": 0.0}, {"eta": 0.5, "solver_type": "heun"}),
    multistep=True,
    lower=("ddpm", {}),
    option_examples=(ENDING,),
)
def dpmpp_2m_sde(
    model: Any,
    x: Any,
    grid: Grid,
    noise: Any,
    eta: float = 1.0,
    s_noise: float = 1.0,
    solver_type: Literal["midpoint", "heun"] = "midpoint",
    lower_order_final: bool = True,
    released: bool = False,
    euler_at_final: bool = False,
) -> Any:
    """DPM-Solver++(2M) SDE: r^(1 + eta) in place of r, plus noise t sqrt(1 - r^(2 eta)) z.

    Second order in law, one evaluation a step. eta = 0 with solver_type "midpoint" is `dpmpp-2m`; eta = 1 the reverse SDE.
    With released=True and lower_order_final=False it is the DPM sampler of CogVideoX (CogVideoXDPMScheduler of diffusers).
    Source: Lu et al. 2022b (DPM-Solver++), section 5; k-diffusion, sample_dpmpp_2m_sde.

    Args:
        eta: Strength of the noise (not the eta of DDIM).
        s_noise: Standard deviation of the noise.
        solver_type: Weight of the difference: (1 - r^(1+eta)) / 2, or (1 + eta) h phi_2(-(1 + eta) h).
        lower_order_final: The last step is of first order.
        released: The published rule of orders: for steps of any growth, with an ending only below 15 steps.
        euler_at_final: As in `dpmpp-2m`.
    """
    if eta < 0:
        raise OptionError(f"eta must be at least 0, got {eta}.")
    history: History = []
    longest = OVERSHOOTS if solver_type == "heun" else math.inf
    orders = ended(usable_orders(2, grid, lower_order_final, released, longest, 1 + eta), euler_at_final)
    for order, (s, t) in zip(orders, grid.steps()):
        m0 = model(x, s)
        history = [(s, m0), *history[:1]]
        x = _first_order(x, m0, s, t, eta)
        if order == 2:
            h, (previous, m1) = step_length(s, t), history[1]
            g = (1 + eta) * h
            weight = (1 - contraction(s, t) ** (1 + eta)) / 2 if solver_type == "midpoint" else g * phi(2, -g)
            x = x + (t.alpha * weight * h / (s.lam - previous.lam)) * (m0 - m1)
        x = _noise(x, s, t, eta, s_noise, noise)
    return x


@sk.sampler(
    "dpmpp-3m-sde",
    order=_sde_order(3),
    order_options=ENDING,
    reference="k-diffusion, sample_dpmpp_3m_sde",
    cite="crowson2022",
    variants=({"eta": 0.0}, {"eta": 0.0, "released": True}, {"eta": 0.5}),
    multistep=True,
    lower=("dpmpp-2m-sde", {}),
    option_examples=(ENDING,),
)
def dpmpp_3m_sde(
    model: Any,
    x: Any,
    grid: Grid,
    noise: Any,
    eta: float = 1.0,
    s_noise: float = 1.0,
    released: bool = False,
    lower_order_final: bool = True,
    euler_at_final: bool = False,
) -> Any:
    """DPM-Solver++(3M) SDE: 3M with g = (1 + eta) h in the phi-functions, plus noise t sqrt(1 - r^(2 eta)) z.

    Third order in the mean, second in the variance; one evaluation a step. eta = 0 is `dpmpp-3m`. released=True keeps
    k-diffusion's second difference, half the second derivative.
    Source: k-diffusion, sample_dpmpp_3m_sde.

    Args:
        eta, s_noise: As in `dpmpp-2m-sde`.
        lower_order_final: The last step is of first order, the one before it at most of second.
        released: The published second difference and rule of orders.
        euler_at_final: As in `dpmpp-2m`.
    """
    if eta < 0:
        raise OptionError(f"eta must be at least 0, got {eta}.")
    history: History = []
    orders = ended(usable_orders(3, grid, lower_order_final, released, stretch=1 + eta), euler_at_final)
    for order, (s, t) in zip(orders, grid.steps()):
        m0 = model(x, s)
        history = [(s, m0), *history[:2]]
        x = _first_order(x, m0, s, t, eta)
        h = step_length(s, t)
        g = (1 + eta) * h
        if order == 2:
            previous, m1 = history[1]
            weight = g * phi(2, -g) if released and eta > 0 else (1 - contraction(s, t) ** (1 + eta)) / 2
            x = x + (t.alpha * weight * h / (s.lam - previous.lam)) * (m0 - m1)
        elif order == 3:
            d1, d2 = third_differences(history, h, released)
            x = x + (t.alpha * g * phi(2, -g)) * d1 + (t.alpha * g * phi(3, -g)) * d2
        x = _noise(x, s, t, eta, s_noise, noise)
    return x
