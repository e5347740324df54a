"""Gaussian statistics from a network alone: no data, no sampling.

At high noise D(x) is close to mu + J (x - mu) with J = Sigma (Sigma + s^2 I)^(-1) (sigma frame): its eigenvectors are those
of Sigma, and an eigenvalue j of J means the variance l = s^2 j / (1 - j). Products with J are differences of two calls at
noisy points, so that the network sees inputs of the kind that it was trained on; J is never formed. A randomised range
finder (Halko, Martinsson and Tropp 2011, Algorithms 4.4 and 5.3) finds the leading directions.

The level. Higher, D is closer to linear; lower, J is larger against the network's own error. By rule the largest level
where the leading eigenvalue of J reaches 0.1, that is s = 3 standard deviations of the leading direction, or the top
of the schedule if that lies below.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import torch

from ..errors import StatsError
from ..model.counting import counting
from ..model.denoiser import DenoiserLike, require_finite
from ..process.level import Level, from_ratio
from ..run.noise import SampleNoise, sample_seeds
from .gaussian import Gaussian
from .profile import TOP

LEADING = 0.1
OVERSAMPLING = 10
MEAN_PAIRS = (64, 64, 256)  # rounds: D(x) = mu + J (x - mu) brings a wrong mu nearer by J
LAST = 4  # times as many points in the last pass
MOST = 0.999  # of an eigenvalue j: above it j / (1 - j) is rounding


class _Jacobian:
    """Products with the mean Jacobian of D at one level, in ratio units: y = x / alpha, r = s / alpha."""

    def __init__(self, denoiser: DenoiserLike, shape: tuple[int, ...], seed: int, batch: int) -> None:
        self.denoiser, self.shape, self.batch = denoiser, shape, batch
        self.device = torch.device(getattr(denoiser, "device", "cpu"))
        self.seeds, self.used, self.asked = seed, 0, 0

    def noise(self, n: int) -> torch.Tensor:
        self.used += 1
        seeds = sample_seeds(self.seeds + 7919 * self.used, n)
        return SampleNoise(seeds, self.shape, torch.float32, self.device)(0)

    def level(self, ratio: float) -> Level:
        return self.denoiser.schedule.at(from_ratio(ratio, self.denoiser.schedule.frame), snap=False)

    def denoised(self, y: torch.Tensor, level: Level) -> torch.Tensor:
        answers = []
        for rows in y.split(self.batch):
            answers.append(self.denoiser(rows * level.alpha, level).cpu().double())  # a device may know no float64
            self.asked += 1
            require_finite(answers[-1], self.asked - 1, level)
        return torch.cat(answers)

    def mean(self, ratio: float, pairs: int, around: torch.Tensor) -> torch.Tensor:
        """D averaged over antithetic noise around a point."""
        z = ratio * self.noise(pairs)
        around = around.float().to(self.device)
        return self.denoised(torch.cat([around + z, around - z]), self.level(ratio)).mean(0)

    def product(self, v: torch.Tensor, ratio: float, mean: torch.Tensor, points: int) -> torch.Tensor:
        """J v of rows v (k, D), each at `points` noisy points of its own, (k, D) float64; 2 k points calls.

        Every second point mirrors the one before it, which cancels what is odd in the noise (the data's skewness).
        """
        level, k = self.level(ratio), len(v)
        step = ratio * v.reshape(k, *self.shape).float().to(self.device)
        out = torch.zeros(k, v.shape[1], dtype=torch.float64)
        z = torch.zeros(())
        for i in range(points):
            z = ratio * self.noise(k) if i % 2 == 0 else -z
            y = mean.float().to(self.device) + z
            up, down = self.denoised(torch.cat([y + step, y - step]), level).chunk(2)
            out += ((up - down) / (2 * ratio)).flatten(1)
        return out / points


def from_network(
    denoiser: DenoiserLike, rank: int = 64, ratio: float | None = None, points: int = 4, passes: int = 2,
    batch_size: int = 128, seed: int = 0, shape: tuple[int, ...] | None = None,
) -> tuple[Gaussian, dict[str, Any]]:  # fmt: skip
    """Mean, leading directions and variances from products with the network's Jacobian.

    Costs about 2 points (rank + 10) (passes + 4) evaluations, all counted in the provenance: the last pass, which gives
    the variances, is averaged over four times as many points. The floor is the mean variance off the basis, from random
    probes of J.

    Args:
        denoiser: Of the network; of a guided one it gives the guided one's statistics.
        rank: Directions to find; at most the dimension are.
        ratio: Level sigma / alpha; None follows the rule above.
        points: Noisy points that each product is averaged over.
        passes: Power iterations.
        batch_size: Samples of one call.
        seed: Of the noise and the probes.
        shape: Of one sample, where the denoiser does not know it.

    Raises:
        StatsError: a rank below 1, an unknown shape, or predictions that make no Gaussian: an eigenvalue of J so near 1
            that it tells no variance.
        NonFiniteError: the network answered NaN or inf.

    Warns:
        UserWarning: the floor is 0, since off the basis J has no positive mean.
    """
    shape = shape or getattr(denoiser, "shape", None)
    if shape is None:
        raise StatsError("this denoiser does not know the shape of a sample; give shape=.")
    D = math.prod(shape)
    if rank < 1:
        raise StatsError(f"rank must be at least 1, got {rank}.")
    rank = min(rank, D)
    jacobian = _Jacobian(denoiser, tuple(shape), seed, batch_size)
    schedule = denoiser.schedule
    top = schedule.ratio_max if math.isfinite(schedule.ratio_max) else TOP
    with torch.no_grad(), counting() as count:
        zero = torch.zeros(shape)
        mean = jacobian.mean(top, 16, zero)
        mean = jacobian.mean(top, 16, mean)
        ratio, at = _level(jacobian, mean, top, D) if ratio is None else (float(ratio), 0.0)
        for pairs in MEAN_PAIRS:
            mean = jacobian.mean(ratio, pairs, mean)
        width = min(D, rank + OVERSAMPLING)
        image = jacobian.noise(width).flatten(1).cpu().double()
        for i in range(passes + 1):
            v = torch.linalg.qr(image.T)[0].T
            image = jacobian.product(v, ratio, mean, points if i < passes else LAST * points)
        gaussian = _assembled(mean, v, image, ratio, rank)
        if rank < D:
            off = jacobian.noise(16).flatten(1).cpu().double()
            vectors = gaussian.vectors.double()
            off = torch.nn.functional.normalize(off - (off @ vectors.T) @ vectors)
            rest = (off * jacobian.product(off, ratio, mean, points)).sum(1).mean()
            gaussian = replace(gaussian, floor=min(ratio**2 * float(_odds(rest)), float(gaussian.values[-1])))
            if gaussian.floor == 0:
                warnings.warn(
                    f"the floor is 0: beyond {rank} directions the network shows no variance at sigma/alpha = {ratio:.3g}, "
                    "and a jump takes them to the mean. A larger rank keeps more of them.",
                    stacklevel=2,
                )
    source = {"source": "network", "ratio": ratio, "leading": at, "evaluations": count.rows, "rank": rank}
    return gaussian, {**source, "explained": gaussian.explained}


def _assembled(mean: torch.Tensor, v: torch.Tensor, image: torch.Tensor, ratio: float, rank: int) -> Gaussian:
    """Ritz vectors and variances from orthonormal rows v and J v."""
    small = v @ image.T
    j, turn = torch.linalg.eigh((small + small.T) / 2)
    if float(j[-1]) >= MOST:
        raise StatsError(
            f"at sigma/alpha = {ratio:.4g} the network hands its input on: an eigenvalue of its Jacobian is "
            f"{float(j[-1]):.4g}, and 1 means an infinite variance. Give a higher level (ratio=), or take those of "
            "data or samples. If that level is the top of the schedule, prediction= or schedule= of sk.wrap may be wrong."
        )
    values = ratio**2 * _odds(j.flip(0)[:rank])
    return Gaussian(mean, (turn.T.flip(0)[:rank] @ v).float(), values)


def _odds(j: torch.Tensor) -> torch.Tensor:
    """j / (1 - j) with j clipped to [0, 1): what the variance is in units of ratio^2."""
    j = j.clamp(0, MOST)
    return j / (1 - j)


def _level(jacobian: _Jacobian, mean: torch.Tensor, top: float, D: int) -> tuple[float, float]:
    """Down from the top until the leading eigenvalue of J, by 3 power iterations on 4 directions, reaches LEADING.

    Between levels l is taken as constant, so that two or three levels suffice.
    """
    ratio, v = top, jacobian.noise(min(4, D)).flatten(1).cpu().double()
    leading = 0.0
    for _ in range(6):
        for _ in range(3):
            v = torch.linalg.qr(v.T)[0].T
            image = jacobian.product(v, ratio, mean, 1)
            leading, v = float(torch.linalg.eigvalsh((v @ image.T + image @ v.T) / 2).max()), image
        if leading >= 0.8 * LEADING:
            break
        value = ratio**2 * max(leading, 1e-9) / (1 - min(leading, 0.5))
        target = math.sqrt(value * (1 - LEADING) / LEADING)
        ratio = min(max(target, ratio / 8), ratio)
    return ratio, leading
