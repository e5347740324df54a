"""Multistep DPM-Solver++: one evaluation a step, the derivative from past evaluations."""

from __future__ import annotations

import math
from typing import Any, Literal

import solverkit as sk
from solverkit import Grid
from solverkit.steps import OVERSHOOTS, History, contraction, exact_step, phi, step_length, usable_orders

from .singlestep import LU_2022B

ENDING = {"lower_order_final": False}  # of the order proof


def ended(orders: list[int], euler_at_final: bool) -> list[int]:
    """The orders of the steps, with a last one of first order where euler_at_final asks for it."""
    return [*orders[:-1], 1] if euler_at_final else orders


@sk.sampler(
    "dpmpp-2m",
    order=2,
    order_options=ENDING,
    reference=LU_2022B,
    cite="lu2022dpmsolverpp",
    variants=({"solver_type": "heun"}, {"released": True}),
    multistep=True,
    lower=("euler", {}),
    option_examples=(ENDING,),
)
def dpmpp_2m(
    model: Any,
    x: Any,
    grid: Grid,
    noise: Any,
    solver_type: Literal["midpoint", "heun"] = "midpoint",
    lower_order_final: bool = True,
    released: bool = False,
    euler_at_final: bool = False,
) -> Any:
    """DPM-Solver++(2M): x+ = (t/s) x + alpha_t (1 - r) (m_0 + D / 2), D = (m_0 - m_-1) h / h_prev.

    Order 2, one evaluation a step; the first step, and a step to 0, are of first order. solver_type="heun" weighs D with
    alpha_t h phi_2(-h) instead (the released "taylor"). Multistep: not the single-step 2S.
    Source: Lu et al. 2022b (DPM-Solver++), Algorithm 2.

    Args:
        solver_type: Weight of D, "midpoint" or "heun".
        lower_order_final: The last step is of first order.
        released: The published rule of orders: second order over steps that grow too much for it as well, and an ending of
            first order only below 15 steps.
        euler_at_final: The last step is of first order, whatever lower_order_final and the end of the run say.
    """
    history: History = []
    longest = OVERSHOOTS if solver_type == "heun" else math.inf
    orders = ended(usable_orders(2, grid, lower_order_final, released, longest), euler_at_final)
    for order, (s, t) in zip(orders, grid.steps()):
        m0 = model(x, s)
        history = [(s, m0), *history[:1]]
        x = exact_step(x, m0, s, t)
        if order == 2:
            h, (previous, m1) = step_length(s, t), history[1]
            weight = t.alpha * ((1 - contraction(s, t)) / 2 if solver_type == "midpoint" else h * phi(2, -h))
            x = x + (weight * h / (s.lam - previous.lam)) * (m0 - m1)
    return x


def third_differences(history: History, h: float, released: bool) -> tuple[Any, Any]:
    """D1 and D2 of 3M: h times the first and h^2 times the second derivative of m in lam, from three evaluations.

    The released code's D2 is half the second derivative, which makes its method of order 2; released=True keeps it.
    """
    (l0, m0), (l1, m1), (l2, m2) = history[:3]
    r0, r1 = (l0.lam - l1.lam) / h, (l1.lam - l2.lam) / h
    d10, d11 = (m0 - m1) / r0, (m1 - m2) / r1
    d1 = d10 + (r0 / (r0 + r1)) * (d10 - d11)
    d2 = (1 / (r0 + r1)) * (d10 - d11)
    return d1, d2 if released else 2 * d2


@sk.sampler(
    "dpmpp-3m",
    order=lambda options: 2 if options["released"] else 3,
    order_options=ENDING,
    reference=LU_2022B,
    cite="lu2022dpmsolverpp",
    variants=({"released": True},),
    multistep=True,
    lower=("dpmpp-2m", {}),
    option_examples=(ENDING,),
)
def dpmpp_3m(
    model: Any,
    x: Any,
    grid: Grid,
    noise: Any,
    released: bool = False,
    lower_order_final: bool = True,
    euler_at_final: bool = False,
) -> Any:
    """DPM-Solver++(3M): x+ = (t/s) x + alpha_t [(1 - r) m_0 + h phi_2(-h) D1 + h phi_3(-h) D2].

    D1 and D2 are h and h^2 times the derivatives of m in lam from three evaluations, one evaluation a step. Order 3 with
    exact starting values; the first-order first step leaves a term of second order that matters where the run starts at
    low noise. Steps that are too long or grow too fast for third order take second or first (`solverkit.steps`).
    released=True is the published code (LuChengTHU/dpm-solver, also diffusers and k-diffusion), whose D2 is half the second
    derivative: order 2.
    Source: Lu et al. 2022b (DPM-Solver++), section 4.2 and appendix B.

    Args:
        released: The published second difference and rule of orders.
        lower_order_final: The last step is of first order, the one before it at most of second.
        euler_at_final: As in `dpmpp-2m`.
    """
    history: History = []
    orders = ended(usable_orders(3, grid, lower_order_final, released), euler_at_final)
    for order, (s, t) in zip(orders, grid.steps()):
        m0 = model(x, s)
        history = [(s, m0), *history[:2]]
        x = exact_step(x, m0, s, t)
        if order == 1:
            continue
        h = step_length(s, t)
        if order == 2:
            previous, m1 = history[1]
            x = x + (t.alpha * (1 - contraction(s, t)) / 2 * h / (s.lam - previous.lam)) * (m0 - m1)
        else:
            d1, d2 = third_differences(history, h, released)
            x = x + (t.alpha * h * phi(2, -h)) * d1 + (t.alpha * h * phi(3, -h)) * d2
    return x
