"""How a network leaves its Gaussian: measured once along its own trajectories, kept with the statistics."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from ..errors import StatsError
from ..flow.flow_map import FlowField, ends, norm
from ..model.counting import counting
from ..model.denoiser import DenoiserLike, require_finite
from ..process.level import Level, from_ratio
from ..run.noise import SampleNoise, sample_seeds
from .gaussian import Gaussian
from .match import require_range

FAR = 3.0  # standard deviations of the leading direction: there a network predicts nearly the mean
DIRECTIONS = 256  # leading ones that are recorded
TOP = 80.0  # sigma / alpha from which models that start at alpha = 0 are followed


class Profile(NamedTuple):
    """How a network leaves its Gaussian, along K true trajectories of its probability flow; coordinates along the
    leading r' directions.

    Attributes:
        ratios: sigma / alpha of L levels, falling.
        residual: (K, L, r'): D - D_G there.
        jumped: (K, L, r'): D - D_G where the Gaussian's flow leads from the same start: what a jump to there would see.
        start: (K, r'): the starting noise along the basis, in standard deviations of the noised Gaussian.
        nfe: Network rows that it took.
    """

    ratios: torch.Tensor
    residual: torch.Tensor
    jumped: torch.Tensor
    start: torch.Tensor
    nfe: int


class _Host:
    """A denoiser of float64 states on the host: a device may know no float64."""

    def __init__(self, denoiser: DenoiserLike) -> None:
        self.denoiser, self.schedule = denoiser, denoiser.schedule
        self.device = torch.device(getattr(denoiser, "device", "cpu"))
        self.asked = 0

    def __call__(self, x: torch.Tensor, level: Any) -> torch.Tensor:
        denoised = self.denoiser(x.float().to(self.device), level).cpu().double()
        require_finite(denoised, self.asked, level)
        self.asked += 1
        return denoised


def measure(
    stats: Gaussian, denoiser: DenoiserLike, samples: int = 128, steps: int = 24, seed: int = 77
) -> Profile:
    """The `Profile` of a network: D - D_G along `samples` of its trajectories, and beside them.

    The probability flow from pure noise by Runge-Kutta of order 4 on `steps` steps even in log-SNR, 4 evaluations a step; a
    fifth one is asked where the Gaussian's own flow would be.

    Args:
        stats: Of that network's data.
        denoiser: Of the network.
        samples: Trajectories. Half of them choose where a jump goes, the other half judge it.
        steps: Levels.
        seed: Of the noise.

    Raises:
        StatsError: the mean lies far outside what the network predicts (another data range, another model), or samples of
            another shape.
        NonFiniteError: the network answered NaN or inf.
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
    host = _Host(denoiser)
    noise = SampleNoise(sample_seeds(seed, samples), shape, torch.float32, torch.device("cpu"))(0).double()
    first = float(top) * noise + top.alpha * stats.mean
    flow, residual, jumped, z = FlowField(host, torch.float32), [], [], first / norm(top)
    with torch.no_grad(), counting() as count:
        for i, u in enumerate(nodes):
            level = flow.level(u)
            slope, x = flow.slope(z, level), z * norm(level)
            denoised = (z * flow.growth(level) - slope) * norm(level)
            if i == 0 or ratios[i] >= FAR * stats.spread:
                far = denoised
            residual.append(_left(stats, x, denoised, level))
            there = stats.transport(first, top, level)
            jumped.append(_left(stats, there, host(there, level), level))
            if i < steps:
                z = _rk4(flow, z, slope, u, nodes[i + 1])
    require_range(stats, far)
    start = stats.coordinates(first - top.alpha * stats.mean) / stats.gains(top)[0].sqrt()
    return Profile(
        torch.tensor(ratios, dtype=torch.float64), torch.stack(residual, 1), torch.stack(jumped, 1),
        start[:, :DIRECTIONS].float(), count.rows,
    )  # fmt: skip


def _left(stats: Gaussian, x: torch.Tensor, denoised: torch.Tensor, level: Level) -> torch.Tensor:
    """D - D_G along the leading directions, (K, r') float32."""
    return stats.coordinates(denoised - stats.denoised(x, level))[:, :DIRECTIONS].float()


def _rk4(flow: FlowField, z: torch.Tensor, first: torch.Tensor, u: float, v: float) -> torch.Tensor:
    h = v - u
    middle = flow.level(u + h / 2)
    second = flow.slope(z + h / 2 * first, middle)
    third = flow.slope(z + h / 2 * second, middle)
    fourth = flow.slope(z + h * third, flow.level(v))
    return z + h / 6 * (first + 2 * second + 2 * third + fourth)
