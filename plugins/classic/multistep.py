"""Linear multistep methods: Adams-Bashforth, iPNDM and DEIS. They differ in what the slope is a polynomial of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import solverkit as sk
from solverkit import Grid
from solverkit.process.level import to_ratio
from solverkit.steps import exact_step, usable_orders

from .quadrature import lagrange_weights

IPNDM = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def _check_order(order: int, most: int) -> None:
    if not 1 <= order <= most:
        raise sk.errors.OptionError(f"order must be 1 to {most}, got {order}.")


def _order(options: dict[str, Any]) -> int:
    return int(options["order"])


@sk.sampler(
    "adams-bashforth",
    order=_order,
    reference="Hairer, Norsett, Wanner 1993, III.5",
    cite="hairer1993",
    variants=({"order": 1}, {"order": 2}, {"order": 4}),
    multistep=True,
    lower=("adams-bashforth", {"order": 2}),
)
def adams_bashforth(model: Any, x: Any, grid: Grid, noise: Any, order: int = 3) -> Any:
    """Variable-step Adams-Bashforth: the slope d = (x - D) / s as a polynomial in s through the last `order` evaluations.

    Order as named, one evaluation a step; lower orders while the history fills. In the sigma frame this is rhoAB-DEIS and
    the LMS sampler of k-diffusion.
    Source: Hairer, Norsett, Wanner 1993, III.5.

    Args:
        order: 1 to 4.
    """
    _check_order(order, 4)
    history: list[Any] = []
    nodes: list[float] = []
    for s, t in grid.steps():
        d = sk.keep((x - model(x, s)) / s)
        history, nodes = [d, *history[: order - 1]], [float(s), *nodes[: order - 1]]
        weights = lagrange_weights(nodes, s, t, lambda u: u, 4)
        x = x + sum(w * d for w, d in zip(weights, history))
    return x


@sk.sampler(
    "lms",
    order=_order,
    reference="k-diffusion, sample_lms",
    cite="crowson2022",
    variants=({"order": 1}, {"order": 2}, {"order": 3}),
    multistep=True,
)
def lms(model: Any, x: Any, grid: Grid, noise: Any, order: int = 4) -> Any:
    """LMS: x+ = alpha_t (x / alpha_s + sum_j w_j eps_j), eps a polynomial in sigma / alpha through the last evaluations.

    Order as named, one evaluation a step; lower orders while the history fills, none at the end. In the sigma frame it is
    `adams-bashforth`; in the flow frame that one's polynomial is of the velocity, in t. The step from alpha = 0 is exact
    for a frozen prediction, and leaves no history. The integrals are exact, as is the released code's quadrature.
    Source: k-diffusion, sample_lms; Hairer, Norsett, Wanner 1993, III.5.

    Args:
        order: 1 to 4.
    """
    _check_order(order, 4)
    history: list[Any] = []
    nodes: list[float] = []
    for s, t in grid.steps():
        denoised = model(x, s)
        if s.alpha == 0:
            x = exact_step(x, denoised, s, t)
            continue
        epsilon = sk.keep((x - s.alpha * denoised) / s)
        history, nodes = [epsilon, *history[: order - 1]], [s.ratio, *nodes[: order - 1]]
        weights = lagrange_weights(nodes, s.ratio, t.ratio, lambda u: u, 4)
        x = (t.alpha / s.alpha) * x + sum((t.alpha * w) * e for w, e in zip(weights, history))
    return x


@sk.sampler(
    "ipndm",
    order=lambda options: None if options["released"] else min(int(options["order"]), 2),
    smooth_steps=True,
    reference="Zhang and Chen 2023, eq. 40-42",
    cite="zhang2023deis",
    variants=({"order": 1}, {"order": 2}, {"order": 3}),
    multistep=True,
    lower=("ipndm", {"order": 1}),
)
def ipndm(model: Any, x: Any, grid: Grid, noise: Any, order: int = 4, released: bool = False) -> Any:
    """iPNDM: Adams-Bashforth with the constant weights of equal steps, whatever the steps are.

    x+ = x + (t - s) (55 d_0 - 59 d_1 + 37 d_2 - 9 d_3) / 24 at order 4. Full order only where steps are equal in s; where
    their lengths change smoothly the order is 2 for every length above 1, on jagged grids it is 1, and yet the error at
    few steps is often the smallest.
    One evaluation a step. Source: Zhang and Chen 2023 (DEIS), eq. 40-42; Liu et al. 2022 (PNDM).

    Args:
        order: 1 to 4, the number of slopes.
        released: What diffusers' class does from alpha = 0: the same weights of epsilon, in steps of sigma / alpha, which
            begin at infinity; and the first step takes x_0 for 0, whatever the network says, so that a run of one step ends
            at 0 and none is of more than first order. In the sigma frame it is the same method.
    """
    _check_order(order, 4)
    history: list[Any] = []
    for s, t in grid.steps():
        denoised = model(x, s)
        d = (x - s.alpha * denoised) / s if released else (x - denoised) / s
        history = [sk.keep(d), *history[: order - 1]]
        keeps, length = _native_epsilon_step(s, t) if released else (1.0, t - s)
        x = keeps * x + sum((length * w) * d for w, d in zip(IPNDM[len(history) - 1], history))
    return x


def _native_epsilon_step(s: Any, t: Any) -> tuple[float, float]:
    """(a, b) of x+ = a x + b epsilon: x_0 = (x - s epsilon) / alpha_s, and 0 where alpha_s is."""
    keeps = t.alpha / s.alpha if s.alpha else 0.0
    return keeps, t - s * keeps


@sk.sampler(
    "deis",
    order=_order,
    order_options={"lower_order_final": False},
    reference="Zhang and Chen 2023, Proposition 3",
    cite="zhang2023deis",
    variants=(
        {"order": 1},
        {"order": 2},
        {"order": 2, "variable": "rho"},
        {"order": 3, "variable": "rho"},
        {"order": 2, "variable": "log-rho"},
        {"order": 3, "variable": "log-rho"},
        {"order": 2, "variable": "log-rho", "released": True},
    ),
    multistep=True,
    lower=("deis", {"order": 2}),
)
def deis(
    model: Any,
    x: Any,
    grid: Grid,
    noise: Any,
    order: int = 3,
    variable: Literal["time", "rho", "log-rho"] = "time",
    lower_order_final: bool = True,
    released: bool = False,
) -> Any:
    """DEIS: x+ = x + sum_j C_j eps_j, C_j the integral over s of the Lagrange polynomial in `variable`.

    "time" is tAB in the network's own time, "rho" is rhoAB (polynomial in s), "log-rho" a polynomial in log(s / alpha), as
    diffusers has it. The integrals are Gauss-Legendre in float64 (the authors' code uses 10000-point Riemann sums).
    Order as named, one evaluation a step; lower orders while the history fills. order = 1 is DDIM.
    Source: Zhang and Chen 2023, eq. 15 and Proposition 3.

    Args:
        order: 1 to 3, the number of evaluations that the polynomial goes through.
        variable: What it is a polynomial of.
        lower_order_final: The last step is of first order, the one before it at most of second.
        released: The rule of orders of diffusers' class: full order over steps of any growth, and lower_order_final acts
            below 15 steps only. What the class runs is variable="log-rho", by default with order=2.
    """
    _check_order(order, 3)
    schedule, frame, steps = grid.schedule, grid.frame, len(grid) - 1
    maps: dict[str, Callable[[float], float]] = {
        "time": lambda u: schedule.time(to_ratio(u, frame)),
        "rho": lambda u: u,
        "log-rho": lambda u: math.log(to_ratio(u, frame)) if 0 < to_ratio(u, frame) < math.inf else math.nan,
    }
    to_variable = maps[variable]
    logarithmic = getattr(schedule, "told", "sigma") != "sigma"
    orders = usable_orders(order, grid, lower_order_final and released, released)
    history: list[Any] = []
    nodes: list[float] = []
    for i, (s, t) in enumerate(grid.steps()):
        d = sk.keep((x - model(x, s)) / s)
        history, nodes = [d, *history[: order - 1]], [to_variable(float(s)), *nodes[: order - 1]]
        k = min(len(history), steps - i) if lower_order_final and not released else len(history)
        if released or variable == "log-rho":
            k = min(k, orders[i])
        if t == 0 and (variable == "log-rho" or (variable == "time" and logarithmic)):
            k = 1  # the polynomial has no value at the end
        usable = [j for j in range(k) if math.isfinite(nodes[j]) and nodes[j] not in nodes[:j]]
        if len(usable) < 2:
            x = x + (t - s) * d
            continue
        weights = lagrange_weights([nodes[j] for j in usable], s, t, to_variable, 4 if variable == "rho" else 48)
        x = x + sum(w * history[j] for w, j in zip(weights, usable))
    return x


__all__ = ["adams_bashforth", "deis", "ipndm", "lms"]
