"""How a network leaves its Gaussian: measured once along its own trajectories, kept with the statistics."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from ..errors import StatsError
from ..flow.flow_map import FlowField, ends, norm
from ..model.counting import counting
from ..model.denoiser import DenoiserLike
from ..process.level import Level, from_ratio
from ..run.noise import SampleNoise, sample_seeds
from .stats import GaussianStats, Profile

FAR = 3.0  # standard deviations of the leading direction: there a network predicts nearly the mean
DIRECTIONS = 256  # leading ones that are recorded
TOP = 80.0  # sigma / alpha from which models that start at alpha = 0 are followed


def measure(
    stats: GaussianStats, denoiser: DenoiserLike, samples: int = 64, steps: int = 24, seed: int = 77
) -> GaussianStats:
    """The statistics with the `Profile` of a network: D - D_G along `samples` of its trajectories, and beside them.

    The probability flow from pure noise by Runge-Kutta of order 4 on `steps` steps even in log-SNR, 4 evaluations a step; a
    fifth one is asked where the Gaussian's own flow would be.

    Args:
        stats: Of that network's data.
        denoiser: Of the network.
        samples: Trajectories.
        steps: Levels.
        seed: Of the noise.

    Raises:
        StatsError: the mean lies far outside what the network predicts (another data range, another model), or samples of
            another shape.
    """
    shape = tuple(stats.mean.shape) if stats.mean.ndim else getattr(denoiser, "shape", None)
    if shape is None:
        raise StatsError("neither the statistics nor the denoiser know the shape of a sample.")
    known = getattr(denoiser, "shape", None)
    if known is not None:
        stats.fit_check(tuple(known))
    bottom, top = ends(denoiser)
    schedule = denoiser.schedule
    if math.isinf(schedule.ratio_max):
        top = schedule.at(from_ratio(TOP, schedule.frame), snap=False)
    ratios = torch.logspace(math.log10(top.ratio), math.log10(bottom.ratio), steps + 1, dtype=torch.float64).tolist()
    nodes = [math.log(from_ratio(ratio, schedule.frame)) for ratio in ratios]
    device = torch.device(getattr(denoiser, "device", "cpu"))
    noise = SampleNoise(sample_seeds(seed, samples), shape, torch.float32, device)(0).double()
    first = float(top) * noise + top.alpha * stats.mean.to(noise)
    flow, residual, jumped, z = FlowField(denoiser, torch.float32), [], [], first / norm(top)
    with torch.no_grad(), counting() as count:
        for i, u in enumerate(nodes):
            level = flow.level(u)
            slope, x = flow.slope(z, level), z * norm(level)
            denoised = (z * flow.growth(level) - slope) * norm(level)
            if i == 0 or ratios[i] >= FAR * stats.spread:
                far = denoised
            residual.append(_left(stats, x, denoised, level))
            there = stats.transport(first, top, level)
            jumped.append(_left(stats, there, denoiser(there.float(), level).double(), level))
            if i < steps:
                z = _rk4(flow, z, slope, u, nodes[i + 1])
    require_range(stats, far)
    start = stats.coordinates(first - top.alpha * stats.mean.to(first)) / stats.gains(top)[0].sqrt()
    return replace(
        stats,
        profile=Profile(
            torch.tensor(ratios, dtype=torch.float64), torch.stack(residual, 1), torch.stack(jumped, 1),
            start[:, :DIRECTIONS].float(), count.rows,
        ),
    )  # fmt: skip


def _left(stats: GaussianStats, x: torch.Tensor, denoised: torch.Tensor, level: Level) -> torch.Tensor:
    """D - D_G along the leading directions, (K, r') float32."""
    return stats.coordinates(denoised - stats.denoised(x, level))[:, :DIRECTIONS].float()


def _rk4(flow: FlowField, z: torch.Tensor, first: torch.Tensor, u: float, v: float) -> torch.Tensor:
    h = v - u
    middle = flow.level(u + h / 2)
    second = flow.slope(z + h / 2 * first, middle)
    third = flow.slope(z + h / 2 * second, middle)
    fourth = flow.slope(z + h * third, flow.level(v))
    return z + h / 6 * (first + 2 * second + 2 * third + fourth)


def require_range(stats: GaussianStats, denoised: torch.Tensor) -> None:
    """At high noise a network predicts nearly the mean of its data: refuse statistics whose mean is elsewhere.

    Raises:
        StatsError: the mean of the predictions (K, *shape) lies more than half a standard deviation (RMS over coordinates)
            from the statistics' mean, beyond three standard errors.
    """
    predicted = denoised.mean(0)
    off = float((predicted - stats.mean.to(predicted)).square().mean().sqrt())
    among = float((denoised - predicted).square().mean().sqrt())
    if off > 0.5 * math.sqrt(stats.variance) + 3 * among / math.sqrt(len(denoised)):
        raise StatsError(
            f"the statistics' mean lies {off:.3g} (RMS) from what the network predicts at high noise, and their data "
            f"spread {math.sqrt(stats.variance):.3g}: predictions average {float(predicted.mean()):.3g}, the statistics "
            f"{float(stats.mean.mean()):.3g}. Were they taken in another data range ([0, 1] for [-1, 1]), or of another "
            "model?"
        )
