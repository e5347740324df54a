"""Other readings of the same network: another prediction type, another time, another scale of its input, other data.

A network that is wrapped wrongly is a good network read wrongly. Every reading below is one mistake that users make,
undone; the one under which the denoising loss falls most names the fault.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from ..errors import SolverKitError
from ..model.denoiser import Denoiser
from ..model.prediction import PREDICTIONS
from ..process.level import from_ratio
from ..process.schedule import VE, Flow
from ..process.variance_preserving import DiscreteVP
from ..run.noise import SampleNoise, sample_seeds
from .clean import Clean
from .probed import Probed

AT = (0.25, 0.5, 1.0, 2.0, 4.0)  # levels, in standard deviations of the data
ROWS = 32
SCALES = tuple(2.0**k for k in (-3, -2, -1, 1, 2, 3))
WIDE = 4.0  # numbers beyond it are no data in [0, 1] or [-1, 1]
GOLDEN, ROUNDS = (math.sqrt(5) - 1) / 2, 7


class Reading(NamedTuple):
    """A way to read a network.

    Attributes:
        fault: "swapped time", "time units", "prediction type", "scaled input" or "data range".
        said: What is to be done.
        denoiser: The network, read so.
        data: Clean samples, read so.
    """

    fault: str
    said: str
    denoiser: Any
    data: Clean


class _Net:
    """The network with its input and its time turned; counted and placed as the network itself."""

    def __init__(self, net: Any, scale: float = 1.0, time: Any = None) -> None:
        self.net, self.scale, self.time = net, scale, time

    def __call__(self, x: torch.Tensor, *time: torch.Tensor, **inputs: Any) -> Any:
        told = time if self.time is None else [self.time(t).to(t.dtype) for t in time]
        return self.net(x if self.scale == 1 else x * self.scale, *told, **inputs)


def others(denoiser: Any, data: Clean) -> Iterator[Reading]:
    """Every other reading, but for scales of the input (`best_scale`)."""
    yield from _ranges(denoiser, data)
    if not isinstance(denoiser, Denoiser) or denoiser.prediction == "autoencoder":
        return
    schedule = denoiser.schedule
    for name in PREDICTIONS:
        karras = name in ("edm", "edm_v") and not isinstance(schedule, VE)
        if name in ("autoencoder", "denoised", denoiser.prediction) or karras or {name, denoiser.prediction} <= SAME:
            continue
        yield Reading("prediction type", f"prediction={name!r}", _with(denoiser, prediction=name), data)
    first, last = schedule.time(schedule.ratio_min), schedule.time(schedule.ratio_max)
    if isinstance(schedule, VE) and schedule.told == "sigma":
        swapped = _Net(denoiser.net, time=lambda t: first * last / t)
    else:
        swapped = _Net(denoiser.net, time=lambda t: first + last - t)
    said = "the network's time runs the other way: sk.wrap(lambda x, t: net(x, t_first + t_last - t), ...)"
    yield Reading("swapped time", said, _with(denoiser, net=swapped), data)
    if isinstance(schedule, Flow):
        turned = replace(schedule, data_at=1 - schedule.data_at)
        yield Reading("swapped time", f"sk.Flow(data_at={turned.data_at})", _with(denoiser, schedule=turned), data)
        minus = _Net(lambda x, t, **k: _negative(denoiser.net(x, t, **k)))
        yield Reading("prediction type", "the velocity has the other sign", _with(denoiser, net=minus), data)
    yield from _units(denoiser, data)


SAME = {"sample", "denoised"}


def _units(denoiser: Denoiser, data: Clean) -> Iterator[Reading]:
    schedule = denoiser.schedule
    if isinstance(schedule, VE):
        for told in ("sigma", "log", "quarter-log", "arctan"):
            if told != schedule.told and denoiser.prediction not in ("edm", "edm_v"):
                other = _with(denoiser, schedule=replace(schedule, told=told))
                yield Reading("time units", f"the schedule's told={told!r}", other, data)
    elif not schedule.integer_time:
        last = schedule.num_train_timesteps if isinstance(schedule, DiscreteVP) else schedule.time_scale  # type: ignore[attr-defined]
        factors = (1000.0, 1e-3) if last in (1, 1.0) else (1 / last,)
        for factor in factors:
            net = _Net(denoiser.net, time=lambda t, factor=factor: t * factor)
            yield Reading("time units", f"the network is told its time times {factor:g}", _with(denoiser, net=net), data)


def _ranges(denoiser: Any, data: Clean) -> Iterator[Reading]:
    largest = float(data.x.abs().max())
    maps: list[tuple[float, float, str]] = []
    if largest < WIDE:
        maps += [(2.0, -1.0, "the data are in [0, 1] and the network wants [-1, 1]: 2 x - 1")]
        maps += [(0.5, 0.5, "the data are in [-1, 1] and the network wants [0, 1]: (x + 1) / 2")]
    else:
        maps += [(1 / 127.5, -1.0, "the data are in [0, 255] and the network wants [-1, 1]: x / 127.5 - 1")]
        maps += [(1 / 255, 0.0, "the data are in [0, 255] and the network wants [0, 1]: x / 255")]
    spread = float(data.x.std())
    if spread > 0:
        centre = float(data.x.mean())
        text = f"the network wants data of mean 0 and variance 1: (x - {centre:.3g}) / {spread:.3g}"
        maps += [(1 / spread, -centre / spread, text)]
    for scale, shift, said in maps:
        yield Reading("data range", said, denoiser, data.mapped(scale, shift))


def loss(denoiser: Any, data: Clean, batch: int, dtype: torch.dtype, seed: int) -> float:
    """Mean over levels of log(denoising loss / the best coordinate-wise linear denoiser's); inf where it fails."""
    some, schedule, total = data.first(ROWS), denoiser.schedule, []
    eps = SampleNoise(sample_seeds(seed, len(some.x)), tuple(some.x.shape[1:]), torch.float64)(0)
    for deviations in AT:
        ratio = min(max(deviations * data.spread, schedule.ratio_min), schedule.ratio_max)
        level = schedule.at(from_ratio(ratio, schedule.frame))
        alpha, s = level.alpha, float(level)
        try:
            found = Probed(denoiser, level, batch, dtype).denoised(alpha * some.x + s * eps)
        except (SolverKitError, ArithmeticError, ValueError):
            return math.inf
        linear = float((data.variance * s**2 / (alpha**2 * data.variance + s**2)).mean())
        total.append(math.log(max(float((found - some.x).square().mean()) / linear, 1e-12)))
    mean = sum(total) / len(total)
    return mean if math.isfinite(mean) else math.inf


def best_scale(denoiser: Denoiser, data: Clean, batch: int, dtype: torch.dtype, seed: int) -> tuple[Reading, float]:
    """The input scale of the smallest loss, from a coarse search and golden sections, and that loss."""

    def at(log_scale: float) -> float:
        return loss(_with(denoiser, net=_Net(denoiser.net, 2.0**log_scale)), data, batch, dtype, seed)

    coarse = {math.log2(scale): at(math.log2(scale)) for scale in SCALES}
    middle = min(coarse, key=lambda k: coarse[k])
    low, high = middle - 1, middle + 1
    for _ in range(ROUNDS):
        a, b = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        low, high = (low, b) if at(a) < at(b) else (a, high)
    best = min((middle, (low + high) / 2), key=at)
    said = f"the network wants its input times {2.0**best:.3g}"
    reading = Reading("scaled input", said, _with(denoiser, net=_Net(denoiser.net, 2.0**best)), data)
    return reading, at(best)


def _with(denoiser: Denoiser, **changed: Any) -> Denoiser:
    """The denoiser with another net, prediction or schedule."""
    view = denoiser.view()
    for name, value in changed.items():
        setattr(view, name, value)
    view._device, view._dtype = denoiser.device, denoiser.dtype
    return view


def _negative(out: Any) -> Any:
    out = getattr(out, "sample", out)
    return -out if isinstance(out, torch.Tensor) else (-out[0], *out[1:])
