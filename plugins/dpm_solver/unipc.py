"""UniPC: a predictor of order p and a corrector that reuses the next step's evaluation, in data prediction.

With r_i = (lam_-i - lam_0) / h for past nodes, r_p = 1 for the new one, z = -h, D_i = (m_-i - m_0) / r_i:

    predictor  x_p = exact step - alpha_t B sum_{i<p} rho_i D_i
    corrector  x_c = exact step - alpha_t B (sum_{i<p} rho^c_i D_i + rho^c_p (m_+ - m_0))
    sum_i r_i^(k-1) rho_i = b_k,   b_k = k! z phi_{k+1}(z) / B,   B = z ("bh1") or e^z - 1 ("bh2")

B cancels wherever the system is solved; it acts only through the shortcuts rho = 1/2 of the second-order predictor and the
first-order corrector. The corrector is written relative to the state that the network saw, x_c = x_p + sum w_i (m_i - m_0),
so that an edit of that state carries over.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

import solverkit as sk
from solverkit import Grid, Level
from solverkit.errors import OptionError
from solverkit.steps import OVERSHOOTS, exact_step, phi, usable_orders

from .multistep import ENDING

Variant = Literal["bh1", "bh2", "vary"]
SHORT = 0.5  # in log-SNR: over longer steps B(h) = -h is far from the integral that it stands for


def _u(k: int, z: float) -> float:
    """u_1 = (e^z - 1) / z - 1 and u_{k+1} = u_k / z - 1 / (k+1)!, which is z phi_{k+1}(z)."""
    return z * phi(k + 1, z)


def predictor_weights(lams: list[float], t_lam: float, variant: Variant) -> list[float]:
    """Weights of (m_-i - m_0), i = 1 .. p - 1, in (x_p - exact step) / alpha_t; lams newest first, p of them."""
    h, p = t_lam - lams[0], len(lams)
    z = -h
    if p == 1:
        return []
    r = np.array([(lam - lams[0]) / h for lam in lams[1:]])
    if variant == "vary":
        c = np.stack([r**k / math.factorial(k + 1) for k in range(p - 1)], axis=1)
        rho = np.array([_u(k + 1, z) for k in range(p - 1)]) @ np.linalg.inv(c)
        return [float(-w) for w in rho / r]
    b_of_h = z if variant == "bh1" else math.expm1(z)
    if p == 2:
        rho = np.array([0.5])
    else:
        rows = np.stack([r**k for k in range(p - 1)])
        rho = np.linalg.solve(rows, [math.factorial(k) * _u(k, z) / b_of_h for k in range(1, p)])
    return [float(-b_of_h * w) for w in rho / r]


def corrector_weights(lams: list[float], t_lam: float, variant: Variant, released: bool) -> tuple[list[float], float]:
    """The same for the corrector: weights of (m_-i - m_0), and of (m_+ - m_0)."""
    h, p = t_lam - lams[0], len(lams)
    z = -h
    r = np.array([*((lam - lams[0]) / h for lam in lams[1:]), 1.0])
    if variant == "vary":
        c = np.stack([r**k / math.factorial(k + 1) for k in range(p)], axis=1)
        inverse = np.linalg.inv(c)
        u = np.array([_u(k + 1, z) for k in range(p)])
        rho = u @ inverse
        if released and p > 1:  # the released loop drops the last row, and its variable leaks into the new point's term
            rho = np.append((u[:-1] @ inverse[:-1])[:-1], u[p - 1] * inverse[p - 2, -1])
        weights = -rho / r
    else:
        b_of_h = z if variant == "bh1" else math.expm1(z)
        if p == 1:
            rho = np.array([0.5])
        else:
            rows = np.stack([r**k for k in range(p)])
            rho = np.linalg.solve(rows, [math.factorial(k) * _u(k, z) / b_of_h for k in range(1, p + 1)])
        weights = -b_of_h * rho / r
    return [float(w) for w in weights[:-1]], float(weights[-1])


def _order(options: dict[str, Any]) -> int:
    order = int(options["order"])
    if not options["corrector"]:
        return order
    return 1 if options["variant"] == "vary" and options["released"] and order > 1 else order + 1


@sk.sampler(
    "unipc",
    order=_order,
    order_options=ENDING,
    reference="Zhao et al. 2023, arXiv 2302.04867",
    cite="zhao2023",
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
    multistep=True,
    lower=("unipc", {"order": 2}),
)
def unipc(
    model: Any,
    x: Any,
    grid: Grid,
    noise: Any,
    order: int = 3,
    variant: Variant = "bh2",
    corrector: bool = True,
    released: bool = False,
    lower_order_final: bool = True,
) -> Any:
    """UniPC-p: a multistep predictor of order p with a corrector that costs no evaluation.

    Order p + 1 with exact history (p without the corrector); one evaluation a step. The stored evaluation is the one at the
    predicted state. Infinite steps in lam are of first order: that to 0 is not corrected, that from alpha = 0 is with the
    limit of the weight, 1/2 (bh2 only: the others have none). Steps that are too long or grow too fast take lower orders
    (`solverkit.steps`): what is left of the default order 3 on a short run is then order 2.
    variant="vary" are the varying coefficients of the paper's appendix: with all terms equal to the B(h) form (except its
    shortcuts); released=True keeps the published loop, which drops terms and has order 1.
    Source: Zhao et al. 2023, Algorithms 5-8 and appendix C; wl-zhao/UniPC.

    Args:
        order: 1 to 3.
        variant: B(h) = -h ("bh1"), e^-h - 1 ("bh2"), or varying coefficients ("vary").
        corrector: False leaves the predictor alone.
        released: The published rule of orders, no correction of the step from alpha = 0, and with variant="vary" the
            published coefficients.
        lower_order_final: The last step is of first order, the one before it at most of second.
    """
    if not 1 <= order <= 3:
        raise OptionError(f"order must be 1 to 3, got {order}.")
    history: list[tuple[Level, Any]] = []
    pending: tuple[list[float], list[float], float] | None = None
    longest = {"bh1": SHORT, "bh2": math.inf, "vary": OVERSHOOTS}[variant]
    orders = usable_orders(order, grid, lower_order_final, released, longest)
    if lower_order_final:  # the published ending is this one, for runs of any length
        orders = [min(p, len(orders) - i) for i, p in enumerate(orders)]
    for p, (s, t) in zip(orders, grid.steps()):
        m = model(x, s)
        if pending is not None:
            predicted, corrected, new = pending
            m0 = history[0][1]
            past = sum((c - q) * (m_i - m0) for c, q, (_, m_i) in zip(corrected, predicted, history[1:]))
            x = x + s.alpha * (past + new * (m - m0))
        history = [(s, m), *history[: order - 1]]
        usable = [item for item in history if math.isfinite(item[0].lam)]
        infinite = t == 0 or not math.isfinite(s.lam)
        lams = [level.lam for level, _ in usable[:p]]
        weights = [] if infinite else predictor_weights(lams, t.lam, variant)
        x = exact_step(x, m, s, t) + t.alpha * sum(w * (m_i - m) for w, (_, m_i) in zip(weights, history[1:]))
        pending = None
        if corrector and not infinite:
            pending = (weights, *corrector_weights(lams, t.lam, variant, released))
        elif corrector and not released and s.alpha == 0 and t > 0 and variant == "bh2":
            pending = ([], [], 0.5)  # the limit of -B rho for h -> inf
    return x
