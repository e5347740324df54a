"""Likelihoods against exact densities, and the probability flow there and back."""

from __future__ import annotations

import math

import pytest
import torch

import solverkit as sk
from solverkit.errors import BudgetError, DenoiserError, OptionError
from solverkit.flow.divergence import denoised_and_traces, probe_vectors
from solverkit.flow.flow_map import decode, encode, ends
from solverkit.flow.likelihood import dequantised, log_likelihood
from solverkit.problems import gaussian, mixture
from solverkit.run.noise import SampleNoise, sample_seeds

SCHEDULES = {
    "EDM": sk.EDM(),
    "VE": sk.VE(0.01, 100.0),
    "VP": sk.VP(),
    "continuous VP": sk.VP(continuous=True),
    "sub-VP": sk.SubVP(),
    "flow": sk.Flow(),
}


def exact(target, x):
    """log density at the smallest noise level, in the model's own coordinates."""
    bottom, _ = ends(target)
    return target.log_prob(x / bottom.scale, bottom) - x[0].numel() * math.log(bottom.scale)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("build", [gaussian, lambda schedule: mixture(dim=4, modes=3, schedule=schedule)])
def test_ode_likelihood_is_the_exact_density(build, schedule):
    target = build(schedule=schedule)
    x = target.target.sample(64, seed=1)
    found = log_likelihood(target, x, divergence="exact")
    missed = (found.nats - exact(target, x)) / x[0].numel()
    # a single sample also sees that the prior N(0, sigma_max^2) is not quite the noised data; in the mean that is tiny
    assert abs(float(missed.mean())) < 1e-3 and float(missed.abs().max()) < 0.02
    assert (found.standard_error == 0).all() and found.nfe > 20 and found.bits_per_dim is None
    if isinstance(schedule, sk.EDM):
        asked = log_likelihood(target, x[:2], divergence="exact", bins=256)
        torch.testing.assert_close(asked.bits_per_dim, -found.nats[:2] / (x[0].numel() * math.log(2)) + 7)


@pytest.mark.parametrize("build", [gaussian, lambda schedule: mixture(dim=4, modes=3, schedule=schedule)])
@pytest.mark.parametrize("schedule", [sk.EDM(sigma_max=3000.0), sk.Flow()], ids=["EDM", "flow"])
def test_where_the_prior_is_right_every_sample_is(build, schedule):
    target = build(schedule=schedule)
    x = target.target.sample(32, seed=1)
    missed = log_likelihood(target, x, divergence="exact").nats - exact(target, x)
    assert float(missed.abs().max()) / x[0].numel() < 1e-3


@pytest.mark.parametrize("probe", ["rademacher", "gaussian"])
@pytest.mark.parametrize("divergence", ["hutchinson", "finite-difference"])
def test_probes_are_unbiased(divergence, probe):
    target = gaussian(dim=6, condition=10.0)
    x = target.target.sample(16, seed=1)
    found = log_likelihood(target, x, divergence=divergence, probe=probe, draws=20, rtol=1e-4, atol=1e-4)
    missed = found.nats - exact(target, x)
    assert float(found.standard_error.mean()) < (1.0 if probe == "rademacher" else 10.0)
    assert abs(float(missed.mean())) < 4 * float(found.standard_error.mean()) / 4 + 0.05


@pytest.mark.parametrize("schedule", [sk.EDM(), sk.VP(), sk.Flow()], ids=["EDM", "VP", "flow"])
@pytest.mark.parametrize("build", [gaussian, lambda schedule: mixture(dim=4, modes=3, schedule=schedule)])
def test_elbo_is_tight_for_an_exact_score_and_below_for_a_wrong_one(build, schedule):
    target = build(schedule=schedule)
    x = target.target.sample(64, seed=1)
    found = log_likelihood(target, x, "elbo", draws=60, divergence="exact")
    gap = found.nats - exact(target, x)
    error = float(found.standard_error.mean()) / math.sqrt(len(x))
    assert abs(float(gap.mean())) < 4 * error + 1e-3 * x[0].numel(), (float(gap.mean()), error)

    class Wrong:
        def __init__(self):
            self.schedule, self.shape = target.schedule, target.shape

        def __call__(self, y, level):
            return target(y, level) + 0.1 * torch.tanh(y / float(level))

    worse = log_likelihood(Wrong(), x, "elbo", draws=60, divergence="exact")
    ode = log_likelihood(Wrong(), x, "ode", divergence="exact")
    assert float(worse.nats.mean()) < float(ode.nats.mean()) + 4 * error
    assert float(worse.nats.mean()) < float(found.nats.mean())


