"""Single-step DPM-Solver and DPM-Solver++: no history, the derivative from stages inside the step.

A run of N grid steps costs N evaluations: a step of order k spans k of them ("packed" as in the released code).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import solverkit as sk
from solverkit import Grid, Level
from solverkit.errors import OptionError
from solverkit.steps import contraction, exact_step, phi, step_length

Inner = Literal["ratio", "nodes"]


LU_2022 = "Lu et al. 2022, arXiv 2206.00927"
LU_2022B = "Lu et al. 2022, arXiv 2211.01095"


def pack_orders(order: int, grid: Grid) -> list[int]:
    """Orders of the steps that together span the grid, as released: 3, 3, ..., then what is left.

    A step from alpha = 0 or to 0 has infinite length in lam and is of first order. At an end above 0 a budget that 3
    divides ends with 2, 1 (Lu et al. 2022, appendix D.3).
    """
    n = len(grid) - 1
    head = int(not math.isfinite(grid[0].lam))
    tail = int(grid[-1] == 0 and n > head)
    middle = n - head - tail
    if order == 3 and not tail and middle >= 3 and middle % 3 == 0:
        body = [3] * (middle // 3 - 1) + [2, 1]
    else:
        body = [order] * (middle // order) + ([middle % order] if middle % order else [])
    return [1] * head + body + [1] * tail


def _data_step(x: Any, s: Level, t: Level, m0: Any, difference: Any, weight: str) -> Any:
    """Data form: the exact step plus alpha_t times (1 - r) / 2 ("half") or h phi_2(-h) ("phi") times a difference."""
    h = step_length(s, t)
    w = (1 - contraction(s, t)) / 2 if weight == "half" else h * phi(2, -h)
    return exact_step(x, m0, s, t) + (t.alpha * w) * difference


def _noise_step(x: Any, s: Level, t: Level, e0: Any, difference: Any, weight: str) -> Any:
    """Noise form: (alpha_t/alpha_s) x - t (e^h - 1) E_0, minus t times (e^h - 1) / 2 or h phi_2(h) times a difference."""
    h = step_length(s, t)
    w = math.expm1(h) / 2 if weight == "half" else h * phi(2, h)
    return (t.alpha / s.alpha) * x - (t * math.expm1(h)) * e0 - (t * w) * difference


def group_orders(order: int, grid: Grid, lower_order_final: bool = True) -> list[int]:
    """Orders of the groups that a grid of n steps is cut into: they sum to n, as Lu et al. 2022, appendix D.3, has it.

    order 3: 3, 3, ..., 1 (n = 3 k + 1), 3, 3, ..., 2 (3 k + 2), or 3, ..., 2, 1 (3 k); order 2: 2, ..., 2, 1 (odd), or
    2, ..., 1, 1 (even). Without lower_order_final, 3, ..., 3 or 2, ..., 2 where that fits. A step from alpha = 0 or to 0
    has infinite length in lam and is a group of its own.
    """
    n = len(grid) - 1
    head = int(not math.isfinite(grid[0].lam))
    n -= head
    if order == 1 or n == 0:
        groups = [1] * n
    elif not lower_order_final and grid[-1] > 0 and n % order == 0:
        groups = [order] * (n // order)
    elif order == 2:
        groups = [2] * ((n - 1) // 2) + ([1] if n % 2 else [1, 1])
    else:
        groups = [3] * ((n - 1) // 3) + [[2, 1], [1], [2]][n % 3]
    if groups and grid[-1] == 0 and groups[-1] == 2:
        groups[-1:] = [1, 1]
    return [1] * head + groups


def _packed(model: Any, x: Any, grid: Grid, order: int, data: bool, r1: float, r2: float, inner: Inner) -> Any:
    if not 0 < r1 < 1 or (order == 3 and not r1 < r2 < 1):
        raise OptionError(f"stages need 0 < r1 < r2 < 1 (r1 = {r1}, r2 = {r2}).")
    ratios = None if inner == "nodes" else {2: [r1 if order == 2 else 0.5], 3: [r1, r2]}
    return _steps(model, x, grid, pack_orders(order, grid), data, ratios)


def _steps(
    model: Any, x: Any, grid: Grid, orders: list[int], data: bool, ratios: dict[int, list[float]] | None,
    solver_type: str = "midpoint",
) -> Any:  # fmt: skip
    """Steps of the given orders. Their stages are at shares of the step in lam, or at the grid's own nodes (None)."""
    step: Callable[..., Any] = _data_step if data else _noise_step
    half = "half" if solver_type == "midpoint" else "phi"
    start = 0
    for k, (s, t) in zip(orders, grid.coarse(orders).steps()):
        inside = [grid[start + j] for j in range(1, k)]
        start += k
        m = model(x, s)
        if k == 1:
            x = exact_step(x, m, s, t)
            continue
        h = step_length(s, t)
        if ratios is not None:
            inside = [grid.at_lam(s.lam + ratio * h) for ratio in ratios[k]]
        a = (inside[0].lam - s.lam) / h  # read back: a network that knows only integers rounds the stage
        p0 = m if data else (x - s.alpha * m) / s
        y = exact_step(x, m, s, inside[0])
        m = model(y, inside[0])
        p1 = m if data else (y - inside[0].alpha * m) / inside[0]
        if k == 2:
            x = step(x, s, t, p0, (1 / a) * (p1 - p0), half)
            continue
        b = (inside[1].lam - s.lam) / h
        second = half if ratios is None else "phi"
        y = step(x, s, inside[1], p0, (b / a) * (p1 - p0), second)
        m = model(y, inside[1])
        p2 = m if data else (y - inside[1].alpha * m) / inside[1]
        if solver_type == "midpoint":
            x = step(x, s, t, p0, (1 / b) * (p2 - p0), "phi")
            continue
        d1, d2 = (1 / a) * (p1 - p0), (1 / b) * (p2 - p0)
        x = step(x, s, t, p0, (1 / (b - a)) * (b * d1 - a * d2), "phi")
        x = x + (t.alpha * h * phi(3, -h) if data else -t * h * phi(3, h)) * ((2 / (b - a)) * (d2 - d1))
    return x


