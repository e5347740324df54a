"""A likelihood belongs to a sample: whatever the batch, its order, its size, the memory, and the device it is asked on."""

from __future__ import annotations

import math
import os

import pytest
import torch

import solverkit as sk
from solverkit.errors import NonFiniteError, OptionError
from solverkit.flow.eight_bit import bin_numbers, decoded
from solverkit.flow.flow_map import ends
from solverkit.flow.likelihood import Likelihood, dequantised, log_likelihood
from solverkit.problems import gaussian, mixture

TARGET = mixture(dim=6, modes=3, schedule=sk.VP())


class RowByRow:
    """A denoiser that is asked for one row at a time: a matrix product's rounding depends on how many rows it has, and the
    flow from a sample far off the data makes 1e-6 nats of 1e-18."""

    def __init__(self, denoiser):
        self.denoiser = denoiser

    def __getattr__(self, name):
        return getattr(self.denoiser, name)

    def __call__(self, x, level):
        levels = level if isinstance(level, tuple) else (level,) * len(x)
        return torch.cat([self.denoiser(row, own) for row, own in zip(x.split(1), levels)])


METHODS = {
    "ode": {"rtol": 1e-2, "atol": 1e-2},
    "ode, probes": {"divergence": "hutchinson", "rtol": 1e-2, "atol": 1e-2},
    "ode, gaussian probes": {"divergence": "hutchinson", "probe": "gaussian", "draws": 3, "rtol": 1e-2, "atol": 1e-2},
    "ode, finite differences": {"divergence": "finite-difference", "rtol": 1e-2, "atol": 1e-2},
    "elbo": {"method": "elbo", "draws": 8},
    "elbo, exact": {"method": "elbo", "draws": 4, "divergence": "exact"},
    "vlb": {"method": "vlb", "draws": 8},
    "vlb in steps": {"method": "vlb", "draws": 8, "steps": 10},
}


def data(n, method):
    x = TARGET.target.sample(n, seed=1).double()
    x[-1] *= 0.2  # samples of different spread: what is theirs must not be the batch's
    return (x.clamp(-1, 1) * 127.5 + 127.5).round() / 127.5 - 1 if method == "vlb" else x


SEEDS = {"seed": 3, "keys": [7, 2**64 + 1, 2**70, 2**64 + 5, 9]}
FULL = os.environ.get("SOLVERKIT_PROOFS") == "full"  # each method with both; else in turn
PAIRS = [(m, s) for i, m in enumerate(METHODS) for j, s in enumerate(SEEDS) if FULL or i % 2 == j]


@pytest.mark.parametrize(("options", "seed"), [(METHODS[m], SEEDS[s]) for m, s in PAIRS], ids=["-".join(p) for p in PAIRS])
def test_a_batch_is_its_samples_one_by_one_and_in_any_order(options, seed):
    n = 5 if "method" in options else 3
    x = data(n, options.get("method"))
    listed = isinstance(seed, list)
    target = TARGET if "method" in options else RowByRow(TARGET)

    def found(rows, **more):
        key = [seed[i] for i in rows] if listed else seed
        return log_likelihood(target, x[rows], seed=key, **options, **more)

    batch = found(range(n))
    alone = [found([i]) for i in range(n)]
    backwards = found(range(n - 1, -1, -1))
    torch.testing.assert_close(torch.cat([each.nats for each in alone]), batch.nats, rtol=0, atol=1e-9)
    torch.testing.assert_close(torch.cat([each.standard_error for each in alone]), batch.standard_error, rtol=0, atol=1e-9)
    torch.testing.assert_close(backwards.nats.flip(0), batch.nats, rtol=0, atol=1e-9)
    torch.testing.assert_close(found(range(n), batch_size=2).nats, batch.nats, rtol=0, atol=1e-9)
    assert torch.isfinite(batch.standard_error).all()
    if "divergence" in options or "method" in options:  # and the seed is heard
        other = log_likelihood(TARGET, x, seed=[k + 1 for k in seed[:n]] if listed else seed + 1, **options)
        assert (other.nats - batch.nats).abs().min() > 1e-6 or options.get("divergence") == "exact"


