"""Log-likelihood of data under a pretrained network: by the probability-flow ODE, or as a bound by its SDE.

With y = x / alpha, r = sigma / alpha and u = log r every process is y = x_0 + r eps, and with the denoised prediction D

    ode     d log p / du = -div dz/du along the probability flow        Song et al. 2021, eq. 39; Chen et al. 2018
    elbo    log p(y_0) >= E[log p_T(y_T)] - int E[|D - y|^2 / r^2 + 2 (tr dD/dy - d)] du     Huang et al. 2021, eq. 20
    vlb     log P(x) >= -KL_prior + E[log P(x | z_0)] - int E[|x - D|^2 / r^2] du            Kingma et al. 2021, eq. 11-19

The densities of "ode" and "elbo" are those of the data at the network's smallest noise level; "vlb" is the probability of
8-bit data. Uniform u is the importance sampling that Huang et al. call debiased (their q(t) ~ g^2 / sigma^2).
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch

from ..errors import OptionError
from ..model.counting import counting
from ..model.denoiser import DenoiserLike
from ..process.level import Level, from_ratio
from .divergence import Method, Probe, denoised_and_trace, probes
from .dormand_prince import integrate
from .flow_map import FlowField, ends, norm, require_batch

BITS = math.log(2.0)


class Likelihood(NamedTuple):
    """What `log_likelihood` found, for each sample.

    Attributes:
        nats: Log-density (ode, elbo: a lower bound) or log-probability of 8-bit data (vlb: a lower bound), (B,) float64.
        bits_per_dim: The same as a code length for 8-bit data, (B,): -nats / (d log 2) + log2 of the bins in a unit of x.
        standard_error: Of nats, from its Monte Carlo draws, (B,); NaN where there was only one. Noise levels are drawn in
            strata, so it comes from differences of neighbours.
        nfe: Network rows that were counted, divided by the number of samples; backward passes are not counted.
    """

    nats: torch.Tensor
    bits_per_dim: torch.Tensor
    standard_error: torch.Tensor
    nfe: float


def log_likelihood(
    denoiser: DenoiserLike,
    x: torch.Tensor,
    method: Literal["ode", "elbo", "vlb"] = "ode",
    *,
    draws: int | None = None,
    divergence: Method = "hutchinson",
    probe: Probe = "rademacher",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    steps: int | None = None,
    bins: int = 256,
    data_range: tuple[float, float] = (-1.0, 1.0),
    seed: int = 0,
) -> Likelihood:
    """Log-likelihood of data under the distribution that a network samples from.

    Args:
        denoiser: Of the network.
        x: Data (B, ...) in the model's own coordinates. For bits per dimension of 8-bit images under "ode" and "elbo" add
            uniform noise of one bin first (`dequantised`).
        method: "ode", "elbo", or "vlb".
        draws: Probes of the ODE (1), or noise levels of a bound (64), for each sample.
        divergence: "hutchinson", "exact" (low dimensions), or "finite-difference" (networks without gradient); not for vlb.
        probe: "rademacher" or "gaussian".
        rtol, atol: Tolerances of the ODE.
        steps: Of vlb: the bound of a sampler of that many steps, evenly in log-SNR; None is continuous time.
        bins: How many values a datum has, spread evenly over data_range.
        data_range: Smallest and largest value.
        seed: Of probes and noise.

    Raises:
        OptionError: x is no batch, or options that mean nothing.
        DenoiserError: the network has no gradient.
        BudgetError: the tolerances need too many steps.
    """
    require_batch(x)
    n = {"ode": 1, "elbo": 64, "vlb": 64}.get(method) if draws is None else draws
    if n is None:
        raise OptionError(f"method must be 'ode', 'elbo' or 'vlb', got {method!r}.")
    if not (isinstance(n, int) and n >= 1 and isinstance(bins, int) and bins >= 2 and data_range[0] < data_range[1]):
        raise OptionError(f"need draws >= 1, bins >= 2 and a rising data_range, got {draws}, {bins}, {data_range}.")
    if steps is not None and (method != "vlb" or not isinstance(steps, int) or steps < 1):
        raise OptionError(f"steps= is a positive number of steps of method='vlb', got {steps!r} with {method!r}.")
    with torch.no_grad(), counting() as count:
        if method == "ode":
            values = torch.stack([_ode(denoiser, x, divergence, probe, rtol, atol, seed + k) for k in range(n)])
        elif method == "elbo":
            values = _elbo(denoiser, x, n, divergence, probe, seed)
        else:
            values = _vlb(denoiser, x, n, steps, bins, data_range, seed)
    nats, d = values.mean(0), x[0].numel()
    error = _standard_error(values, stratified=method != "ode")
    offset = 0.0 if method == "vlb" else math.log2(bins / (data_range[1] - data_range[0]))
    return Likelihood(nats, -nats / (d * BITS) + offset, error, count.rows / len(x))


def _standard_error(values: torch.Tensor, stratified: bool) -> torch.Tensor:
    """Of the mean of n draws, (n, B): of independent ones, or of one in each of n strata."""
    n = len(values)
    if n < 2:
        return torch.full_like(values[0], math.nan)
    return (values.diff(dim=0).square().mean(0) / 2 / n).sqrt() if stratified else values.std(0) / math.sqrt(n)


def dequantised(
    x: torch.Tensor, bins: int = 256, data_range: tuple[float, float] = (-1.0, 1.0), seed: int = 0
) -> torch.Tensor:
    """8-bit data with uniform noise of one bin: value k of `bins` becomes low + (k + u) width, u uniform in [0, 1).

    Args:
        x: (B, ...), values low + k (high - low) / (bins - 1) as images are usually scaled.
        bins, data_range, seed: As for `log_likelihood`.
    """
    low, high = data_range
    k = ((x - low) / (high - low) * (bins - 1)).round()
    u = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(x)
    return low + (k + u) * ((high - low) / bins)


def _normal(y: torch.Tensor, std: float) -> torch.Tensor:
    """log N(y; 0, std^2 I) of each sample."""
    flat = y.flatten(1)
    return -0.5 * (flat / std).square().sum(1) - flat.shape[1] * (math.log(std) + 0.5 * math.log(2 * math.pi))


def _ode(
    denoiser: DenoiserLike, x: torch.Tensor, method: Method, probe: Probe, rtol: float, atol: float, seed: int
) -> torch.Tensor:
    """log p(x) = log prior(z_T) + int div dz/du du, with the state and the integral in one system."""
    bottom, top = ends(denoiser)
    d, dtype = x[0].numel(), x.dtype if x.dtype == torch.float64 else torch.float32
    v = probes(tuple(x.shape), probe, seed, x.to(dtype))
    flow = FlowField(denoiser, dtype)

    def slope(state: torch.Tensor, u: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        level = flow.level(float(u[0]))  # all samples share their steps
        n, growth = norm(level), flow.growth(level)
        z = state[:, :d].reshape(len(state), *x.shape[1:])
        denoised, trace = denoised_and_trace(denoiser, (z * n).to(dtype), level, method, v[rows])
        dz = z * growth - denoised.double() / n
        return torch.cat([dz.flatten(1), ((d * growth - trace.to(z)) / d)[:, None]], 1)

    scale = bottom.scale * norm(bottom)
    start = torch.cat([(x.double() / scale).flatten(1), torch.zeros(len(x), 1, dtype=torch.float64, device=x.device)], 1)
    end = integrate(slope, start, math.log(bottom), math.log(top), rtol, atol).y
    latents = end[:, :d] * (norm(top) * top.scale)
    prior = _normal(latents, denoiser.schedule.prior_std(top)) + d * math.log(norm(top) * top.scale)
    return (prior + d * end[:, d] - d * math.log(scale)).cpu()


def _variance(x: torch.Tensor) -> float:
    """Mean square of the data: how strongly a denoiser follows the noise, roughly variance / (variance + r^2)."""
    return max(float(x.double().square().mean()), 1e-12)


def _excess(z: torch.Tensor) -> torch.Tensor:
    """|z|^2 - d: zero in the mean, and most of the noise of a bound (a control variate)."""
    return z.double().flatten(1).square().sum(1) - z[0].numel()


def _levels(denoiser: DenoiserLike, n: int, seed: int) -> torch.Tensor:
    """u of n draws, (n,): one in each of n equal parts of the range, at a random place, the same for all samples."""
    bottom, top = ends(denoiser)
    low, high = math.log(bottom.ratio), math.log(top.ratio)
    place = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return low + (torch.arange(n) + place) / n * (high - low)


def _at(denoiser: DenoiserLike, u: float) -> Level:
    schedule = denoiser.schedule
    return schedule.at(from_ratio(math.exp(u), schedule.frame), snap=False)


def _elbo(denoiser: DenoiserLike, x: torch.Tensor, n: int, method: Method, probe: Probe, seed: int) -> torch.Tensor:
    """n draws of the bound, (n, B)."""
    bottom, top = ends(denoiser)
    dtype = x.dtype if x.dtype == torch.float64 else torch.float32
    d, own = x[0].numel(), bottom.alpha * bottom.scale
    y0, low, high = (x / own).to(dtype), bottom.ratio, top.ratio
    tau = denoiser.schedule.prior_std(top) / (top.alpha * top.scale)
    spread = high**2 - low**2
    prior = _normal(y0.double(), tau) - d * spread / (2 * tau**2) - d * math.log(own)
    values, variance = [], _variance(y0)
    for k, u in enumerate(_levels(denoiser, n, seed).tolist()):
        level, r = _at(denoiser, u), math.exp(u)
        z = probes(tuple(x.shape), "gaussian", seed + 7919 * (k + 1), y0)
        v = probes(tuple(x.shape), probe, seed + 104729 * (k + 1), y0)
        power = max(r * r - low**2, 0.0)
        y = y0 + math.sqrt(power) * z
        denoised, trace = denoised_and_trace(denoiser, y * level.alpha, level, method, v)
        miss = ((denoised - y) / r).double().flatten(1).square().sum(1)
        share = (r * r / (r * r + variance)) ** 2 * power / (r * r)  # of |z|^2 in |D - y|^2 / r^2
        values.append((miss - share * _excess(z) + 2 * (level.alpha * trace - d)).cpu())
    return prior.cpu() - (math.log(high) - math.log(low)) * torch.stack(values)


def _vlb(
    denoiser: DenoiserLike, x: torch.Tensor, n: int, steps: int | None, bins: int, data_range: tuple[float, float],
    seed: int,
) -> torch.Tensor:  # fmt: skip
    """n draws of the bound, (n, B)."""
    bottom, top = ends(denoiser)
    dtype = x.dtype if x.dtype == torch.float64 else torch.float32
    x = x.to(dtype)
    low, high, tau = bottom.ratio, top.ratio, denoiser.schedule.prior_std(top)
    alpha, sigma = top.alpha * top.scale, float(top) * top.scale
    flat = x.double().flatten(1)
    prior = 0.5 * ((alpha**2 * flat.square() + sigma**2) / tau**2 - 2 * math.log(sigma / tau) - 1).sum(1)
    centres = torch.linspace(data_range[0], data_range[1], bins, dtype=torch.float64, device=x.device)
    index = (flat[..., None] - centres).abs().argmin(-1)
    if float((flat - centres[index]).abs().max()) > 1e-3 * float(centres[1] - centres[0]):
        raise OptionError(
            f"method='vlb' is for data on {bins} values spread evenly over {data_range}; these lie between them. Give the "
            "data as they are (no dequantisation), or method='ode'."
        )
    span, values, variance = math.log(high / low), [], _variance(x)
    for k, u in enumerate(_levels(denoiser, n, seed).tolist()):
        weight = span
        if steps is not None:  # the step that u falls into, evaluated at its upper end
            i = min(int((u - math.log(low)) / span * steps) + 1, steps)
            u = math.log(low) + span * i / steps
            weight = steps / 2 * -math.expm1(-2 * span / steps) * math.exp(2 * span / steps)
        level = _at(denoiser, u)
        z = probes(tuple(x.shape), "gaussian", seed + 7919 * (k + 1), x)
        denoised = denoiser((x + math.exp(u) * z) * level.alpha, level)
        miss = ((x - denoised) / math.exp(u)).double().flatten(1).square().sum(1)
        miss = miss - (variance / (variance + math.exp(2 * u))) ** 2 * _excess(z)
        noisy = flat + low * probes(tuple(flat.shape), "gaussian", seed + 104729 * (k + 1), flat)
        logits = -0.5 * ((noisy[..., None] - centres) / low).square()
        decoded = logits.log_softmax(-1).gather(-1, index[..., None])[..., 0].sum(1)
        values.append((decoded - prior - weight * miss).cpu())
    return torch.stack(values)
