"""The figures of a network at one noise level."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch

from ..errors import DenoiserError
from ..process.level import Level
from ..run.noise import SampleNoise, sample_seeds
from .clean import Clean
from .probed import Probed, inner, largest_gain, signs

NAN = math.nan
ROUNDS, GAINED = 8, 4  # of the power iteration, and the samples that it is made at


@dataclass(frozen=True)
class AtLevel:
    """Figures at one level, d the dimension; x = alpha x_0 + s eps in the frame of the run, score (alpha D - x) / s^2.

    Attributes:
        ratio: sigma / alpha.
        time: What the network is told.
        nonfinite: Rows with NaN or inf, of the samples.
        largest: Largest |D| over the largest |x_0|.
        asymmetry: ||K - K^T||_F / (2 ||K||_F) of K = I - alpha dD/dx, the Jacobian of the noise that is predicted: 0 for a
            gradient, 1 for a rotation. By probes u, v: E (u^T (K - K^T) v)^2 = ||K - K^T||_F^2.
        ssm: Sliced score matching loss with reduced variance, E[v^T (dscore/dx) v + |score|^2 / 2], in d / s^2 (Song et al.
            2019, eq. 8); by autograd, NaN where there is none.
        ssm_error: Its standard error.
        fd_ssm: The same by finite differences, without autograd (Pang et al. 2020, eq. 11).
        balance: E|score|^2 / E[-tr dscore/dx], 1 for the score of the density that x is drawn from.
        loss: Denoising loss E|D - x_0|^2 / d.
        loss_error: Its standard error.
        linear: What the best denoiser that treats each coordinate for itself, linearly, would lose.
        bias: RMS over coordinates of E D - E x_0, over the data's spread, less what the estimate's own error explains.
        lipschitz: Largest ||dD/dy||_2, y = x / alpha.
        bfloat16, float16: RMS of the change of D with the network in half precision, over the data's spread; NaN where the
            network is no module.
        guided: RMS of what guidance adds to the conditional prediction, over the spread; NaN without guidance.
    """

    ratio: float
    time: float
    nonfinite: int = 0
    largest: float = NAN
    asymmetry: float = NAN
    ssm: float = NAN
    ssm_error: float = NAN
    fd_ssm: float = NAN
    balance: float = NAN
    loss: float = NAN
    loss_error: float = NAN
    linear: float = NAN
    bias: float = NAN
    lipschitz: float = NAN
    bfloat16: float = NAN
    float16: float = NAN
    guided: float = NAN

    def row(self) -> dict[str, float]:
        """All of them by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def measured(
    denoiser: Any, level: Level, data: Clean, halves: dict[str, Any], batch: int, dtype: torch.dtype, seed: int
) -> AtLevel:
    """The figures at one level, s > 0.

    Args:
        denoiser: Of the network.
        level: Where.
        data: Clean samples.
        halves: The same network in half precision, by the name of the figure.
        batch: Rows of one call.
        dtype: Of states.
        seed: Of noise and probes.
    """
    probed = Probed(denoiser, level, batch, dtype)
    x, d = data.x, data.x[0].numel()
    alpha, s = level.alpha, float(level)
    seeds = sample_seeds(seed, len(x))
    eps = SampleNoise(seeds, tuple(x.shape[1:]), torch.float64)(0)
    noisy, mirrored = alpha * x + s * eps, alpha * x - s * eps
    first, second = probed.denoised(noisy), probed.denoised(mirrored)
    bad = ~torch.cat([first, second]).flatten(1).isfinite().all(1)
    base: dict[str, Any] = {"ratio": level.ratio, "time": level.time, "nonfinite": int(bad.sum())}
    if base["nonfinite"]:
        return AtLevel(**base)
    peak = float(x.abs().max())
    base["largest"] = float(torch.cat([first, second]).abs().max()) / peak if peak > 0 else NAN
    losses = ((first - x).square() + (second - x).square()).flatten(1).mean(1) / 2
    base |= {"loss": float(losses.mean()), "loss_error": _error(losses)}
    base["linear"] = float((data.variance * s**2 / (alpha**2 * data.variance + s**2)).mean())
    base["bias"] = _bias(data, first, second, level)
    base |= _score_matching(probed, noisy, first, seeds, d)
    some = slice(0, min(len(x), GAINED))
    autograd = "ssm" in base
    base["lipschitz"] = alpha * largest_gain(probed, noisy[some], _normal(seeds[some], x), ROUNDS, autograd)
    for name, half in halves.items():
        base[name] = _changed(half, probed, noisy, first, data.spread)
    inside = getattr(denoiser, "conditional", None)
    if inside is not None:
        conditional = Probed(inside, level, batch, dtype).denoised(noisy)
        base["guided"] = float((first - conditional).square().mean().sqrt()) / data.spread
    return AtLevel(**base)


