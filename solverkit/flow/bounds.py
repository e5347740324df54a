"""Lower bounds of a log-likelihood by the SDE: of densities (elbo), and of probabilities of data on a few values (vlb).

With y = x / alpha, r = sigma / alpha and u = log r every process is y = x_0 + r eps, and with the denoised prediction D

    elbo    log p(y_0) >= E[log p_T(y_T)] - int E[|D - y|^2 / r^2 + 2 (tr dD/dy - d)] du     Huang et al. 2021, eq. 20
    vlb     log P(x) >= -KL_prior + E[log P(x | z_0)] - int E[|x - D|^2 / r^2] du            Kingma et al. 2021, eq. 11-19

Uniform u is the importance sampling that Huang et al. call debiased (their q(t) ~ g^2 / sigma^2).
"""

from __future__ import annotations

import math

import torch

from ..model.denoiser import DenoiserLike
from ..process.level import Level, from_ratio
from ..run.noise import PROBE, SampleNoise
from .divergence import Method, Probe, denoised_and_traces, probe_vectors
from .eight_bit import bin_numbers, decoded
from .flow_map import ends
from .precision import asked_dtype, precise
from .rows import ask

# Draw k of a bound, beside probe k of a divergence: its noise, the decoder's, its place among the levels
NOISE, DECODER, PLACES = PROBE + 2**56, PROBE + 2**57, PROBE + 2**58


def normal(y: torch.Tensor, std: float) -> torch.Tensor:
    """log N(y; 0, std^2 I) of each sample, (B,) float64."""
    flat = precise(y.flatten(1))
    return -0.5 * (flat / std).square().sum(1) - flat.shape[1] * (math.log(std) + 0.5 * math.log(2 * math.pi))


def draws_elbo(
    denoiser: DenoiserLike, x: torch.Tensor, n: int, method: Method, probe: Probe, keys: list[int]
) -> torch.Tensor:
    """n draws of the bound, (n, B) float64.

    Args:
        denoiser: Of the network.
        x: Data (B, ...).
        n: How many levels, one in each of n equal parts of the range.
        method, probe: Of the divergence.
        keys: One a sample, all of one seed (equal in `key >> 64`), whose levels are then the same.
    """
    bottom, top = ends(denoiser)
    dtype, d, own = asked_dtype(x), x[0].numel(), bottom.alpha * bottom.scale
    y0, low, high = x.to(dtype) / own, bottom.ratio, top.ratio
    noise = SampleNoise(keys, x.shape[1:], dtype, x.device)
    tau = denoiser.schedule.prior_std(top) / (top.alpha * top.scale)
    prior = normal(y0, tau) - d * (high**2 - low**2) / (2 * tau**2) - d * math.log(own)
    values, variance = [], _variance(y0)
    for k, u in enumerate(_levels(denoiser, n, keys)):
        level, r = _at(denoiser, u), math.exp(u)
        z, v = noise(NOISE + k), [] if method == "exact" else [probe_vectors(noise, probe, k)]
        power = max(r * r - low**2, 0.0)
        y = y0 + math.sqrt(power) * z
        denoised, traces = denoised_and_traces(denoiser, y * level.alpha, [level] * len(x), method, v)
        miss = precise(((denoised - y) / r).flatten(1)).square().sum(1)
        share = (r * r / (r * r + variance)) ** 2 * power / (r * r)  # of |z|^2 in |D - y|^2 / r^2
        values.append(miss - share * _excess(z) + 2 * (level.alpha * traces[0] - d))
    return prior - (math.log(high) - math.log(low)) * torch.stack(values)


def draws_vlb(
    denoiser: DenoiserLike,
    x: torch.Tensor,
    n: int,
    steps: int | None,
    bins: int,
    data_range: tuple[float, float],
    keys: list[int],
) -> torch.Tensor:
    """n draws of the bound, (n, B) float64; arguments as of `draws_elbo` and `log_likelihood`.

    Raises:
        OptionError: data between the values.
    """
    bottom, top = ends(denoiser)
    dtype, flat = asked_dtype(x), precise(x.flatten(1))
    x = x.to(dtype)
    low, high, tau = bottom.ratio, top.ratio, denoiser.schedule.prior_std(top)
    alpha, sigma = top.alpha * top.scale, float(top) * top.scale
    prior = 0.5 * ((alpha**2 * flat.square() + sigma**2) / tau**2 - 2 * math.log(sigma / tau) - 1).sum(1)
    numbers = bin_numbers(flat, bins, data_range)
    noise = SampleNoise(keys, x.shape[1:], dtype, x.device)
    fine = SampleNoise(keys, flat.shape[1:], torch.float64, flat.device)
    span, values, variance = math.log(high / low), [], _variance(x)
    for k, u in enumerate(_levels(denoiser, n, keys)):
        weight = span
        if steps is not None:  # the step that u falls into, evaluated at its upper end
            i = min(int((u - math.log(low)) / span * steps) + 1, steps)
            u = math.log(low) + span * i / steps
            weight = steps / 2 * -math.expm1(-2 * span / steps) * math.exp(2 * span / steps)
        level, r = _at(denoiser, u), math.exp(u)
        z = noise(NOISE + k)
        denoised = ask(denoiser, (x + r * z) * level.alpha, [level] * len(x))
        miss = precise(((x - denoised) / r).flatten(1)).square().sum(1)
        miss = miss - (variance / (variance + r * r)) ** 2 * _excess(z)
        likely = decoded(flat + low * fine(DECODER + k), numbers, bins, data_range, low)
        values.append(likely - prior - weight * miss)
    return torch.stack(values)


def _variance(x: torch.Tensor) -> torch.Tensor:
    """Mean square of each sample, (B,): how strongly a denoiser follows the noise, roughly variance / (variance + r^2)."""
    return precise(x.flatten(1)).square().mean(1).clamp_min(1e-12)


def _excess(z: torch.Tensor) -> torch.Tensor:
    """|z|^2 - d: zero in the mean, and most of the noise of a bound (a control variate)."""
    return precise(z.flatten(1)).square().sum(1) - z[0].numel()


def _levels(denoiser: DenoiserLike, n: int, keys: list[int]) -> list[float]:
    """u of n draws: one in each of n equal parts of the range, at a random place that the samples of a seed share."""
    bottom, top = ends(denoiser)
    low, high = math.log(bottom.ratio), math.log(top.ratio)
    place = SampleNoise([keys[0] >> 64 << 64], (n,), torch.float64).uniform(PLACES)[0]
    return (low + (torch.arange(n) + place) / n * (high - low)).tolist()  # type: ignore[no-any-return]


def _at(denoiser: DenoiserLike, u: float) -> Level:
    schedule = denoiser.schedule
    return schedule.at(from_ratio(math.exp(u), schedule.frame), snap=False)
