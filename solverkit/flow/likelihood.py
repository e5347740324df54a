"""Log-likelihood of data under a pretrained network: by the probability-flow ODE, or as a bound by its SDE (`bounds`).

    ode     d log p / du = -div dz/du along the probability flow        Song et al. 2021, eq. 39; Chen et al. 2018

The densities of "ode" and "elbo" are those of the data at the network's smallest noise level; "vlb" is the probability of
8-bit data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch

from ..errors import OptionError
from ..model.counting import counting
from ..model.denoiser import DenoiserLike
from ..run.noise import SampleNoise
from .bounds import draws_elbo, draws_vlb, normal
from .divergence import Method, Probe, denoised_and_traces, method_for, probe_vectors
from .dormand_prince import integrate
from .eight_bit import dequantised, eight_bit_images, sample_keys, scaled
from .flow_map import FlowField, ends, norm, require_batch
from .precision import asked_dtype, column, precise, sent
from .rows import takes_rows

__all__ = ["Likelihood", "dequantised", "log_likelihood"]

BITS = math.log(2.0)
DRAWS = {"ode": 2, "elbo": 64, "vlb": 64}
NUMBERS, ROWS = 2**20, 512  # at a time, by default


class Likelihood(NamedTuple):
    """What `log_likelihood` found, for each sample.

    Attributes:
        nats: Log-density (ode, elbo: a lower bound) or log-probability of 8-bit data (vlb: a lower bound), (B,) float64.
        bits_per_dim: The same as a code length of data on `bins` values, (B,): -nats / (d log 2) + log2 of the bins in a
            unit of x; None where the data are not known to be such.
        standard_error: Of nats, from its Monte Carlo draws, (B,): 0 where there are none (an exact divergence), NaN where
            only one was asked for. Noise levels are drawn in strata, so it comes from differences of neighbours. The
            error of the integration is not in it.
        nfe: Network rows that were counted, divided by the number of samples; backward passes are not counted.
    """

    nats: torch.Tensor
    bits_per_dim: torch.Tensor | None
    standard_error: torch.Tensor
    nfe: float

    def __repr__(self) -> str:
        bits = "" if self.bits_per_dim is None else f", {float(self.bits_per_dim.mean()):.4g} bits/dim"
        count, error = len(self.nats), float(self.standard_error.mean())
        return (
            f"Likelihood({count} sample{'s' * (count != 1)}, mean {float(self.nats.mean()):.6g} nats, each +- {error:.2g}"
            f"{bits}, nfe={self.nfe:.4g})"
        )


def log_likelihood(
    denoiser: DenoiserLike,
    x: torch.Tensor,
    method: Literal["ode", "elbo", "vlb"] = "ode",
    *,
    draws: int | None = None,
    divergence: Method = "auto",
    probe: Probe = "rademacher",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    steps: int | None = None,
    bins: int | None = None,
    data_range: tuple[float, float] = (-1.0, 1.0),
    seed: int | Sequence[int] = 0,
    batch_size: int | None = None,
) -> Likelihood:
    """Log-likelihood of data under the distribution that a network samples from.

    A sample's value depends on itself and its seed alone, never on the batch: its draws and its steps are its own.

    Two errors. That of the draws is `standard_error`: of a trace by probes, or of the noise and levels of a bound; an exact
    divergence has none. That of the integration goes with the tolerances: below 100 rtol nats a dimension (1e-3 at the
    default) on targets whose density is known; other tolerances show it for a network. A density is also only as right as
    the prior: the network's noised data are taken for exactly normal at its largest noise level.

    Args:
        denoiser: Of the network, or a token model (`solverkit.tokens.likelihood`: method="elbo", x of ids).
        x: Data (B, ...) in the model's own coordinates; or integers k in 0 .. bins - 1 (uint8), taken as `bins` values over
            data_range, to which "ode" and "elbo" add uniform noise of one bin. Add it to scaled images by `dequantised`.
        method: "ode", "elbo", or "vlb".
        draws: Probes of the ODE (2, all in one integration), or noise levels of a bound (64), for each sample.
        divergence: "auto" (for the ODE in at most 256 dimensions "exact", else "hutchinson"), "hutchinson", "exact" (one
            backward pass a dimension), or "finite-difference" (networks without gradient); not for vlb.
        probe: "rademacher" or "gaussian".
        rtol, atol: Tolerances of a step of the ODE, on coordinates of order 1.
        steps: Of vlb: the bound of a sampler of that many steps, evenly in log-SNR; None is continuous time.
        bins: How many values a datum has, spread evenly over data_range: asks for bits per dimension. If not given, vlb and
            8-bit images (uint8, or shape (B, 1 or 3, H, W)) have 256, and other data have no bits.
        data_range: Smallest and largest value.
        seed: Of probes and noise: an int, or one key a sample. From an int a sample's draws are chosen by its own data too.
        batch_size: Samples at a time; the result is the same. By default as many as make a million numbers, at most 512.

    Raises:
        OptionError: x is no batch, options that mean nothing, or a model whose source is not Gaussian.
        DenoiserError: the network has no gradient.
        BudgetError: the tolerances need too many steps, or a step underflows.
        NonFiniteError: NaN or inf in an answer of the network; names the level and the samples.
    """
    if callable(bound := getattr(denoiser, "bounded_by", None)):  # tokens
        return bound(x, "elbo" if method == "ode" else method, draws, seed, batch_size)  # type: ignore[no-any-return]
    integers = isinstance(x, torch.Tensor) and x.dtype == torch.uint8
    require_batch(x.float() if integers else x)
    if getattr(denoiser, "prior", None) is not None:
        raise OptionError(
            "this model starts from a source that is not Gaussian (prior=), whose density is not known here: there is no "
            "likelihood to compute."
        )
    n = DRAWS.get(method) if draws is None else draws
    if n is None or method not in DRAWS:
        raise OptionError(f"method must be 'ode', 'elbo' or 'vlb', got {method!r}.")
    if probe not in ("rademacher", "gaussian"):
        raise OptionError(f"probe must be 'rademacher' or 'gaussian', got {probe!r}.")
    values = (256 if method == "vlb" or eight_bit_images(x) else None) if bins is None else bins
    many = 256 if values is None else values
    counts = (n, many, 1 if batch_size is None else batch_size)
    if not (
        all(isinstance(c, int) and not isinstance(c, bool) and c >= 1 for c in counts)
        and many >= 2
        and data_range[0] < data_range[1]
    ):
        raise OptionError(
            f"need draws >= 1, bins >= 2, batch_size >= 1 and a rising data_range, got draws={draws!r}, bins={bins!r}, "
            f"batch_size={batch_size!r}, data_range={data_range!r}."
        )
    if steps is not None and (method != "vlb" or not isinstance(steps, int) or steps < 1):
        raise OptionError(f"steps= is a positive number of steps of method='vlb', got {steps!r} with {method!r}.")
    d = x[0].numel()
    trace = method_for("hutchinson" if divergence == "auto" and method != "ode" else divergence, d)
    # gradients are taken inside; x[rows] is a copy, which has them where x comes from an inference mode further out
    with torch.inference_mode(False), torch.no_grad(), counting() as count:
        nats, error = torch.empty(2, len(x), dtype=torch.float64)
        keys = sample_keys(x, seed)
        for rows in _parts(keys, batch_size or min(ROWS, max(1, NUMBERS // d))):
            part, own = x[rows], [keys[i] for i in rows]
            if integers:
                part = scaled(part, many, data_range) if method == "vlb" else dequantised(part, many, data_range, own)
            if method == "ode":
                found = _ode(denoiser, part, n, trace, probe, rtol, atol, own)
            elif method == "elbo":
                found = draws_elbo(denoiser, part, n, trace, probe, own)
            else:
                found = draws_vlb(denoiser, part, n, steps, many, data_range, own)
            nats[rows] = found.mean(0).cpu()
            error[rows] = 0.0 if method == "ode" and trace == "exact" else _standard_error(found, method != "ode").cpu()
    bits = None
    if values is not None:
        offset = 0.0 if method == "vlb" else math.log2(values / (data_range[1] - data_range[0]))
        bits = -nats / (d * BITS) + offset
    return Likelihood(nats, bits, error, count.rows / len(x))


def _parts(keys: list[int], size: int) -> Iterator[list[int]]:
    """Samples to do at a time: of one seed, whose bounds share their levels, and at most `size`."""
    seeds: dict[int, list[int]] = {}
    for i, key in enumerate(keys):
        seeds.setdefault(key >> 64, []).append(i)
    for own in seeds.values():
        yield from (own[i : i + size] for i in range(0, len(own), size))


def _standard_error(values: torch.Tensor, stratified: bool) -> torch.Tensor:
    """Of the mean of n draws, (n, B): of independent ones, or of one in each of n strata."""
    n = len(values)
    if n < 2:
        return torch.full_like(values[0], math.nan)
    return (values.diff(dim=0).square().mean(0) / 2 / n).sqrt() if stratified else values.std(0) / math.sqrt(n)


def _ode(
    denoiser: DenoiserLike, x: torch.Tensor, draws: int, method: Method, probe: Probe, rtol: float, atol: float,
    keys: list[int],
) -> torch.Tensor:  # fmt: skip
    """log p(x) = log prior(z_T) + int div dz/du du for each probe, (P, B); state and integrals are one system."""
    bottom, top = ends(denoiser)
    d, dtype = x[0].numel(), asked_dtype(x)
    noise = SampleNoise(keys, x.shape[1:], dtype, x.device)
    probes = [] if method == "exact" else [probe_vectors(noise, probe, k) for k in range(draws)]
    flow = FlowField(denoiser, dtype, x.device)

    def slope(state: torch.Tensor, u: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        levels, flat = flow.levels(u), state[:, :d]
        n, growth = column([norm(level) for level in levels], flat), column([flow.growth(level) for level in levels], flat)
        frame = sent(flat * n, dtype, x.device).reshape(len(state), *x.shape[1:])
        denoised, traces = denoised_and_traces(denoiser, frame, levels, method, [v[rows] for v in probes], rows)
        dz = flat * growth - precise(denoised.flatten(1)) / n
        return torch.cat([dz, growth - traces.T / d], 1)

    scale = bottom.scale * norm(bottom)
    flat = precise(x.flatten(1)) / scale
    start = torch.cat([flat, flat.new_zeros(len(x), max(len(probes), 1))], 1)
    u = math.log(bottom), math.log(top)
    end = integrate(slope, start, *u, rtol, atol, together=takes_rows(denoiser)).y
    latents = end[:, :d] * (norm(top) * top.scale)
    prior = normal(latents, denoiser.schedule.prior_std(top)) + d * math.log(norm(top) * top.scale)
    return prior + d * end[:, d:].T - d * math.log(scale)
