"""ER-SDE-Solver: a family of reverse SDEs with a free noise scale phi, of first to third order.

In y = x / alpha and u = sigma / alpha, with R = phi(u_t) / phi(u_s), d and dd the first and second derivative of D at u_s:

    y+ = R y + (1 - R) m_0 + [u_t - u_s + phi(u_t) I_0] d + [(u_t - u_s)^2 / 2 + phi(u_t) I_1] dd + w z
    w = sqrt(u_t^2 - u_s^2 R^2)
    I_0 = int_{u_t}^{u_s} du / phi,   I_1 = int_{u_t}^{u_s} (u - u_s) / phi du

With psi = phi / u and rho = psi(u_t) / psi(u_s) x+ = (t / s) rho x + alpha_t (1 - rho r) m_0 + .. + t sqrt(1 - rho^2) z
in any frame, finite at alpha = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

import solverkit as sk
from solverkit import Grid, Level
from solverkit.errors import OptionError
from solverkit.steps import History, contraction, usable_orders

Phi = Literal["er", "ode", "sde", "power-1.5", "power-2.5", "log"]
NODES, WEIGHTS = np.polynomial.legendre.leggauss(32)
POINTS = 100  # of the published left Riemann sums

# log psi(u); phi = u psi
LOG_PSI: dict[str, Callable[[float], float]] = {
    "er": lambda u: u**0.3 + math.log1p(10 * math.exp(-(u**0.3))),  # phi = u (exp(u^0.3) + 10)
    "ode": lambda u: 0.0,
    "sde": lambda u: math.log(u),
    "power-1.5": lambda u: 0.5 * math.log(u),
    "power-2.5": lambda u: 1.5 * math.log(u),
    "log": lambda u: -0.1 * math.log(u) + math.log(math.log1p(100 * u**1.5)),  # phi = u^0.9 log(1 + 100 u^1.5)
}


def _rho(phi: str, u: float, t: float) -> float:
    """psi(t) / psi(u) for t < u; u may be infinite."""
    if phi == "ode":
        return 1.0
    if t == 0 or math.isinf(u):
        return 0.0
    return math.exp(LOG_PSI[phi](t) - LOG_PSI[phi](u))


def integrals(phi: str, u_s: float, u_t: float, released: bool) -> tuple[float, float]:
    """phi(u_t) I_0 and phi(u_t) I_1: by quadrature in log u, or as the published code sums them."""

    def share(u: float) -> float:  # phi(u_t) / phi(u)
        return u_t / u * math.exp(LOG_PSI[phi](u_t) - LOG_PSI[phi](u))

    if released:
        du = (u_s - u_t) / POINTS
        places, weights = [u_t + k * du for k in range(POINTS)], [du] * POINTS
    else:
        half = 0.5 * math.log(u_s / u_t)
        places = [u_t * math.exp(half * (1 + v)) for v in NODES]
        weights = [half * w * u for w, u in zip(WEIGHTS, places)]
    return (
        sum(w * share(u) for w, u in zip(weights, places)),
        sum(w * (u - u_s) * share(u) for w, u in zip(weights, places)),
    )


def _order(options: dict[str, Any]) -> int | None:
    return None if options["phi"] != "ode" else 1 if options["released"] else int(options["order"])


@sk.sampler(
    "er-sde",
    order=_order,
    order_options={"lower_order_final": False},
    reference="Cui et al. 2023, arXiv 2309.06169, Algorithms 1 to 3",
    cite="cui2023",
    variants=(
        {"phi": "ode"}, {"phi": "ode", "order": 1}, {"phi": "ode", "order": 2}, {"phi": "ode", "released": True},
        {"phi": "sde"}, {"order": 1}, {"order": 2}, {"released": True},
    ),
    option_examples=({"lower_order_final": False},),
    multistep=True,
    lower=("er-sde", {"order": 2}),
)  # fmt: skip
def er_sde(
    model: Any, x: Any, grid: Grid, noise: Any, order: int = 3, phi: Phi = "er", s_noise: float = 1.0,
    lower_order_final: bool = True, released: bool = False,
) -> Any:  # fmt: skip
    """ER-SDE-Solver-1, -2, -3: the reverse SDE whose noise scale is phi(sigma / alpha), one evaluation a step.

    phi = u is the ODE, first order `ddim`; phi = u^2 the SDE of DDPM, first order `ddpm`. With phi="ode" the order is the
    named one. The published third order takes the slope between the last two predictions for that at the newest, which
    leaves order 2, and sums I_0 and I_1 over 100 points from the left, which leaves little more than 1: here the slope is
    carried to the newest prediction and the integrals are exact; released=True keeps both.
    Source: Cui et al. 2023, Algorithms 1 to 3; `er_sde` of ComfyUI.

    Args:
        order: 1 to 3.
        phi: "er" u (exp(u^0.3) + 10), "ode" u, "sde" u^2, "power-1.5" u^1.5, "power-2.5" u^2.5, "log" u^0.9 log(1 + 100
            u^1.5).
        s_noise: Standard deviation of the noise.
        lower_order_final: The last step is of first order, the one before it at most of second.
        released: The published derivatives, sums and rule of orders (as many as there are predictions).
    """
    if not 1 <= order <= 3:
        raise OptionError(f"order must be 1 to 3, got {order}.")
    if phi not in LOG_PSI:
        raise OptionError(f"phi must be one of {', '.join(LOG_PSI)}, got {phi!r}.")
    history: History = []
    orders = usable_orders(order, grid, lower_order_final)
    for p, (s, t) in zip(orders, grid.steps()):
        m = model(x, s)
        history = [(s, m), *history[:2]]
        rho, r = _rho(phi, s.ratio, t.ratio), contraction(s, t)
        x = (t / s * rho) * x + (t.alpha * (1 - rho * r)) * m
        if released:
            p = min(order, sum(math.isfinite(level.ratio) for level, _ in history))
        if p > 1 and t > 0 and math.isfinite(s.ratio):
            x = x + t.alpha * _higher(history[:p], t, phi, released)
        if rho < 1 and t > 0:
            x = x + (s_noise * t * math.sqrt(1 - rho * rho)) * noise(s, t)
    return x


def _higher(history: History, t: Level, phi: str, released: bool) -> Any:
    """The terms of the first and second derivative; two or three predictions, newest first."""
    (s, m0), (s1, m1) = history[:2]
    u = s.ratio
    first, second = integrals(phi, u, t.ratio, released)
    slope = (1 / (u - s1.ratio)) * (m0 - m1)
    if len(history) < 3:
        return (t.ratio - u + first) * slope
    s2, m2 = history[2]
    curvature = (2 / (u - s2.ratio)) * (slope - (1 / (s1.ratio - s2.ratio)) * (m1 - m2))
    if not released:
        slope = slope + (0.5 * (u - s1.ratio)) * curvature
    return (t.ratio - u + first) * slope + (0.5 * (t.ratio - u) ** 2 + second) * curvature