def test_draws_of_samples_are_not_each_others():
    x = torch.zeros(2, 4, 500)
    x[1] += 1e-3
    noise = (dequantised(x, seed=5) - dequantised(x, seed=6)) * 128
    a, b = noise.flatten(1)
    assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 0.1
    assert torch.equal(dequantised(x, seed=5)[1:], dequantised(x[1:], seed=5))
    assert torch.equal(dequantised(x, seed=5).double(), dequantised(x.double(), seed=5).float().double())
    with pytest.raises(OptionError, match="seed"):
        log_likelihood(TARGET, data(2, "elbo"), "elbo", seed=-1)


def test_the_default_has_a_finite_standard_error():
    low = log_likelihood(TARGET, data(3, "ode"), rtol=1e-3, atol=1e-3)
    assert (low.standard_error == 0).all()
    d = sk.wrap(lambda x, t: torch.tanh(x.roll(1, 1)) / 2, "denoised", sk.EDM(), shape=(300,))
    high = log_likelihood(d, torch.randn(2, 300), rtol=1e-2, atol=1e-2)
    assert torch.isfinite(high.standard_error).all() and (high.standard_error > 0).all()


@pytest.mark.parametrize("tolerance", [1e-3, 1e-4])
def test_the_error_of_the_integration_is_what_is_stated(tolerance):
    target = mixture(dim=4, modes=3, schedule=sk.Flow())
    x, (bottom, _) = target.target.sample(16, seed=1).double(), ends(target)
    exact = target.log_prob(x / bottom.scale, bottom) - 4 * math.log(bottom.scale)
    missed = (log_likelihood(target, x, rtol=tolerance, atol=tolerance).nats - exact).abs() / 4
    assert float(missed.max()) < 100 * tolerance and float(missed.max()) > tolerance / 1000


def test_probes_share_an_integration():
    d = gaussian(dim=6, condition=10.0)
    x = d.target.sample(2, seed=1)
    one, many = (log_likelihood(d, x, divergence="hutchinson", draws=n, rtol=1e-4, atol=1e-4) for n in (1, 8))
    assert many.nfe < 1.5 * one.nfe and torch.isnan(one.standard_error).all()


BROKEN = sk.wrap(
    lambda x, t: torch.where(((t > 500) & (x[:, 0] > 0)).reshape(-1, 1), math.nan, 0.9) * x, "epsilon", sk.VP(), shape=(4,)
)


@pytest.mark.parametrize(
    "options",
    [{}, {"divergence": "hutchinson"}, {"method": "elbo"}, {"method": "vlb"}],
    ids=["ode", "probes", "elbo", "vlb"],
)
def test_the_first_nan_of_a_network_is_named(options):
    x = torch.tensor([[-1.0, 1.0, -1.0, -1.0], [1.0, 1.0, 1.0, 1.0]])
    with pytest.raises(NonFiniteError, match=r"at s = .* samples"):
        log_likelihood(BROKEN, x, **options)


def test_a_divergence_that_is_not_finite_is_named():
    d = sk.wrap(lambda x, t: x.abs().sqrt() * 0, "denoised", sk.EDM(), shape=(2,))  # the slope of sqrt at 0, times 0
    with pytest.raises(NonFiniteError, match=r"divergence .* NaN or inf at s = .*first: sample 1"):
        log_likelihood(d, torch.tensor([[1.0, 2.0], [0.0, 1.0]]))


