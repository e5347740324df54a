"""The Gaussian as the linear part of an exponential integrator, at every level; the network supplies what it leaves.

Along a direction of variance l, with rho = s / alpha, y = x / alpha - mu and r = D - D_G the flow is

    dy/drho = rho y / (l + rho^2) - r / rho,

so with the propagator g = ((alpha_t^2 l + t^2) / (alpha_s^2 l + s^2))^(1/2) a step is

    x_t = alpha_t mu + g (x_s - alpha_s mu) + alpha_t n_t int_{rho_t}^{rho_s} r / (rho n) drho,   n = (l + rho^2)^(1/2).

What is taken for constant, or for a polynomial in log rho through past evaluations, is one of two:

* "denoised": r itself; a constant one weighs n_t (asinh(l^(1/2) / rho_t) - asinh(l^(1/2) / rho_s)) / l^(1/2);
* "score": q = r n^2 / rho^2, the score's residual in the Gaussian's metric, for which r vanishes rightly at rho = 0; a
  constant one weighs 1 - n_t / n_s.

Zero covariance makes both DPM-Solver++; a Gaussian model leaves nothing and is solved exactly.
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch

import solverkit as sk
from solverkit import GaussianStats, Grid, Level
from solverkit.errors import OptionError
from solverkit.steps import OVERSHOOTS, usable_orders

from .allocation import fixed
from .layouts import lowest
from .teleport import UNIT, WANG_2024, jump_to, levels_after, prepare, say, statistics

Residual = Literal["score", "denoised"]
START, TAIL = 3.0, "karras:rho=3"  # without a profile
NODES, WEIGHTS = np.polynomial.legendre.leggauss(48)


class Step:
    """What one step multiplies with: gains and weights (K, r) along the basis, and off it; compared by value."""

    def __init__(self, gain: torch.Tensor, gain_off: float, weights: torch.Tensor, weights_off: tuple[float, ...]) -> None:
        self.gain, self.gain_off, self.weights, self.weights_off = gain, gain_off, weights, weights_off

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, Step) and torch.equal(self.weights, other.weights) and torch.equal(self.gain, other.gain)
        return same and (self.gain_off, self.weights_off) == (other.gain_off, other.weights_off)  # type: ignore[attr-defined]

    __hash__ = object.__hash__


@sk.op
def residual_of(x: torch.Tensor, denoised: torch.Tensor, stats: GaussianStats, s: Level) -> torch.Tensor:
    """r = D - D_G, (B, *shape)."""
    stats.fit_check(tuple(x.shape[1:]))
    return denoised - stats.denoised(x, s)


@sk.op
def exponential_step(
    x: torch.Tensor, residuals: list[torch.Tensor], stats: GaussianStats, s: Level, t: Level, step: Step
) -> torch.Tensor:
    """x_t of the module's formula; residuals[k] is weighed with row k."""
    mean = stats.mean.to(x)
    out = t.alpha * mean + stats.along(x - s.alpha * mean, step.gain, step.gain_off)
    for r, along, off in zip(residuals, step.weights, step.weights_off):
        out = out + stats.along(r, along, off)
    return out


def _order(options: dict[str, Any]) -> int:
    return int(options["order"])


