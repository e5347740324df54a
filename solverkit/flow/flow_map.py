"""The probability-flow ODE solved to a tolerance: from noise to data (`decode`), from data to noise (`encode`).

The state is z = x / sqrt(alpha^2 + s^2), whose coordinates are of order 1 at every level, and the variable is u = log s:

    dz/du = z - D / n - z s (s - c alpha) / n^2,   n = sqrt(alpha^2 + s^2), alpha = 1 - c s

so that one tolerance means the same from sigma_max to sigma_min, on every process.

Two integrators. A symmetric one on equal steps in u, whose way back retraces its way there, whatever the steps left out:
for edits and inversions, where `decode(encode(x))` has to be x. An adaptive one, to a tolerance: for the flow itself.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from ..errors import OptionError
from ..model.counting import counting
from ..model.denoiser import DenoiserLike
from ..process.level import Level, from_ratio
from . import gauss_legendre
from .dormand_prince import Solution, integrate
from .precision import asked_dtype, column, precise, sent
from .rows import ask, takes_rows


class FlowMap(NamedTuple):
    """What an integration made.

    Attributes:
        x: Latents or samples (B, ...), in the model's own coordinates at the level where it ended.
        level: Where it ended.
        nfe: Network rows that were counted, divided by the number of samples.
        steps: Steps of each sample (the accepted ones, where adaptive), (B,).
    """

    x: torch.Tensor
    level: Level
    nfe: float
    steps: torch.Tensor

    def __repr__(self) -> str:
        least, most = int(self.steps.min()), int(self.steps.max())
        steps = f"{least}" if least == most else f"{least} to {most}"
        return f"FlowMap(x {tuple(self.x.shape)} {self.x.dtype}, {self.level!r}, nfe={self.nfe:.4g}, {steps} steps)"


def norm(level: Level) -> float:
    """n = sqrt(alpha^2 + s^2) of the frame."""
    return math.hypot(level.alpha, float(level))


class FlowField:
    """dz/du of a denoiser, for samples at levels of their own.

    Samples that share a level share a call; all share one where the denoiser takes a level a row.

    Args:
        denoiser: Of the network.
        dtype, device: In which and where the denoiser is asked; the device of the states if not given. They are float64.
    """

    def __init__(self, denoiser: DenoiserLike, dtype: torch.dtype, device: torch.device | None = None) -> None:
        self.denoiser, self.dtype, self.device = denoiser, dtype, device
        self.frame = denoiser.schedule.frame

    def level(self, u: float) -> Level:
        """The level at u = log s; only the told time is rounded for a network that knows integers."""
        return self.denoiser.schedule.at(math.exp(min(u, 0.0) if self.frame else u), snap=False)

    def levels(self, u: torch.Tensor) -> list[Level]:
        """The level of each row at u (b,)."""
        values = u.tolist()
        made = {value: self.level(value) for value in set(values)}
        return [made[value] for value in values]

    def __call__(self, z: torch.Tensor, u: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """dz/du of the samples `rows`, z (b, ...) float64 at u (b,)."""
        return self._slopes(z, self.levels(u), rows)

    def slope(self, z: torch.Tensor, level: Level) -> torch.Tensor:
        """dz/du of states (b, ...) at one level."""
        return self._slopes(z, [level] * len(z), None)

    def _slopes(self, z: torch.Tensor, levels: list[Level], rows: torch.Tensor | None) -> torch.Tensor:
        """(x - D) / n - z d log n / du, with d n^2 / du = 2 s (s - c alpha)."""
        n, growth = column([norm(level) for level in levels], z), column([self.growth(level) for level in levels], z)
        x = sent(z * n, self.dtype, self.device or z.device)
        return z * growth - precise(ask(self.denoiser, x, levels, rows)).to(z.device) / n

    def solve(
        self, z: torch.Tensor, start: Level, end: Level, rtol: float, atol: float, shared: bool, max_steps: int
    ) -> Solution:
        """z (B, ...) float64 taken adaptively from one level to another; see `transport`."""
        together = takes_rows(self.denoiser)
        return integrate(self, z, math.log(start), math.log(end), rtol, atol, shared, max_steps, together)

    def growth(self, level: Level) -> float:
        """What z is multiplied by in dz/du: 1 - d log n / du."""
        s = float(level)
        return 1 - s * (s - self.frame * level.alpha) / norm(level) ** 2


def transport(
    denoiser: DenoiserLike,
    x: torch.Tensor,
    start: Level,
    end: Level,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    shared: bool = False,
    max_steps: int = 10_000,
) -> Solution:
    """Frame states (B, ...) taken from one level above 0 to another along the probability flow; float64.

    The denoiser is asked in x's dtype (float32 for half ones) on x's device; the result is on the host, or on a CUDA x's.

    Args:
        denoiser: Of the network.
        x: Frame states at `start`.
        start, end: Levels above 0.
        rtol, atol: Tolerances of a step, on coordinates of order 1.
        shared: All samples take the same steps, which then depend on the batch; else each has its own.
        max_steps: Most steps that one sample may try.

    Raises:
        OptionError: tolerances that mean nothing.
        BudgetError: more than max_steps, or a step that underflows.
        NonFiniteError: NaN or inf in an answer of the network; names the level and the samples.
    """
    flow, z = FlowField(denoiser, asked_dtype(x), x.device), precise(x) / norm(start)
    solution = flow.solve(z, start, end, rtol, atol, shared, max_steps)
    return solution._replace(y=solution.y * norm(end))


def encode(
    denoiser: DenoiserLike,
    x: torch.Tensor,
    steps: int | None = 40,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = 10_000,
) -> FlowMap:
    """Data to latents: the probability flow from the smallest trained level up to the largest.

    Args:
        denoiser: Of the network.
        x: Data (B, ...).
        steps: Equal steps in log s of the symmetric method of order 4, which decode with as many steps undoes to the
            rounding of the network; None integrates adaptively to rtol and atol.
        rtol, atol: Tolerances of an adaptive step, on coordinates of order 1.
        max_steps: Most adaptive steps of a sample. A sample's steps are its own: they do not depend on the batch.

    Returns:
        `FlowMap` whose x is unit noise for VP and flow models, sigma_max times it for VE and EDM.

    Raises:
        OptionError: x is no batch of floating-point samples, or steps is no positive integer.
        BudgetError: more than max_steps, a step that underflows, or steps too long for the implicit equations of the
            symmetric method.
        NonFiniteError: NaN or inf in an answer of the network; names the level and the samples.
    """
    bottom, top = ends(denoiser)
    return _mapped(denoiser, x, bottom, top, steps, rtol, atol, max_steps)


def decode(
    denoiser: DenoiserLike,
    x: torch.Tensor,
    steps: int | None = 40,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = 10_000,
    denoise: bool = False,
) -> FlowMap:
    """Latents to data: the inverse of `encode`.

    Args:
        denoiser, steps, rtol, atol, max_steps: As for `encode`.
        x: Latents (B, ...), as `encode` returns them.
        denoise: End with the denoised prediction at the smallest level; `decode(encode(x))` is then no longer x.

    Raises:
        OptionError, BudgetError: as `encode`.
    """
    bottom, top = ends(denoiser)
    out = _mapped(denoiser, x, top, bottom, steps, rtol, atol, max_steps)
    if not denoise:
        return out
    with torch.no_grad(), counting() as count:
        clean = ask(denoiser, out.x / bottom.scale, [bottom] * len(x))
    return out._replace(x=clean, level=denoiser.schedule.at(0.0), nfe=out.nfe + count.rows / len(x))


def ends(denoiser: DenoiserLike) -> tuple[Level, Level]:
    """The smallest and the largest level of an integration: above 0, and where alpha is at least 1e-6."""
    schedule = denoiser.schedule
    most = schedule.ratio_max if math.isfinite(schedule.ratio_max) else 1e6
    bottom, top = from_ratio(schedule.ratio_min, schedule.frame), from_ratio(most, schedule.frame)
    return schedule.at(bottom, snap=False), schedule.at(top, snap=False)


def _mapped(
    denoiser: DenoiserLike,
    x: torch.Tensor,
    start: Level,
    end: Level,
    steps: int | None,
    rtol: float,
    atol: float,
    max_steps: int,
) -> FlowMap:
    require_batch(x)
    with torch.no_grad(), counting() as count:
        flow = FlowField(denoiser, asked_dtype(x), x.device)
        z = precise(x) / (start.scale * norm(start))
        if steps is None:
            z, taken, _ = flow.solve(z, start, end, rtol, atol, False, max_steps)
        else:
            z = gauss_legendre.integrate(flow, z, math.log(start), math.log(end), steps)
            taken = torch.full((len(x),), steps)
    y = z * (norm(end) * end.scale)
    return FlowMap(sent(y, x.dtype, x.device), end, count.rows / len(x), taken)


def require_batch(x: Any) -> None:
    """Raises OptionError unless x is a batch of floating-point samples."""
    if not (isinstance(x, torch.Tensor) and x.is_floating_point() and x.ndim > 1 and len(x)):
        given = f"{tuple(x.shape)}, {x.dtype}" if isinstance(x, torch.Tensor) else type(x).__name__
        raise OptionError(f"x must be a floating-point batch (B, ...), got {given}.")
