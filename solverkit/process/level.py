"""Noise levels and the frames that they are measured in.

A model's own process is x = alpha(t) x_0 + sigma(t) eps. A run divides x by k = alpha + c sigma and measures noise by
s = sigma / k:

* c = 0, the sigma frame: alpha = 1 and s = sigma / alpha (VP, sub-VP, VE, EDM);
* c = 1, the flow frame: alpha = 1 - s with s in [0, 1], finite where the model's alpha is 0 (flow matching, zero-SNR VP).

In both the probability-flow ODE reads dx/ds = (x - D) / s, with D = E[x_0 | x], so a solver needs to know neither.
"""

from __future__ import annotations

import math

SIGMA_FRAME = 0
FLOW_FRAME = 1


class Level(float):
    """A noise level: a float (s) that knows its alpha, its log-SNR and what the network is told.

    Attributes:
        alpha: Signal coefficient in the frame, 1 - c s.
        lam: Half log-SNR log(alpha / s); inf at s = 0, -inf at alpha = 0. The same in every frame.
        time: What the network is told (a timestep, a sigma, a log sigma: the schedule decides).
        scale: k, so that the model's own x is k times the frame's x.
        frame: c, 0 or 1.
    """

    alpha: float
    lam: float
    time: float
    scale: float
    frame: int
    __slots__ = ("alpha", "frame", "lam", "scale", "time")

    def __new__(cls, s: float, time: float = math.nan, scale: float = 1.0, frame: int = SIGMA_FRAME) -> Level:
        self = super().__new__(cls, s)
        self.alpha = 1.0 - frame * float(s)
        self.lam = log_snr(self.alpha, float(s))
        self.time = float(time)
        self.scale = float(scale)
        self.frame = frame
        return self

    @property
    def ratio(self) -> float:
        """sigma / alpha, the same in every frame; inf at alpha = 0."""
        return math.inf if self.alpha == 0 else float(self) / self.alpha

    def __reduce__(self) -> tuple[type, tuple[float, float, float, int]]:
        return Level, (float(self), self.time, self.scale, self.frame)

    def __repr__(self) -> str:
        return f"Level({float(self):.6g}, time={self.time:.6g})"


def log_snr(alpha: float, s: float) -> float:
    """log(alpha / s) with its limits: inf at s = 0, -inf at alpha = 0."""
    if s == 0:
        return math.inf
    return -math.inf if alpha <= 0 else math.log(alpha / s)


def from_ratio(ratio: float, frame: int) -> float:
    """s in the frame from sigma / alpha: the ratio itself, or ratio / (1 + ratio)."""
    if frame == SIGMA_FRAME:
        return ratio
    return 1.0 if math.isinf(ratio) else ratio / (1.0 + ratio)


def to_ratio(s: float, frame: int) -> float:
    """sigma / alpha of s in the frame; inf at alpha = 0. The inverse of `from_ratio`."""
    if frame == SIGMA_FRAME:
        return s
    return math.inf if s >= 1 else s / (1.0 - s)


def from_log_snr(lam: float, frame: int) -> float:
    """s in the frame from the half log-SNR; written so that neither limit overflows."""
    if frame == SIGMA_FRAME:
        return math.inf if lam == -math.inf else math.exp(-lam)
    return 1.0 / (1.0 + math.exp(lam)) if lam < 700 else 0.0
