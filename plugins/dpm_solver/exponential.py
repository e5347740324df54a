"""The exponential-integrator step that all solvers of this family share.

From s to t in any frame, h = lam_t - lam_s, r = e^{-h} = t alpha_s / (alpha_t s), finite at both ends. With the denoised
prediction D frozen the ODE is solved exactly by

    x+ = (t / s) x + alpha_t (1 - r) D                      (data form)
    x+ = (alpha_t / alpha_s) x - t (e^h - 1) E              (noise form, E = (x - alpha_s D) / s: the same step)

and higher orders add phi-functions of h times differences of D (or E).
"""

from __future__ import annotations

import math
from typing import Any

from solverkit import Level


def phi(k: int, z: float) -> float:
    """phi_0 = e^z, phi_{k+1}(z) = (phi_k(z) - 1/k!) / z: integral of e^{(1-u) z} u^{k-1} / (k-1)! over [0, 1].

    A Taylor series where the recursion would cancel. Source: Hochbruck and Ostermann 2010, eq. 2.10-2.11.
    """
    if k == 0:
        return math.exp(z)
    if abs(z) < (0.0, 1e-3, 0.1, 0.2, 0.4, 0.8)[min(k, 5)]:
        return sum(z**j / math.factorial(j + k) for j in range(16))
    value = math.expm1(z) / z
    for j in range(1, k):
        value = (value - 1.0 / math.factorial(j)) / z
    return value


def contraction(s: Level, t: Level) -> float:
    """r = e^{-h} = t alpha_s / (alpha_t s), finite at alpha_s = 0 and at t = 0."""
    return t * s.alpha / (t.alpha * s)


def exact_step(x: Any, denoised: Any, s: Level, t: Level) -> Any:
    """(t / s) x + alpha_t (1 - r) D: DDIM, Euler in s, DPM-Solver-1."""
    return (t / s) * x + (t.alpha * (1 - contraction(s, t))) * denoised


def step_length(s: Level, t: Level) -> float:
    """h = lam_t - lam_s; inf where the step starts at alpha = 0 or ends at 0."""
    return t.lam - s.lam
