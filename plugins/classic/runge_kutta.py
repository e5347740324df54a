"""Explicit Runge-Kutta methods on dx/ds = (x - D) / s, in either frame.

Interior stages read back the level that the grid really gave (a network that knows only integers rounds it), and take
the weights of the quadrature through the nodes that came.
"""

from __future__ import annotations

from typing import Any

import solverkit as sk
from solverkit import Grid


@sk.sampler("midpoint", order=2, reference="Hairer, Norsett, Wanner 1993, II.1", cite="hairer1993")
def midpoint(model: Any, x: Any, grid: Grid, noise: Any) -> Any:
    """The explicit midpoint rule: a stage at m = (s + t) / 2, then x+ = x + (t - s) d_m.

    Order 2, two evaluations a step. Where m was rounded, c = (m - s) / (t - s) and
    x+ = x + (t - s) ((1 - 1/(2c)) d_s + 1/(2c) d_m). Not DPM-Solver-2, whose stage is midway in log-SNR.
    Source: Hairer, Norsett, Wanner 1993, II.1, eq. 1.8.
    """
    for s, t in grid.steps():
        m = grid.at((s + t) / 2)
        c = (m - s) / (t - s)
        d = (x - model(x, s)) / s
        y = x + (m - s) * d
        d_m = (y - model(y, m)) / m
        x = x + (t - s) * ((1 - 1 / (2 * c)) * d + (1 / (2 * c)) * d_m)
    return x


@sk.sampler("rk4", order=4, reference="Kutta 1901", cite="kutta1901")
def rk4(model: Any, x: Any, grid: Grid, noise: Any) -> Any:
    """The classical Runge-Kutta method, weights (1, 2, 2, 1) / 6.

    Order 4; four evaluations a step. A step that ends at 0, where the slope has no value, is a midpoint step (two
    evaluations), so that a run of N steps costs 4 N - 2. Where the middle stage was rounded to c, the weights are those
    of the quadrature through 0, c, 1.
    Source: Kutta 1901; Hairer, Norsett, Wanner 1993, II.1, Table 1.2.
    """
    for s, t in grid.steps():
        h = t - s
        m = grid.at((s + t) / 2)
        c = (m - s) / h
        d1 = (x - model(x, s)) / s
        y = x + (m - s) * d1
        d2 = (y - model(y, m)) / m
        if t == 0:
            x = x + h * ((1 - 1 / (2 * c)) * d1 + (1 / (2 * c)) * d2)
            continue
        y = x + (m - s) * d2
        d3 = (y - model(y, m)) / m
        y = x + h * d3
        d4 = (y - model(y, t)) / t
        middle = 1 / (6 * c * (1 - c))
        x = x + h * ((0.5 - 1 / (6 * c)) * d1 + (middle / 2) * (d2 + d3) + (0.5 - 1 / (6 * (1 - c))) * d4)
    return x