def _third_order(options: dict[str, Any]) -> int:
    return 3 if abs(options["r2"] - 2 / 3) < 1e-9 and options["inner"] == "ratio" else 2


@sk.sampler("dpm-solver-1", order=1, reference=LU_2022, cite="lu2022dpmsolver")
def dpm_solver_1(model: Any, x: Any, grid: Grid, noise: Any) -> Any:
    """DPM-Solver-1: the exact step for a frozen prediction, (t/s) x + alpha_t (1 - r) D.

    Order 1, one evaluation a step. Equal to DDIM and to Euler in either frame.
    Source: Lu et al. 2022 (DPM-Solver), eq. 3.7.
    """
    for s, t in grid.steps():
        x = exact_step(x, model(x, s), s, t)
    return x


@sk.sampler("dpm-solver-2", order=2, reference=LU_2022, cite="lu2022dpmsolver", variants=({"r1": 0.3},))
def dpm_solver_2(model: Any, x: Any, grid: Grid, noise: Any, r1: float = 0.5, inner: Inner = "ratio") -> Any:
    """DPM-Solver-2 (noise form, single-step): x+ = (a_t/a_s) x - t (e^h - 1) [E_0 + (E_1 - E_0) / (2 r1)].

    E_1 at lam_s + r1 h. Order 2, two evaluations a step, packed: N grid steps cost N evaluations.
    Source: Lu et al. 2022 (DPM-Solver), Algorithm 1 and 4.

    Args:
        r1: Where the stage is, as a share of the step in lam.
        inner: "ratio" puts the stages at r1 h; "nodes" at the grid's own levels, as diffusers does.
    """
    return _packed(model, x, grid, 2, False, r1, 2 / 3, inner)


@sk.sampler("dpm-solver-3", order=_third_order, reference=LU_2022, cite="lu2022dpmsolver", variants=({"r2": 0.8},))
def dpm_solver_3(
    model: Any, x: Any, grid: Grid, noise: Any, r1: float = 1 / 3, r2: float = 2 / 3, inner: Inner = "ratio"
) -> Any:
    """DPM-Solver-3 (noise form, single-step): stages at r1 h and r2 h, x+ = exact step - (t/r2) h phi_2(h) (E_2 - E_0).

    Third order only for r2 = 2/3 (any r1); three evaluations a step, packed as released: N grid steps cost N evaluations.
    Source: Lu et al. 2022 (DPM-Solver), Algorithm 2 and appendix D.3.

    Args:
        r1, r2: Where the stages are, as shares of the step in lam.
        inner: "ratio", or "nodes" for the grid's own levels with diffusers' second stage (order below 3 in general).
    """
    return _packed(model, x, grid, 3, False, r1, r2, inner)