@sk.sampler(
    "gaussian-exponential",
    order=_order,
    order_options={"lower_order_final": False, "start": math.inf},
    multistep=True,
    reference=WANG_2024,
    cite="wang2024gaussian",
    restarts=False,
    informed=True,
    prepare=prepare,
    option_examples=({**UNIT, "tail": "karras"},),
    variants=({**UNIT}, {**UNIT, "order": 2, "residual": "denoised"}, {**UNIT, "start": math.inf, "order": 2}),
)
def gaussian_exponential(
    model: Any,
    x: Any,
    grid: Grid,
    noise: Any,
    stats: str | GaussianStats | None,
    order: int = 3,
    residual: Residual = "score",
    start: float | None = None,
    tail: str = "auto",
    lower_order_final: bool = True,
) -> Any:
    """Exponential multistep integrator whose linear part is the data's Gaussian at every level; order 1 to 3.

    One evaluation a step, multistep: the first steps are of lower order. Exact for Gaussian data in one step; with zero
    covariance it is DPM-Solver++ (order 2: with the exact weight of the difference). Formulas in
    this module's docstring.
    Source: the closed form of Wang and Vastola 2024, arXiv 2412.09726, taken to every step of an exponential integrator.

    Args:
        stats: As of `teleport`.
        order: Evaluations that a step uses, 1 to 3.
        residual: What is taken for a polynomial in log rho: the "score"'s residual or the "denoised" prediction's.
        start: The first evaluation is made at so many standard deviations of the leading direction; the way there costs
            nothing (`teleport`), and all steps lie below. inf keeps the grid as it is. None lays the steps where the
            surrogate of the network loses least, as `teleport` does, if the statistics hold a profile, else it is 3.
        tail: The grid of those steps, a name of `sk.grids()` with ratio_max and ratio_min; "auto" is karras with rho 3,
            or where start is None what loses least.
        lower_order_final: The last step is of first order, the one before it at most of second.

    Raises:
        OptionError: order is none of 1, 2, 3, or start is not above 0.
        StatsError: statistics of another shape.
    """
    if not 1 <= order <= 3:
        raise OptionError(f"order must be 1, 2 or 3, got {order}.")
    if start is not None and not start > 0:
        raise OptionError(f"start must be above 0 standard deviations, got {start!r}.")
    gaussian = statistics(stats, model)
    if start is None and gaussian.profile is not None:
        same = f"gaussian-exponential:order={order},residual={residual},start=inf,lower_order_final={lower_order_final}"
        levels = levels_after(gaussian, grid, same, "auto", "spend", tail)
    else:
        deviations = START if start is None else start
        first = math.inf if math.isinf(deviations) else max(deviations * gaussian.spread, 2 * lowest(grid))
        levels = fixed(replace(grid, on_step=None), first, "spend", TAIL if tail == "auto" else tail)
    laid = levels.grid
    if isinstance(x, torch.Tensor):
        say(levels)
    if laid[0] < grid[0]:
        x = jump_to(x, gaussian, grid[0], laid[0])
    history: list[tuple[Level, Any]] = []
    orders = usable_orders(order, laid, lower_order_final, longest=OVERSHOOTS if order == 2 else math.inf)
    for used_order, (s, t) in zip(orders, replace(laid, on_step=grid.on_step).steps()):
        denoised = model(x, s)
        history = [(s, residual_of(x, denoised, gaussian, s)), *history[: order - 1]]
        used = history[:used_order]
        step = step_weights(gaussian, s, t, tuple(level for level, _ in used), residual)
        x = exponential_step(x, [r for _, r in used], gaussian, s, t, step)
    return x


def step_weights(stats: GaussianStats, s: Level, t: Level, nodes: tuple[Level, ...], residual: str) -> Step:
    """Gains and weights from s to t, with the residuals of `nodes` (s first)."""
    values = torch.cat([stats.values, torch.tensor([stats.floor], dtype=torch.float64)]).numpy()
    return _weights(values.tobytes(), s, t, nodes, residual, (s.frame, *(n.alpha for n in nodes)))


@functools.lru_cache(maxsize=512)
def _weights(values: bytes, s: Level, t: Level, nodes: tuple[Level, ...], residual: str, key: Any) -> Step:
    """`key` tells levels of two frames apart, which compare equal."""
    variances = np.frombuffer(values)
    gain = np.sqrt((t.alpha**2 * variances + float(t) ** 2) / (s.alpha**2 * variances + float(s) ** 2))
    if t == 0 and residual == "denoised":  # a constant r would diverge: the denoised prediction itself
        gain, weights = s.alpha * variances / (s.alpha**2 * variances + float(s) ** 2), np.ones((1, len(variances)))
    elif len(nodes) == 1:
        weights = _constant(variances, s, t, gain, residual)[None]
    else:
        weights = _polynomial(variances, s, t, nodes, residual)
    if residual == "score":  # q = r (l + rho^2) / rho^2
        weights = weights * np.array([1 + (0.0 if math.isinf(n.ratio) else variances / n.ratio**2) for n in nodes])
    along, off = torch.from_numpy(weights[:, :-1].copy()), tuple(float(w) for w in weights[:, -1])
    return Step(torch.from_numpy(gain[:-1].copy()), float(gain[-1]), t.alpha * along, tuple(t.alpha * w for w in off))


def _constant(variances: np.ndarray, s: Level, t: Level, gain: np.ndarray, residual: str) -> np.ndarray:
    """The weight of a constant, over alpha_t."""
    if residual == "score":
        return 1 - gain * s.alpha / t.alpha
    root = np.sqrt(np.maximum(variances, 1e-14 * t.ratio**2))
    reach = np.arcsinh(root / t.ratio) - (0.0 if math.isinf(s.ratio) else np.arcsinh(root / s.ratio))
    return np.hypot(root, t.ratio) * reach / root


def _polynomial(variances: np.ndarray, s: Level, t: Level, nodes: tuple[Level, ...], residual: str) -> np.ndarray:
    """Weights (K, r) of the Lagrange polynomial in u = log rho through the nodes, by Gauss-Legendre quadrature."""
    a, b = -t.lam, -s.lam
    u = (a + b) / 2 + (b - a) / 2 * NODES
    metric = variances + np.exp(2 * u)[:, None]
    rate = np.exp(2 * u)[:, None] / metric**1.5 if residual == "score" else metric**-0.5
    rate = rate * ((b - a) / 2 * WEIGHTS)[:, None] * np.sqrt(variances + t.ratio**2)
    at = [-n.lam for n in nodes]
    basis = [np.prod([(u - at[j]) / (at[k] - at[j]) for j in range(len(at)) if j != k], axis=0) for k in range(len(at))]
    return np.array([(line[:, None] * rate).sum(0) for line in basis])
