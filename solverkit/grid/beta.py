"""Quantiles of the Beta distribution, in float64."""

from __future__ import annotations

import math

TERMS = 400  # of the continued fraction; at a, b <= 1000 it needs O(sqrt(max(a, b)))
TINY = 1e-300


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function, by the modified Lentz method; fast for x < (a+1)/(a+b+2)."""
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > TINY else TINY)
    value = d
    for m in range(1, TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for numerator in (even, odd):
            d, c = 1 + numerator * d, 1 + numerator / c
            d, c = 1 / (d if abs(d) > TINY else TINY), c if abs(c) > TINY else TINY
            value *= c * d
        if abs(c * d - 1) < 1e-16:
            break
    return value


def incomplete_beta(a: float, b: float, x: float) -> float:
    """I_x(a, b), the distribution function of Beta(a, b) at x in [0, 1].

    Source: Press et al. 2007 (Numerical Recipes), section 6.4, eq. 6.4.5-6.4.6; DLMF 8.17.22.
    """
    if not 0 < x < 1:
        return float(x >= 1)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, 1 - x) / b


def _excess(p: float, q: float, a: float, b: float, x: float) -> float:
    """I_x(a, b) - p with q = 1 - p, from the smaller of the two tails: the other one has lost its digits."""
    return incomplete_beta(a, b, x) - p if p <= q else q - incomplete_beta(b, a, 1 - x)


def beta_quantile(p: float, a: float, b: float) -> float:
    """x with I_x(a, b) = p.

    Args:
        p: In [0, 1].
        a, b: Above 0.
    """
    if p <= 0 or p >= 1:
        return float(p >= 1)
    q = 1 - p
    if _excess(p, q, a, b, 0.5) < 0:  # in the half where it is small, x keeps its digits
        return 1 - _small_quantile(q, p, b, a)
    return _small_quantile(p, q, a, b)


def _small_quantile(p: float, q: float, a: float, b: float) -> float:
    """A quantile of at most 1/2: Newton's steps in log x, kept inside a bracket that each of them narrows."""
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    low, high = -math.inf, math.log(0.5)
    u = min((math.log(p) + math.log(a) + log_beta) / a, high)  # I_x = x^a / (a B(a, b)) for small x
    for _ in range(200):
        x = math.exp(u)
        if x == 0:
            return 0.0
        excess = _excess(p, q, a, b, x)
        low, high = (u, high) if excess < 0 else (low, u)
        step = excess / math.exp(a * u + (b - 1) * math.log1p(-x) - log_beta)  # dI / d log x
        if abs(step) < 1e-15 * max(1.0, abs(u)):
            break
        u -= step
        if not low < u < high:
            u = (low + high) / 2 if math.isfinite(low) else high - 1
    return math.exp(u)