@sk.sampler("dpmpp-2s", order=2, reference=LU_2022B, cite="lu2022dpmsolverpp", variants=({"r1": 0.3},))
def dpmpp_2s(model: Any, x: Any, grid: Grid, noise: Any, r1: float = 0.5, inner: Inner = "ratio") -> Any:
    """DPM-Solver++(2S): x+ = (t/s) x + alpha_t (1 - r) [m_0 + (m_1 - m_0) / (2 r1)], m_1 at lam_s + r1 h.

    Order 2, two evaluations a step, packed: N grid steps cost N evaluations.
    Source: Lu et al. 2022b (DPM-Solver++), Algorithm 1.

    Args:
        r1, inner: As in `dpm-solver-2`.
    """
    return _packed(model, x, grid, 2, True, r1, 2 / 3, inner)


@sk.sampler("dpmpp-3s", order=_third_order, reference=LU_2022B, cite="lu2022dpmsolverpp", variants=({"r2": 0.8},))
def dpmpp_3s(
    model: Any, x: Any, grid: Grid, noise: Any, r1: float = 1 / 3, r2: float = 2 / 3, inner: Inner = "ratio"
) -> Any:
    """DPM-Solver++(3S): the data form of DPM-Solver-3.

    Third order only for r2 = 2/3; three evaluations a step, packed: N grid steps cost N evaluations.
    Source: Lu et al. 2022b (DPM-Solver++), appendix B.

    Args:
        r1, r2, inner: As in `dpm-solver-3`.
    """
    return _packed(model, x, grid, 3, True, r1, r2, inner)


def _singlestep_order(options: dict[str, Any]) -> int:
    return min(int(options["order"]), 2)


SINGLESTEP: dict[str, Any] = {
    "order": _singlestep_order,
    "order_options": {"lower_order_final": False},
    "variants": ({"order": 1}, {"order": 3}, {"order": 3, "solver_type": "heun"}),
    "option_examples": ({"order": 3}, {"order": 2}),
}


@sk.sampler("dpmpp-singlestep", reference=LU_2022B, cite="lu2022dpmsolverpp", **SINGLESTEP)
def dpmpp_singlestep(
    model: Any,
    x: Any,
    grid: Grid,
    noise: Any,
    order: int = 2,
    solver_type: Literal["midpoint", "heun"] = "midpoint",
    lower_order_final: bool = True,
) -> Any:
    """DPM-Solver++ in the official "singlestep" layout: groups of up to `order` steps, stages at the grid's own nodes.

    N grid steps are N evaluations, each at a node. A group of k steps is one step of order k; what is left at the end are
    groups of lower order (`group_orders`). Since the nodes divide a group as they like, order=3 is of second order: the
    third needs its stages at 1/3 and 2/3 of the step in log-SNR (`dpmpp-3s`).
    Source: Lu et al. 2022 (DPM-Solver), appendix D.3; Lu et al. 2022b (DPM-Solver++), Algorithm 1 and appendix B;
    DPMSolverSinglestepScheduler of diffusers.

    Args:
        order: 1 to 3, the length of the groups.
        solver_type: "midpoint" takes the last difference of a group, with the weight (1 - r) / 2 in second order; "heun" a
            polynomial through all predictions of the group, integrated exactly.
        lower_order_final: The groups at the end are of lower order even where whole ones fit. Acts at an end above 0 only.

    Raises:
        OptionError: an order other than 1, 2, 3.
    """
    return _grouped(model, x, grid, True, order, solver_type, lower_order_final)


@sk.sampler("dpm-singlestep", reference=LU_2022, cite="lu2022dpmsolver", **SINGLESTEP)
def dpm_singlestep(
    model: Any,
    x: Any,
    grid: Grid,
    noise: Any,
    order: int = 2,
    solver_type: Literal["midpoint", "heun"] = "midpoint",
    lower_order_final: bool = True,
) -> Any:
    """The noise form of `dpmpp-singlestep`: DPM-Solver in groups of up to `order` steps, stages at the grid's own nodes.

    Source: Lu et al. 2022 (DPM-Solver), Algorithms 1 and 2, appendix D.3.

    Args:
        order, solver_type, lower_order_final: As in `dpmpp-singlestep`.

    Raises:
        OptionError: an order other than 1, 2, 3.
    """
    return _grouped(model, x, grid, False, order, solver_type, lower_order_final)


def _grouped(model: Any, x: Any, grid: Grid, data: bool, order: int, solver_type: str, lower_order_final: bool) -> Any:
    if not 1 <= order <= 3:
        raise OptionError(f"order must be 1 to 3, got {order}.")
    return _steps(model, x, grid, group_orders(order, grid, lower_order_final), data, None, solver_type)
