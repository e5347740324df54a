"""What a step of DPM-Solver-v3 multiplies with, a number a coordinate: integrals of the model statistics.

Between lam_0 and lam, with L, S and B the integrals of l, s and e^{-S} b from lam_0 on, f = e^S (g + B) and

    y_t = e^{-L_t} (y_0 - int e^{L + S} (g + B) dlam),        g ~ sum_k g^(k) (lam - lam_0)^k / k!

where the derivatives g^(k) come from past (and, in the corrector, the new) g_i = e^{-S_i} f_i - B_i. Integrals are taken by
Gauss-Legendre quadrature on panels that end at the kinks of the statistics.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from solverkit import Level
from solverkit.ems.stats import Statistics

WIDEST, POINTS = 0.25, 8  # of a panel in log-SNR, and its nodes


class Weights:
    """x_t = gain x_s + constant + sum_i terms_i f_i in the frame; compared by value."""

    def __init__(self, gain: torch.Tensor, constant: torch.Tensor, terms: torch.Tensor) -> None:
        self.gain, self.constant, self.terms = gain, constant, terms

    def __eq__(self, other: object) -> bool:
        mine = (self.gain, self.constant, self.terms)
        return isinstance(other, Weights) and all(map(torch.equal, mine, (other.gain, other.constant, other.terms)))

    __hash__ = object.__hash__

    def beyond(self, other: Weights) -> Weights:
        """What turns a predicted step into this one, which has the new point's term and perhaps fewer past ones."""
        past, new = -other.terms, self.terms[-1:]
        past[: len(self.terms) - 1] += self.terms[:-1]
        return Weights(torch.ones_like(self.gain), self.constant - other.constant, torch.cat([past, new]))


class Path(NamedTuple):
    """L, S and B from a start on, at nodes (n, *shape) with their quadrature weights (n,), and at the end."""

    lams: torch.Tensor
    weights: torch.Tensor
    L: torch.Tensor
    S: torch.Tensor
    B: torch.Tensor
    ends: tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def step_weights(stats: Statistics, s: Level, t: Level, past: Sequence[Level], new: bool, pseudo: bool) -> Weights:
    """The weights of a step from s to t.

    Args:
        stats: l, s and b.
        s, t: Finite levels, s above t.
        past: Levels of the f that are used, s first.
        new: Whether f at t is used too; its term is the last.
        pseudo: The derivatives as released (`derivatives`).
    """
    nodes = (s.lam, *((t.lam,) if new else ()), *(level.lam for level in past[1:]))
    gain, constant, terms = _weights(stats, s.lam, t.lam, nodes, pseudo)
    order = [0, *range(2, len(nodes)), 1] if new else list(range(len(nodes)))
    return Weights(t.alpha / s.alpha * gain, t.alpha * constant, t.alpha * terms[order])


def derivatives(nodes: Sequence[float], pseudo: bool) -> np.ndarray:
    """M with g^(k) = sum_i M_ki g_i at the first node, (n, n) of n nodes.

    Of the polynomial through all g_i; or, pseudo, k! times the divided differences of the first k + 1 nodes, which are its
    derivatives only where k is the highest order there is.
    """
    n = len(nodes)
    u = np.array(nodes) - nodes[0]
    if not pseudo:
        return np.linalg.inv(np.array([[x**k / math.factorial(k) for k in range(n)] for x in u]))
    found = np.zeros((n, n))
    for k in range(n):
        for i in range(k + 1):
            found[k, i] = math.factorial(k) / math.prod(u[i] - u[j] for j in range(k + 1) if j != i)
    return found


@functools.lru_cache(maxsize=64)
def _weights(
    stats: Statistics, lam: float, lam_t: float, nodes: tuple[float, ...], pseudo: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Over alpha: of y_0, the constant, and of f at each node (n, *shape)."""
    path = _path(stats, lam, lam_t)
    L, S, B = path.ends
    growth = _along(path.weights, path.L) * torch.exp(path.L + path.S)
    u = path.lams - lam
    moments = [(_along(u**k / math.factorial(k), path.L) * growth).sum(0) for k in range(len(nodes))]
    matrix = derivatives(nodes, pseudo)
    out, constant = torch.exp(-L), (growth * path.B).sum(0)
    terms = []
    for i, node in enumerate(nodes):
        of_g = torch.stack([float(matrix[k, i]) * moment for k, moment in enumerate(moments)]).sum(0)
        S_i, B_i = (S, B) if node == lam_t else _behind(stats, node, lam)
        terms.append(-out * of_g * torch.exp(-S_i))
        constant = constant - of_g * B_i
    return out, -out * constant, torch.stack(terms)


def _behind(stats: Statistics, node: float, lam: float) -> tuple[torch.Tensor, torch.Tensor]:
    """S and B, counted from lam, at a node at or before it."""
    if node == lam:
        zero = torch.zeros(tuple(stats.shape), dtype=torch.float64)
        return zero, zero
    _, S, B = _path(stats, node, lam).ends
    return -S, -torch.exp(S) * B


@functools.lru_cache(maxsize=8)
def _path(stats: Statistics, start: float, end: float) -> Path:
    kinks = [start, *(lam for lam in stats.breaks if start < lam < end), end]
    edges = [start]
    for left, right in pairwise(kinks):
        parts = max(math.ceil((right - left) / WIDEST), 1)
        edges += [left + (right - left) * (i + 1) / parts for i in range(parts)]
    x, w, inner = _rule()
    zero = torch.zeros(tuple(stats.shape), dtype=torch.float64)
    L, S, B = zero, zero, zero
    found: list[tuple[torch.Tensor, ...]] = []
    for left, right in pairwise(edges):
        half = (right - left) / 2
        lams = (left + right) / 2 + half * x
        l, s, b = stats.at(lams)  # noqa: E741

        def integral(values: torch.Tensor, half: float = half) -> tuple[torch.Tensor, torch.Tensor]:
            return half * torch.tensordot(inner, values, 1), half * torch.tensordot(w, values, 1)

        (L_in, dL), (S_in, dS) = integral(l), integral(s)
        B_in, dB = integral(torch.exp(-(S + S_in)) * b)
        found.append((lams, half * w, *(v.expand(POINTS, *zero.shape) for v in (L + L_in, S + S_in, B + B_in))))
        L, S, B = L + dL, S + dS, B + dB
    lams, weights, *along = (torch.cat(parts) for parts in zip(*found))
    return Path(lams, weights, along[0], along[1], along[2], (L, S, B))


@functools.lru_cache(maxsize=1)
def _rule() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gauss-Legendre nodes and weights on [-1, 1], and the integrals from -1 to each node of the polynomial through all."""
    x, w = np.polynomial.legendre.leggauss(POINTS)
    legendre = np.polynomial.legendre
    to_coefficients = np.linalg.inv(legendre.legvander(x, POINTS - 1))
    inner = np.array([legendre.legval(x, legendre.legint(c, lbnd=-1)) for c in to_coefficients.T]).T
    return torch.from_numpy(x), torch.from_numpy(w), torch.from_numpy(inner)


def _along(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(n,) shaped to multiply (n, *shape)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))