def _score_matching(
    probed: Probed, x: torch.Tensor, denoised: torch.Tensor, seeds: list[int], d: int
) -> dict[str, float]:
    """Both losses, the balance and the asymmetry, with the same two probes."""
    alpha, s = probed.level.alpha, float(probed.level)
    u, v = (signs(seeds, tuple(x.shape[1:]), k) for k in (0, 1))
    square = inner(alpha * denoised - x, alpha * denoised - x) / (s**2 * d)  # |score|^2 in units of d / s^2
    ends = [probed.ends(x, probe) for probe in (u, v)]
    by_difference = [
        alpha * inner(probe, above - below) / (2 * c * d) - 1
        + ((alpha * (above + below) / 2 - x).square().flatten(1).sum(1) / (2 * s**2 * d))
        for probe, (above, below, c) in zip((u, v), ends)
    ]  # fmt: skip
    found = {"fd_ssm": float(torch.stack(by_difference).mean())}
    try:
        back = probed.pulled(x, [u, v])
        traces = torch.stack([alpha * inner(w, p) / d - 1 for w, p in zip(back, (u, v))]).mean(0)
        losses = traces + square / 2
        found |= {"ssm": float(losses.mean()), "ssm_error": _error(losses)}
        turned = alpha * (inner(back[0], v) - inner(back[1], u))
    except DenoiserError:
        back = [(above - below) / (2 * c) for above, below, c in ends]
        traces = torch.stack([alpha * inner(w, p) / d - 1 for w, p in zip(back, (u, v))]).mean(0)
        turned = alpha * (inner(u, back[1]) - inner(v, back[0]))
    found["balance"] = -float(square.mean() / traces.mean())
    size = sum(float(inner(p - alpha * w, p - alpha * w).mean()) for w, p in zip(back, (u, v))) / 2  # ||K||_F^2
    found["asymmetry"] = math.sqrt(float(turned.square().mean()) / size) / 2 if size > 0 else NAN
    return found


def _bias(data: Clean, first: torch.Tensor, second: torch.Tensor, level: Level) -> float:
    """E D - E x_0 with the samples' own x_0 as a control: D - b x_0 - (1 - b) mean has the mean 0 for any b."""
    b = 1 / (1 + (level.ratio / data.spread) ** 2)
    off = (first + second) / 2 - b * data.x - (1 - b) * data.mean
    explained = float((off.var(0) / len(off)).mean())
    return math.sqrt(max(float(off.mean(0).square().mean()) - explained, 0.0)) / data.spread


def _changed(half: Any, probed: Probed, x: torch.Tensor, denoised: torch.Tensor, spread: float) -> float:
    some = slice(0, min(len(x), 4 * GAINED))
    try:
        answer = Probed(half, probed.level, probed.batch, probed.dtype).denoised(x[some])
    except DenoiserError:  # a kernel that the device does not have in half precision
        return NAN
    return float((answer - denoised[some]).square().mean().sqrt()) / spread


def _normal(seeds: list[int], x: torch.Tensor) -> torch.Tensor:
    return SampleNoise(seeds, tuple(x.shape[1:]), torch.float64)(1)


def _error(values: torch.Tensor) -> float:
    return float(values.std()) / math.sqrt(len(values))
