"""Paths towards y: ResShift's own step, the deterministic formula, orders, and the bundled super-resolution network."""

from __future__ import annotations

import math

import pytest
import torch
from test_students import diagonal

import solverkit as sk
from solverkit.errors import DenoiserError, OptionError, ScheduleError
from solverkit.proofs.driving import in_one_run
from solverkit.targets.exact import ExactDenoiser

PATH = sk.Residual()


def exact_net(y, data):
    """E[x_0 | x] of x_0 = y + a Gaussian residual, as a network that is given x times the input scale."""
    inside = ExactDenoiser(data.target, PATH)

    def net(x, time):
        level = PATH.level(PATH.ratio(float(time[0])))
        own = x / PATH.input_scale(level)
        return inside.target.denoised((own - y) / level.scale, level.alpha, float(level)) + y

    return net


def test_the_schedule_of_resshift():
    for t in range(15):
        root = 0.02 * (0.99 / 0.02) ** ((t / 14) ** 0.3)
        alpha, sigma = PATH.alpha_sigma(PATH.ratio(float(t)))
        assert alpha == pytest.approx(1 - root**2, rel=1e-12) and sigma == pytest.approx(2 * root, rel=1e-12)
        assert PATH.time(PATH.ratio(float(t))) == pytest.approx(t, abs=1e-9)
        assert PATH.input_scale(PATH.level(PATH.ratio(float(t)))) == pytest.approx(1 / math.sqrt(4 * root**2 + 1))
    settings = {"kappa": 2.0, "steps": 15, "min_noise_level": 0.04, "etas_end": 0.99, "schedule_kwargs": {"power": 0.3}}
    read = sk.Residual.read(settings)
    assert (read.first, read.steps) == (0.02, 15) and read.last == pytest.approx(math.sqrt(0.99))
    with pytest.raises(ScheduleError, match="lack"):
        sk.Residual.read({"kappa": 2.0})
    with pytest.raises(ScheduleError, match="first < last"):
        sk.Residual(first=0.99, last=0.5)


def levels():
    return [float(PATH.level(PATH.ratio(float(t)))) for t in range(14, -1, -1)]


def test_ancestral_and_deterministic_steps_are_those_of_the_papers():
    """Mean (eta_t / eta_s) x + ((eta_s - eta_t) / eta_s) x_0, variance kappa^2 eta_t (eta_s - eta_t) / eta_s; ddim is
    SinSR's k x_0 + m x + j y.
    """
    generator = torch.Generator().manual_seed(0)
    x, x0, y = (torch.randn(2, 1, 4, 4, dtype=torch.float64, generator=generator) for _ in range(3))
    model = sk.wrap_towards(lambda x, t: x0.to(x.dtype), y, "sample", PATH, dtype=torch.float64)
    for s, t in ((14, 13), (7, 6), (1, 0)):
        a, b = (PATH.level(PATH.ratio(float(i))) for i in (s, t))
        eta_s, eta_t = (1 - PATH.alpha_sigma(level.ratio)[0] for level in (a, b))
        grid = sk.Grid((a, b), PATH)
        plan = sk.trace("resshift", grid)
        run = sk.rollout(model, plan, x=x - y, dtype=torch.float64)
        step = run.transitions(reduce="sum")[0]
        mean = step.mean * b.scale + y
        assert torch.allclose(mean, eta_t / eta_s * x + (eta_s - eta_t) / eta_s * x0, rtol=0, atol=1e-12)
        assert (step.std * b.scale) ** 2 == pytest.approx(4 * eta_t * (eta_s - eta_t) / eta_s, rel=1e-12)
        m, j = math.sqrt(eta_t / eta_s), eta_t - math.sqrt(eta_t * eta_s)
        out = sk.sample(model, "ddim", grid=grid, x=x).x
        assert torch.allclose(out, (1 - m - j) * x0 + m * x + j * y, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("dpmpp-2m", 2), ("heun", 2), ("unipc:order=2", 2)])
