"""Whether statistics can be those of a network: its fingerprint, else what it predicts at high noise."""

from __future__ import annotations

import functools
import math
import warnings
import weakref
from collections.abc import Iterator, Mapping
from contextvars import Context
from typing import Any

import torch

from ..errors import SolverKitError, StatsError
from ..model.denoiser import DenoiserLike
from ..process.level import Level, from_ratio
from ..run.noise import SampleNoise, sample_seeds
from .gaussian import Gaussian

SAMPLES = 16  # asked at each of two levels
FAR, NEAR = 10.0, 2.0  # those levels, in standard deviations of the leading direction
LEAST, MOST = 0.4, 2.2  # of what the Gaussian predicts at NEAR: data of half or twice the spread give 0.29 and 2.5


def layers(denoiser: Any) -> Iterator[Any]:
    """A denoiser and those inside it; under classifier-free guidance the conditional one."""
    seen: list[Any] = []
    while denoiser is not None and not any(denoiser is other for other in seen):
        yield denoiser
        seen.append(denoiser)
        denoiser = getattr(denoiser, "conditional", None) or getattr(denoiser, "denoiser", None)


def fingerprint_of(denoiser: DenoiserLike) -> dict[str, str]:
    """{"fingerprint": ...} of a denoiser; nothing where it cannot be told from others."""
    from ..model.fingerprint import fingerprint

    try:
        return {"fingerprint": fingerprint(denoiser)}
    except SolverKitError:
        return {}


def require_match(gaussian: Gaussian, provenance: Mapping[str, Any], denoiser: DenoiserLike) -> None:
    """Refuse statistics that cannot be a denoiser's. Nothing is asked where they were measured on the same one.

    Else it is asked once, 2 x 16 samples at high noise, beside the run and not counted in it.

    Raises:
        StatsError: samples of another shape, or predictions whose mean or spread are not what the statistics say.

    Warns:
        UserWarning: they fit, but were measured on another network.
    """
    if not gaussian.dim:
        return
    shape = getattr(denoiser, "shape", None)
    if shape is not None:
        gaussian.fit_check(tuple(shape))
    _matched(weakref.ref(gaussian), weakref.ref(denoiser), str(provenance.get("fingerprint", "")))


@functools.lru_cache(maxsize=64)
def _matched(gaussian: weakref.ref[Gaussian], denoiser: weakref.ref[Any], fingerprint: str) -> None:
    """Once for a pair, which is not kept alive."""
    stats, model = gaussian(), denoiser()
    assert stats is not None and model is not None
    mine = fingerprint_of(model).get("fingerprint")
    if fingerprint and fingerprint == mine:
        return
    Context().run(_asked, stats, model)  # of no run: open counts do not see it
    if fingerprint and mine:
        warnings.warn(
            "these Gaussian statistics were measured on another network (or other inputs of it, or with another version of "
            "its library). They fit what this one predicts at high noise; stats.measured(denoiser) makes them its own.",
            stacklevel=2,
        )


def _asked(stats: Gaussian, denoiser: DenoiserLike) -> None:
    schedule = denoiser.schedule
    device = torch.device(getattr(denoiser, "device", "cpu"))
    noise = SampleNoise(sample_seeds(20, SAMPLES), tuple(stats.mean.shape), torch.float32, torch.device("cpu"))(0).double()
    spread = max(stats.spread, 1e-6)
    with torch.no_grad():
        for reach in (FAR, NEAR):
            ratio = min(max(reach * spread, schedule.ratio_min), schedule.ratio_max)
            level = schedule.at(from_ratio(ratio, schedule.frame), snap=False)
            x = noised(stats, noise, level)
            denoised = denoiser(x.float().to(device), level).cpu().double()
            if reach == FAR:
                require_range(stats, denoised)
            elif ratio >= spread:
                _require_spread(stats, x, denoised, level)


def noised(stats: Gaussian, noise: torch.Tensor, level: Level) -> torch.Tensor:
    """Samples (K, *shape) of the Gaussian noised to a level, from standard normal ones."""
    v, w = stats.gains(level)
    return level.alpha * stats.mean + stats.along(noise, v.sqrt(), math.sqrt(w))


def _require_spread(stats: Gaussian, x: torch.Tensor, denoised: torch.Tensor, level: Level) -> None:
    wanted = stats.denoised(x, level) - stats.mean
    share = float((wanted * (denoised - stats.mean)).sum() / wanted.square().sum().clamp_min(1e-30))
    if not LEAST < share < MOST:
        raise StatsError(
            f"at sigma/alpha = {level.ratio:.3g} the network moves {share:.2g} times as far from the mean as statistics "
            f"with this spread ({stats.spread:.3g} along the leading direction) say. Were they taken in another data range "
            "or scale, or of another model?"
        )


def require_range(stats: Gaussian, denoised: torch.Tensor) -> None:
    """At high noise a network predicts nearly the mean of its data: refuse statistics whose mean is elsewhere.

    Raises:
        StatsError: the mean of the predictions (K, *shape) lies more than half a standard deviation (RMS over coordinates)
            from the statistics' mean, beyond three standard errors.
    """
    predicted = denoised.mean(0)
    off = float((predicted - stats.mean).square().mean().sqrt())
    among = float((denoised - predicted).square().mean().sqrt())
    if off > 0.5 * math.sqrt(stats.variance) + 3 * among / math.sqrt(len(denoised)):
        raise StatsError(
            f"the statistics' mean lies {off:.3g} (RMS) from what the network predicts at high noise, and their data "
            f"spread {math.sqrt(stats.variance):.3g}: predictions average {float(predicted.mean()):.3g}, the statistics "
            f"{float(stats.mean.mean()):.3g}. Were they taken in another data range ([0, 1] for [-1, 1]), or of another "
            "model?"
        )