def test_vlb_of_data_on_two_values():
    """x is -1 or 1 in each of four independent dimensions: the exact log-probability of 8-bit data is 4 log 1/2."""

    class Coins:
        schedule = sk.VP(continuous=True, t_min=1e-5)
        shape = (4,)

        def __call__(self, x, level):
            return torch.tanh(x * level.alpha / float(level) ** 2)

    x = torch.randint(0, 2, (32, 4), generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    found = log_likelihood(Coins(), x, "vlb", draws=800)
    wanted = -4 * math.log(2)
    error = float(found.standard_error.mean()) / math.sqrt(len(x))
    assert wanted - 0.1 - 4 * error < float(found.nats.mean()) < wanted + 4 * error
    torch.testing.assert_close(found.bits_per_dim, -found.nats / (4 * math.log(2)))
    means = [float(log_likelihood(Coins(), x, "vlb", draws=800, steps=n).nats.mean()) for n in (10, 100)]
    assert means[0] < means[1] < float(found.nats.mean()) + 4 * error  # finer steps are a tighter bound
    with pytest.raises(OptionError, match="256 values"):
        log_likelihood(Coins(), x + 0.001, "vlb")


def test_trace_of_a_linear_map():
    matrix = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    class Linear:
        schedule = sk.EDM()

        def __call__(self, x, level):
            return x @ matrix.T

    x, level = torch.randn(3, 5, dtype=torch.float64), sk.EDM().level(1.0)
    levels, noise = [level] * 3, SampleNoise(sample_seeds(0, 3), (5,), torch.float64)
    v = [probe_vectors(noise, "rademacher", k) for k in range(2)]
    assert set(v[0].unique().tolist()) == {-1.0, 1.0} and not torch.equal(*v)
    wanted = torch.stack([torch.einsum("bi,ij,bj->b", each, matrix, each) for each in v])
    for method in ("hutchinson", "finite-difference"):
        denoised, traces = denoised_and_traces(Linear(), x, levels, method, v)
        torch.testing.assert_close(traces, wanted)
        torch.testing.assert_close(denoised, x @ matrix.T)
    _, traces = denoised_and_traces(Linear(), x, levels, "exact")
    torch.testing.assert_close(traces, matrix.trace().expand(1, 3))


class Flat:
    """A network without a gradient."""

    schedule = sk.EDM()

    def __call__(self, x, level):
        return x.detach() / (1 + float(level) ** 2)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, DenoiserError, "finite-difference"),
        ({"method": "odd"}, OptionError, "elbo"),
        ({"draws": 0}, OptionError, "draws"),
        ({"steps": 5}, OptionError, "vlb"),
        ({"divergence": "trace", "method": "elbo"}, OptionError, "hutchinson"),
        ({"probe": "uniform"}, OptionError, "rademacher"),
        ({"rtol": -1.0}, OptionError, "toleran"),
        ({"data_range": (1.0, -1.0)}, OptionError, "data_range"),
    ],
)
def test_what_cannot_be_measured(options, error, words):
    with pytest.raises(error, match=words):
        log_likelihood(Flat(), torch.randn(2, 3), **options)