def test_solvers_have_their_order_on_a_shifted_path(name, order):
    data, y = diagonal(PATH), torch.tensor([[3.0, -1.0, 0.5]], dtype=torch.float64)
    model = sk.wrap_towards(exact_net(y, data), y, "sample", PATH, dtype=torch.float64)
    x, errors = y + torch.tensor([[1.0, -2.0, 0.7]], dtype=torch.float64), []
    high, low = 6.0, 0.5
    for n in (24, 48):
        ratios = torch.linspace(math.log(high), math.log(low), n + 1, dtype=torch.float64).exp().tolist()
        first = (high / ratios[1]) ** (1 / 8)
        ratios = [high, *(high / first**i for i in range(1, 8)), *ratios[1:]]
        grid = sk.Grid.from_ratios(PATH, ratios)
        options = {"lower_order_final": False} if "dpmpp-2m" in name or "unipc" in name else {}
        out = sk.sample(model, name, grid=grid, x=x * grid[0].scale + y * (1 - grid[0].scale), **options).x
        z = data.transport((x - y), grid[0], grid[-1])
        errors.append(float((out - (z * grid[-1].scale + y)).norm()))
    assert math.log2(errors[0] / errors[1]) > order - 0.3


def test_a_run_takes_and_gives_x_in_batches_too():
    data = diagonal(PATH)
    y = torch.arange(12, dtype=torch.float64).reshape(4, 3)
    parts = y, y[2:]
    nets = [sk.wrap_towards(exact_net(part, data), part, "sample", PATH, dtype=torch.float64) for part in parts]
    whole = sk.sample(nets[0], "ddim", levels=[*levels(), 0.0], num_samples=4, dtype=torch.float64, return_trajectory=True)
    seeds = sk_seeds(4)
    part = sk.sample(nets[1], "ddim", levels=[*levels(), 0.0], num_samples=2, seed=seeds[2:], dtype=torch.float64)
    assert torch.allclose(whole.x[2:], part.x, rtol=0, atol=1e-12)
    assert float((whole.x - y).mean()) < 2.0 and float((whole.trajectory[0] - y).abs().max()) < 12.0


def sk_seeds(n):
    from solverkit.run.noise import sample_seeds

    return sample_seeds(0, n)


def test_the_law_of_an_ancestral_run():
    """The start lacks alpha_T (x_0 - y): one per cent of it."""
    data = diagonal(PATH)
    grid = sk.Grid((*(PATH.level(PATH.ratio(float(t))) for t in range(14, -1, -1)), PATH.level(0.0)), PATH)
    _, spread = in_one_run([sk.trace("resshift", grid)], data)
    assert bool((spread.square() < data.target.eigenvalues[0]).all()) and float(spread[0] ** 2) > 0.5


def test_bad_input():
    y = torch.zeros(2, 3)
    with pytest.raises(DenoiserError, match="prediction must be"):
        sk.wrap_towards(lambda x, t: x, y, "v_prediction", PATH)
    with pytest.raises(OptionError, match="scaled=False"):
        sk.wrap_towards(lambda x, t: x, y, "sample", sk.VP())
    with pytest.raises(OptionError, match="towards must be"):
        sk.wrap_towards(lambda x, t: x, torch.zeros(3), "sample", PATH)
    with pytest.raises(DenoiserError, match="y has 2 rows"):
        sk.sample(sk.wrap_towards(lambda x, t: x, y, "sample", PATH), "ddim", steps=2, num_samples=3)
    with pytest.raises(OptionError, match="small"):
        sk.load("mnist-super-resolution", small=torch.zeros(2, 1, 28, 28))


def test_the_bundled_network_enlarges_what_it_is_given():
    from torch.nn.functional import avg_pool2d

    big = sk.sample(sk.load("mnist", labels=torch.arange(10)), "dpmpp-2m", nfe=10, num_samples=10).x.clamp(-1, 1)
    small = avg_pool2d(big, 4)
    model = sk.load("mnist-super-resolution", small=small)
    start = sk.sample(model, "ddim", levels=[*levels(), 0.0], num_samples=10, seed=1).x
    enlarged = model.towards
    assert float((avg_pool2d(start, 4) - small).abs().mean()) < 0.05
    assert float((start - big).square().mean()) < float((enlarged - big).square().mean())
