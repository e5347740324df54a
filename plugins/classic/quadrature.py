"""Weights of multistep methods: integrals of the Lagrange polynomials through past nodes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np


@functools.lru_cache(maxsize=8)
def _gauss_legendre(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(count)


def lagrange_weights(
    nodes: Sequence[float], s: float, t: float, variable: Callable[[float], float], points: int
) -> list[float]:
    """w_j = integral from s to t of L_j(variable(u)) du, with L_j the Lagrange polynomial of `nodes`.

    Args:
        nodes: Values of the variable at the evaluations, newest first.
        s, t: Ends of the step.
        variable: What the polynomial is in, as a function of s.
        points: Gauss-Legendre points; exact for polynomials of degree 2 points - 1.
    """
    u, w = _gauss_legendre(points)
    at = 0.5 * (s + t) + 0.5 * (t - s) * u
    values = np.array([variable(float(a)) for a in at])
    weights = []
    for j, node in enumerate(nodes):
        basis = np.ones_like(values)
        for k, other in enumerate(nodes):
            if k != j:
                basis *= (values - other) / (node - other)
        weights.append(float(0.5 * (t - s) * (w @ basis)))
    return weights