def test_bits_per_dim_are_of_eight_bit_data_only():
    quick = {"rtol": 1e-2, "atol": 1e-2}
    assert log_likelihood(TARGET, data(2, "ode"), **quick).bits_per_dim is None
    assert log_likelihood(TARGET, data(2, "elbo"), "elbo", draws=2).bits_per_dim is None
    asked = log_likelihood(TARGET, data(2, "ode"), bins=16, **quick)
    torch.testing.assert_close(asked.bits_per_dim, -asked.nats / (6 * math.log(2)) + 3)
    d = sk.wrap(lambda x, t: x / 2, "denoised", sk.EDM(), shape=(1, 4, 4))
    images = torch.randint(0, 256, (2, 1, 4, 4), dtype=torch.uint8)
    x = images.float() / 127.5 - 1
    assert log_likelihood(d, x, **quick).bits_per_dim is not None
    assert log_likelihood(d, x.expand(2, 4, 4, 4), **quick).bits_per_dim is None  # latents of four channels are no images
    torch.testing.assert_close(log_likelihood(d, images, "vlb", draws=4, seed=[1, 2]).nats,
                               log_likelihood(d, x, "vlb", draws=4, seed=[1, 2]).nats, rtol=1e-5, atol=0)  # fmt: skip
    noisy = log_likelihood(d, dequantised(x, seed=[1, 2]), seed=[1, 2], **quick)
    whole = log_likelihood(d, images, seed=[1, 2], **quick)
    torch.testing.assert_close(whole.bits_per_dim, noisy.bits_per_dim)


def test_the_decoder_is_the_softmax_over_all_bins():
    generator = torch.Generator().manual_seed(0)
    for bins, std in ((256, 0.01), (256, 1.0), (3, 0.5)):
        k = torch.randint(0, bins, (3, 700), generator=generator)
        centres = torch.linspace(-1, 1, bins, dtype=torch.float64)
        noisy = centres[k] + std * torch.randn(3, 700, dtype=torch.float64, generator=generator)
        logits = -0.5 * ((noisy[..., None] - centres) / std).square()
        wanted = logits.log_softmax(-1).gather(-1, k[..., None])[..., 0].sum(1)
        torch.testing.assert_close(decoded(noisy, k, bins, (-1.0, 1.0), std), wanted, rtol=1e-12, atol=1e-9)
        assert torch.equal(bin_numbers(centres[k], bins, (-1.0, 1.0)), k)


def test_memory_does_not_grow_with_the_number_of_samples():
    """By the largest tensor that any operation makes: a chunk of values and their bins, or the data themselves."""
    from torch.overrides import TorchFunctionMode

    class Largest(TorchFunctionMode):
        most, rows = 0, 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.numel() > self.most:
                self.most = out.numel()
            return out

    d = sk.wrap(lambda x, t: 0.9 * x, "epsilon", sk.VP(), shape=(3, 32, 32))
    x = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)
    with Largest() as seen:
        log_likelihood(d, x, "vlb", draws=1, batch_size=8)
    assert seen.most <= max(x.numel(), 2**14 * 40)  # was 256 times the data
    sizes = []
    d = sk.wrap(lambda x, t: sizes.append(len(x)) or 0.9 * x, "epsilon", sk.VP(), shape=(2,))
    log_likelihood(d, torch.zeros(1500, 2), "elbo", draws=1)
    assert max(sizes) <= 512
    sizes.clear()
    d = sk.wrap(lambda x, t: sizes.append(len(x)) or 0.9 * x, "epsilon", sk.VP(), shape=(3, 256, 256))
    log_likelihood(d, torch.zeros(7, 3, 256, 256), "elbo", draws=1)
    assert max(sizes) == 5


def test_under_inference_mode():
    quick = {"rtol": 1e-2, "atol": 1e-2}
    bounds = {"method": "elbo", "draws": 4}, {"method": "vlb", "draws": 2}
    for options in (quick, {"divergence": "hutchinson", **quick}, *bounds):
        x = data(2, options.get("method")).float()
        with torch.inference_mode():
            found = log_likelihood(TARGET, x.clone(), **options)
        torch.testing.assert_close(found.nats, log_likelihood(TARGET, x, **options).nats)
        assert not found.nats.is_inference()


def test_one_line_says_what_was_found():
    found = log_likelihood(TARGET, data(3, "ode"), rtol=1e-2, atol=1e-2)
    assert repr(found).startswith("Likelihood(3 samples, mean ") and "\n" not in repr(found) and len(repr(found)) < 120
    one = Likelihood(torch.tensor([-2.0]), torch.tensor([1.5]), torch.tensor([0.25]), 12.0)
    assert repr(one) == "Likelihood(1 sample, mean -2 nats, each +- 0.25, 1.5 bits/dim, nfe=12)"