def test_more_that_cannot_be_measured():
    for x in (torch.randn(3), torch.ones(2, 3, dtype=torch.long), [1.0]):
        with pytest.raises(OptionError, match="batch"):
            log_likelihood(Flat(), x)
    assert torch.isfinite(log_likelihood(Flat(), torch.randn(2, 3), divergence="finite-difference").nats).all()
    with pytest.raises(BudgetError, match="max_steps"):
        encode(gaussian(), torch.randn(2, 8), steps=None, max_steps=3)
    for steps in (0, 2.5, True):
        with pytest.raises(OptionError, match="positive integer"):
            encode(gaussian(), torch.randn(2, 8), steps=steps)
    with pytest.raises(BudgetError, match="more steps"):
        encode(sk.wrap(lambda x, t: -9 * x, "denoised", sk.EDM()), torch.randn(2, 8), steps=20)
    with pytest.raises(OptionError, match="1024"):
        log_likelihood(sk.wrap(lambda x, t: x, "denoised", sk.EDM()), torch.randn(1, 1025), divergence="exact")


def test_dequantised_data_lie_in_their_bins():
    x = torch.linspace(-1, 1, 256)[None]
    y = dequantised(x)
    assert float(y.min()) >= -1 and float(y.max()) < 1
    assert torch.equal(((y + 1) * 128).floor()[0], torch.arange(256.0))
    many = dequantised(torch.ones(1, 2_000_000))  # the last bin, where float32 is coarsest
    assert float(many.max()) < 1 and float(many.min()) >= 1 - 2 / 256
    integers = torch.arange(256, dtype=torch.uint8)[None]
    assert torch.equal(((dequantised(integers) + 1) * 128).floor()[0], torch.arange(256.0))


@pytest.mark.parametrize("steps", [80, None])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_encode_and_decode_are_inverse(schedule, steps):
    target = gaussian(dim=6, schedule=schedule)
    x = target.target.sample(8, seed=1)
    latents = encode(target, x, steps)
    assert float((decode(target, latents.x, steps).x - x).abs().max()) < (1e-3 if steps is None else 1e-9)
    spread = float((latents.x / schedule.prior_std(latents.level)).square().mean())
    assert 0.3 < spread < 3 and latents.nfe > 20 and (latents.steps > 5).all()
    bottom, top = ends(target)
    wanted = target.transport(x / bottom.scale, bottom, top) * top.scale
    torch.testing.assert_close(latents.x, wanted, rtol=1e-3, atol=1e-3)
    clean = decode(target, latents.x, steps, denoise=True)
    assert clean.nfe > 20 and float(clean.level) == 0 and not torch.equal(clean.x, x)


@pytest.mark.parametrize("name", ["mnist", "mnist-flow"])
def test_images_survive_the_way_to_noise_and_back(name):
    """In float32, where a network's rounding is what is left. As images, what the network itself drew."""
    denoiser = sk.load(name)
    x = sk.sample(denoiser, "dpmpp-2m", nfe=10, shape=(1, 1, 28, 28), seed=0).x
    latents = encode(denoiser, x, steps=20)
    assert 0.8 < float((latents.x / denoiser.schedule.prior_std(latents.level)).std()) < 1.2
    assert float((decode(denoiser, latents.x, steps=20).x - x).abs().max()) < 1e-3


def test_the_purify_example_undoes_a_perturbation():
    import importlib.util
    from pathlib import Path

    path = Path(__file__).parents[1] / "docs" / "examples" / "purify.py"
    spec = importlib.util.spec_from_file_location("purify", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    target = mixture(dim=16, modes=3)
    clean = target.target.sample(64, seed=1)
    attacked = clean + 0.5 * torch.sign(torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)))
    options = {"data_range": (-5.0, 5.0), "stop_below": 0.0, "max_iter": 40}
    found = module.purify(target, attacked, 0.25, **options)
    assert float((found - clean).norm()) < 0.8 * float((attacked - clean).norm())
    assert float(target.log_prob(found, 0.25).mean()) > float(target.log_prob(attacked, 0.25).mean()) + 5
    assert torch.equal(found, module.purify(target, attacked, 0.25, **options))
