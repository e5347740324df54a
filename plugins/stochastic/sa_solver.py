"""SA-Solver: stochastic Adams methods, a predictor and a corrector that see the same noise.

The family of reverse SDEs with noise tau (tau = 0 the ODE, 1 the SDE of DDPM), over a step from s to t with h its length in
lam, r = e^-h and g = (1 + tau^2) h, is solved exactly up to the integral of D:

    x+ = (t / s) r^(tau^2) x + alpha_t sum_i b_i m_i + t sqrt(1 - r^(2 tau^2)) z
    b_i = g int_0^1 e^(-g (1 - v)) L_i(v) dv,   L_i the Lagrange polynomials in v = (lam - lam_s) / h

The corrector's nodes have the new prediction among them. It is written relative to the state that the network saw,
x_c = x + alpha_t (sum b^c_i m_i - sum b_i m_i): the noise is the same one, and an edit of that state carries over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

import solverkit as sk
from solverkit import Grid
from solverkit.errors import OptionError
from solverkit.steps import OVERSHOOTS, History, contraction, phi, step_length, usable_orders


def adams_weights(nodes: Sequence[float], g: float) -> list[float]:
    """b_i for predictions at v = nodes: 0 the newest, 1 the end of the step, earlier ones below 0. The sum is 1 - e^-g."""
    moments = [g * math.factorial(j) * phi(j + 1, -g) for j in range(len(nodes))]
    return [float(b) for b in np.linalg.solve(np.vander(nodes, increasing=True).T, moments)]


def _order(options: dict[str, Any]) -> int | None:
    if options["tau"] != 0:
        return None
    p, q = int(options["predictor"]), int(options["corrector"])
    return p if q == 0 else min(p + 1, q)


@sk.sampler(
    "sa-solver",
    order=_order,
    order_options={"lower_order_final": False},
    reference="Xue et al. 2023, arXiv 2309.05019, eq. 14 and 17",
    cite="xue2023",
    variants=(
        {"tau": 0.0}, {"tau": 0.0, "predictor": 2, "corrector": 0}, {"tau": 0.0, "predictor": 3, "corrector": 0},
        {"tau": 0.0, "predictor": 1, "corrector": 2},
        {"tau": 0.0, "predictor": 2, "corrector": 3, "pece": True}, {"predictor": 2, "corrector": 2, "tau": 0.5},
    ),
    option_examples=({"lower_order_final": False}, {"pece": True}),
    multistep=True,
    lower=("ddpm", {}),
)  # fmt: skip
def sa_solver(
    model: Any, x: Any, grid: Grid, noise: Any, predictor: int = 3, corrector: int = 4, tau: float = 1.0,
    below: float = math.inf, above: float = 0.0, pece: bool = False, lower_order_final: bool = True,
) -> Any:  # fmt: skip
    """SA-Solver: a stochastic Adams-Bashforth predictor and an Adams-Moulton corrector, in data prediction.

    At tau = 0 order min(predictor + 1, corrector), or that of the predictor alone. One evaluation a step: the stored
    prediction is that at the predicted state; with pece=True a second one at the corrected state takes its place. Steps
    from alpha = 0 and to 0 are of first order and exact for a frozen prediction, and lower orders are taken as in other
    multistep methods (`solverkit.steps`). The published code changes its second-order weights by terms of O(h^3).
    Source: Xue et al. 2023, Algorithm 1, eq. 14 and 17. `sa_solver` of ComfyUI has these orders; corrector_order of
    diffusers' SASolverScheduler is `corrector`.

    Args:
        predictor: Predictions that the predictor uses, 1 to 3.
        corrector: Predictions that the corrector uses, the new one among them, 2 to 4; 0 leaves it out.
        tau: Strength of the noise.
        below, above: Noise is drawn in steps that start at sigma / alpha in [above, below]; the others are of the ODE.
        pece: Ask again at the corrected state.
        lower_order_final: The last step is of first order, the one before it at most of second.

    Raises:
        OptionError: an order out of range, tau below 0, or pece=True without a corrector.
    """
    if not 1 <= predictor <= 3 or corrector not in (0, 2, 3, 4):
        raise OptionError(
            f"predictor must be 1 to 3 and corrector 2 to 4 or 0 (none), got {predictor} and {corrector}."
        )
    if tau < 0:
        raise OptionError(f"tau must be at least 0, got {tau}.")
    if pece and corrector == 0:
        raise OptionError("pece=True asks at the corrected state: choose a corrector, 2 to 4.")
    history: History = []
    pending: tuple[list[float], list[float]] | None = None
    squares = [tau * tau if above <= level.ratio <= below else 0.0 for level in grid.levels[:-1]]
    orders = usable_orders(predictor, grid, lower_order_final, longest=OVERSHOOTS, stretch=1 + max(squares))
    for p, tau2, (s, t) in zip(orders, squares, grid.steps()):
        m = model(x, s)
        if pending is not None:
            predicted, corrected = pending
            past = [m_i for _, m_i in history]
            x = x + s.alpha * (
                sum(b * m_i for b, m_i in zip(corrected, [m, *past])) - sum(b * m_i for b, m_i in zip(predicted, past))
            )
            if pece:
                m = model(x, s)
        history = [(s, m), *history[:2]]
        r, pending = contraction(s, t), None
        weights = [1 - r ** (1 + tau2)]
        if t > 0 and math.isfinite(s.lam):
            h, g = step_length(s, t), (1 + tau2) * step_length(s, t)
            nodes = [(level.lam - s.lam) / h for level, _ in history if math.isfinite(level.lam)]
            weights = adams_weights(nodes[:p], g)
            if corrector:
                earlier = min(p + max(0, corrector - 1 - predictor), corrector - 1)
                pending = weights, adams_weights([1.0, *nodes[:earlier]], g)
        x = (t / s * r**tau2) * x + sum((t.alpha * b) * m_i for b, (_, m_i) in zip(weights, history))
        if tau2 > 0 and t > 0:
            x = x + (t * math.sqrt(1 - r ** (2 * tau2))) * noise(s, t)
    return x
