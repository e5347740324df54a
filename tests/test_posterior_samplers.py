"""Posterior samplers against posteriors in closed form: which are exact, and on what."""

from __future__ import annotations

import math

import pytest
import torch

import solverkit as sk
from solverkit import inverse
from solverkit.errors import DenoiserError, OptionError, ProblemError
from solverkit.problems import ExactDenoiser, GaussianMixture, gaussian, mixture, posterior

STD = 0.3
SCHEDULES = (sk.EDM(), sk.VP(), sk.Flow())


def normal(dim=6, mean=0.0, variance=1.0, schedule=None):
    """N(mean, variance I)."""
    eye = torch.eye(dim, dtype=torch.float64)
    target = GaussianMixture(torch.ones(1), torch.full((1, dim), mean), eye[None], torch.full((1, dim), variance))
    return ExactDenoiser(target, schedule or sk.EDM())


def measured(target, rows=3, seed=0):
    """An operator that is no projection, and values of one sample."""
    generator = torch.Generator().manual_seed(seed)
    A = inverse.matrix(torch.randn(rows, target.target.dim, dtype=torch.float64, generator=generator), target.shape)
    y = A(target.target.sample(1, seed=seed + 1))
    return A, y + STD * torch.randn(y.shape, dtype=torch.float64, generator=generator)


def states(target, schedule, ratio, n=5):
    level = schedule.level(ratio)
    generator = torch.Generator().manual_seed(4)
    x = target.target.sample(n, seed=3)
    return level.alpha * x + float(level) * torch.randn(x.shape, dtype=torch.float64, generator=generator), level


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("ratio", [0.05, 1.0, 20.0])
def test_what_is_exact_is_the_posterior_mean(schedule, ratio):
    """D' = E[x_0 | x, y], to rounding: mmps for every Gaussian, pigdm for N(0, I), diffpir for N(m, v I)."""
    for target, made in (
        (gaussian(6, 20.0, schedule), lambda *m: inverse.mmps(*m, iterations=3)),
        (normal(schedule=schedule), inverse.pigdm),
        (normal(6, 0.7, 0.25, schedule), lambda *m: inverse.diffpir(*m, variance=0.25)),
    ):
        A, y = measured(target)
        x, level = states(target, schedule, ratio)
        wanted = posterior(target, A, y, STD)(x, level)
        torch.testing.assert_close(made(target, A, y, STD)(x, level), wanted, atol=1e-6, rtol=1e-6)
    A = inverse.inpainting(torch.tensor([True, False, True, False, False, True]))
    diagonal = normal(6, 0.2, 0.5, schedule)  # A C A^T is diagonal: its row sums are it
    x, level = states(diagonal, schedule, ratio)
    y = A(x[:1]) / max(level.alpha, 0.1)
    wanted = posterior(diagonal, A, y, STD)(x, level)
    torch.testing.assert_close(inverse.tmpd(diagonal, A, y, STD)(x, level), wanted, atol=1e-9, rtol=1e-9)


def test_what_is_not_exact_says_so():
    """One state of a correlated Gaussian at s = 1: the size of each approximation's error."""
    target = gaussian(6, 20.0)
    A, y = measured(target)
    x, level = states(target, target.schedule, 1.0, 200)
    wanted, free = posterior(target, A, y, STD)(x, level), target(x, level)
    size = float((wanted - free).norm())

    def off(d):
        return float((d(x, level) - wanted).norm()) / size

    errors = {
        "mmps": off(inverse.mmps(target, A, y, STD, iterations=3)),
        "mmps, 1 iteration": off(inverse.mmps(target, A, y, STD, 1)),
        "pigdm": off(inverse.pigdm(target, A, y, STD)), "tmpd": off(inverse.tmpd(target, A, y, STD)),
        "diffpir": off(inverse.diffpir(target, A, y, STD)),
        "diffpir released": off(inverse.diffpir(target, A, y, STD, rho="released")),
    }  # fmt: skip
    print(errors)
    assert errors["mmps"] < 1e-6 < 0.01 < errors["mmps, 1 iteration"]
    assert all(errors[name] > 0.02 for name in ("pigdm", "tmpd", "diffpir", "diffpir released")), errors
    assert errors["diffpir"] < errors["diffpir released"]


def test_pure_noise_of_a_flow():
    target = gaussian(6, 20.0, sk.Flow())
    A, y = measured(target)
    x = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wanted = posterior(target, A, y, STD)(x, 1.0)
    torch.testing.assert_close(inverse.mmps(target, A, y, STD)(x, 1.0), wanted, atol=5e-3, rtol=0)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_draws_have_the_posterior_mean_and_covariance(schedule):
    """4096 draws by mmps; heun's error at 40 steps is below the sampling error."""
    target = gaussian(6, 20.0, schedule)
    A, y = measured(target)
    wanted = posterior(target, A, y, STD).target
    run = sk.sample(
        inverse.mmps(target, A, y, STD, iterations=3), "heun", steps=40, shape=(4096, 6), dtype=torch.float64
    )
    std = wanted.covariance.diagonal().sqrt()
    assert float(((run.x.mean(0) - wanted.mean) / std).abs().max()) < 4.5 / math.sqrt(4096)
    scaled = (torch.cov(run.x.T) - wanted.covariance) / (std[:, None] * std)
    assert float(scaled.abs().max()) < 4.5 * math.sqrt(2 / 4096) + 0.01


def two(distance=2.0):
    """0.3 N(-distance, 0.1 I) + 0.7 N(distance, 0.1 I) in two dimensions."""
    eye = torch.eye(2, dtype=torch.float64)
    means = torch.tensor([[-distance, 0.0], [distance, 0.0]])
    return ExactDenoiser(
        GaussianMixture(torch.tensor([0.3, 0.7]), means, torch.stack([eye, eye]), torch.full((2, 2), 0.1)), sk.EDM()
    )


def test_the_posterior_of_a_mixture():
    """In closed form and by importance weights of the prior's draws."""
    target = two(1.0)
    A = inverse.matrix(torch.tensor([[1.0, 1.0]]), (2,))
    exact = posterior(target, A, torch.tensor([[-0.4]]), 0.5).target
    x = target.target.sample(200_000, seed=0)
    weight = (-0.5 * ((A(x)[:, 0] + 0.4) / 0.5) ** 2).softmax(0)
    torch.testing.assert_close(weight @ x, exact.mean, atol=0.01, rtol=0)
    torch.testing.assert_close(
        (weight[:, None] * (x - exact.mean)).T @ (x - exact.mean), exact.covariance, atol=0.01, rtol=0
    )
    with pytest.raises(ProblemError, match="matrix"):
        sk.problems.conditioned(target.target, torch.ones(1, 3), torch.ones(1), 0.1)
    with pytest.raises(ProblemError, match="no density"):
        sk.problems.conditioned(target.target, torch.ones(2, 2).double(), torch.ones(2), 0.0)


def test_weights_of_modes():
    """y sees the second coordinate alone, so the weights stay those of the prior; then the first, and one mode is left."""
    target = two()
    blind = inverse.matrix(torch.tensor([[0.0, 1.0]]), (2,))
    for made in (inverse.mmps, inverse.pigdm):
        x = sk.sample(made(target, blind, torch.tensor([[0.3]]), 0.1), "heun", steps=30, shape=(2000, 2)).x
        assert abs(float((x[:, 0] > 0).float().mean()) - 0.7) < 0.04
    seen = inverse.matrix(torch.tensor([[1.0, 0.0]]), (2,))
    x = sk.sample(inverse.mmps(target, seen, torch.tensor([[-1.8]]), 0.3), "heun", steps=30, shape=(500, 2)).x
    assert float((x[:, 0] < 0).float().mean()) > 0.99


def test_products_are_counted():
    target = gaussian(6, 20.0)
    A, y = measured(target)
    for made, products in ((inverse.pigdm, 1), (inverse.tmpd, 2), (inverse.diffpir, 0)):
        run = sk.sample(made(target, A, y, STD), "euler", steps=5, shape=(3, 6), dtype=torch.float64)
        assert (run.nfe, run.products) == (5, 5 * products), made.__name__
    run = sk.sample(inverse.mmps(target, A, y, STD), "euler", steps=5, shape=(3, 6), dtype=torch.float64)
    assert run.nfe == 5 and 15 <= run.products <= 20  # three values: three iterations at most, and one product more
    run = sk.sample(inverse.measured(target, A, y, STD), "dps", steps=5, shape=(3, 6))
    assert (run.nfe, run.products) == (5, 5)
    run = sk.sample(inverse.measured(target, A, y, STD), "daps", steps=4, shape=(3, 6), ode_steps=3, langevin_steps=2)
    assert (run.nfe, run.products) == (12, 0)
    run = sk.sample(inverse.measured(target, A, y, STD), "red-diff", steps=4, shape=(3, 6))
    assert (run.nfe, run.products) == (4, 0)


def runs():
    return {
        "pigdm": (inverse.pigdm, "ddpm", {}), "mmps": (inverse.mmps, "heun", {}), "tmpd": (inverse.tmpd, "ddpm", {}),
        "diffpir": (inverse.diffpir, "cps", {"eta": 0.3}), "dps": (inverse.measured, "dps", {}),
        "daps": (inverse.measured, "daps", {"langevin_steps": 3}),
        "daps exact": (inverse.measured, "daps", {"inner": "exact"}),
        "red-diff": (inverse.measured, "red-diff", {}),
    }  # fmt: skip


@pytest.mark.parametrize("name", runs())
def test_a_sample_does_not_depend_on_its_batch(name):
    """Values of one row a sample are cut with the batch; a sample alone is the sample of the batch."""
    made, sampler, options = runs()[name]
    target = mixture(dim=6, modes=3)
    A, _ = measured(target)
    y = A(target.target.sample(5, seed=2))
    same = {"steps": 6, "dtype": torch.float64, **options}
    whole = sk.sample(made(target, A, y, STD), sampler, num_samples=5, **same)
    parts = sk.sample(made(target, A, y, STD), sampler, num_samples=5, batch_size=2, **same)
    torch.testing.assert_close(parts.x, whole.x, atol=1e-9, rtol=1e-9)
    assert parts.nfe == whole.nfe
    alone = sk.sample(made(target, A, y[3:4], STD), sampler, num_samples=1, seed=[3], **same)
    torch.testing.assert_close(alone.x[0], whole.x[3], atol=1e-9, rtol=1e-9)


def test_the_released_norm_of_dps_is_one_of_the_batch():
    target = mixture(dim=6, modes=3)
    A, _ = measured(target)
    y = A(target.target.sample(4, seed=2))
    same = {"steps": 6, "dtype": torch.float64, "released": True}
    whole = sk.sample(inverse.measured(target, A, y, STD), "dps", num_samples=4, **same).x
    alone = sk.sample(inverse.measured(target, A, y[:1], STD), "dps", num_samples=1, **same).x
    assert float((alone - whole[:1]).abs().max()) > 1e-3
    own = sk.sample(inverse.measured(target, A, y[:1], STD), "dps", num_samples=1, steps=6, dtype=torch.float64).x
    torch.testing.assert_close(alone, own)


def test_dps_without_a_step_is_ddpm():
    target = mixture(dim=6, modes=3)
    A, y = measured(target)
    for schedule in SCHEDULES:
        d = ExactDenoiser(target.target, schedule)
        ours = sk.sample(inverse.measured(d, A, y, STD), "dps", steps=8, shape=(3, 6), dtype=torch.float64, zeta=0.0).x
        torch.testing.assert_close(ours, sk.sample(d, "ddpm", steps=8, shape=(3, 6), dtype=torch.float64).x)


def test_dps_is_one_process_in_every_schedule():
    """On levels of the same log-SNR the state of VP is the same, whatever the schedule's own."""
    target = mixture(dim=6, modes=3)
    A, y = measured(target)
    ratios = [30.0, 5.0, 1.0, 0.3, 0.05, 0.0]
    z = torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    runs = []
    for schedule in SCHEDULES:
        grid = sk.Grid.from_ratios(schedule, ratios)
        own = 30 / math.hypot(1, 30) * z * math.hypot(grid[0].alpha, float(grid[0])) * grid[0].scale
        d = inverse.measured(ExactDenoiser(target.target, schedule), A, y, STD)
        runs.append(sk.sample(d, "dps", grid=grid, x=own, zeta=0.4).x)
    torch.testing.assert_close(runs[0], runs[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(runs[0], runs[2], atol=1e-5, rtol=1e-5)


def test_one_exact_inner_draw_of_daps():
    """At one level with one Euler step: N(D, s^2 I) times the likelihood, in closed form."""
    target = normal(3, 0.5, 0.25)
    A, y = measured(target, 2)
    x = torch.full((4000, 3), 0.8, dtype=torch.float64)
    run = sk.sample(inverse.measured(target, A, y, STD), "daps", levels=[1.5, 0.0], x=x, ode_steps=1, inner="exact").x
    guess = target(x[:1], 1.5)[0]
    wide = GaussianMixture(torch.ones(1), guess[None], torch.eye(3)[None], torch.full((1, 3), 1.5**2))
    wanted = sk.problems.conditioned(wide, A.matrix, y[0], STD)
    torch.testing.assert_close(run.mean(0), wanted.mean, atol=0.1, rtol=0)
    torch.testing.assert_close(torch.cov(run.T), wanted.covariance, atol=0.15, rtol=0.1)


def test_langevin_of_daps_approaches_the_exact_draw():
    target = normal(3, 0.5, 0.25)
    A, y = measured(target, 2)
    x = torch.full((400, 3), 0.8, dtype=torch.float64)
    same = {"levels": [0.5, 0.0], "x": x, "ode_steps": 1}
    d = inverse.measured(target, A, y, STD)
    chain = sk.sample(d, "daps", langevin_steps=150, step=5e-3, **same).x
    exact = sk.sample(d, "daps", inner="exact", **same).x
    torch.testing.assert_close(chain.mean(0), exact.mean(0), atol=0.12, rtol=0)
    torch.testing.assert_close(torch.cov(chain.T), torch.cov(exact.T), atol=0.08, rtol=0)


def test_red_diff_finds_the_values_and_has_no_width():
    target = normal(4)
    A = inverse.matrix(torch.eye(4, dtype=torch.float64), (4,))
    y = torch.tensor([[1.0, -0.5, 0.2, 0.8]], dtype=torch.float64)
    free = sk.sample(inverse.measured(target, A, y, STD), "red-diff", steps=200, shape=(50, 4), grad_weight=0.0).x
    torch.testing.assert_close(free, y.float().expand(50, 4), atol=1e-3, rtol=0)
    x = sk.sample(inverse.measured(target, A, y, STD), "red-diff", steps=200, shape=(50, 4), lr=0.02).x
    exact = posterior(target, A, y, STD).target
    torch.testing.assert_close(x.mean(0), y[0].float(), atol=0.02, rtol=0)  # not the posterior mean, 8 % nearer to 0
    torch.testing.assert_close(exact.mean, y[0] / (1 + STD**2))
    assert float(x.std(0).mean()) < 0.2 * float(exact.covariance.diagonal().sqrt().mean())


def test_a_limit_cuts_what_no_data_can_have():
    """A limit above the largest variance changes nothing; below it, the correction has that length."""
    target = gaussian(6, 20.0)
    A, y = measured(target)
    x, level = states(target, target.schedule, 5.0)
    for made in (inverse.pigdm, inverse.mmps, inverse.tmpd):
        free, wide, cut = (made(target, A, y, STD, limit=limit)(x, level) for limit in (None, 1.0, 0.01))
        torch.testing.assert_close(wide, free)
        short, long = cut - target(x, level), free - target(x, level)
        assert float((short.norm(dim=1) / long.norm(dim=1)).max()) < 0.9
        torch.testing.assert_close(short / short.norm(dim=1, keepdim=True), long / long.norm(dim=1, keepdim=True))
    with pytest.raises(OptionError, match="limit must be positive"):
        inverse.pigdm(target, A, y, STD, limit=0.0)


def test_gradients_go_through():
    target = gaussian(6, 20.0)
    A, y = measured(target)
    x = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    for made in (inverse.pigdm, inverse.mmps, inverse.tmpd, inverse.diffpir):
        (gradient,) = torch.autograd.grad(made(target, A, y, STD)(x, 1.0).sum(), x)
        assert float(gradient.abs().max()) > 0
        assert not made(target, A, y, STD)(x.detach(), 1.0).requires_grad


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda d, m: sk.sample(d, "dps", steps=2, num_samples=1), OptionError, "sk.inverse.measured"),
        (lambda d, m: sk.sample(d, "daps", steps=2, num_samples=1, measurement=3), OptionError, "Measurement, got int"),
        (lambda d, m: sk.sample(m, "dps", steps=2, num_samples=1, zeta=-1.0), OptionError, "zeta"),
        (lambda d, m: sk.sample(m, "daps", steps=2, num_samples=1, ode_steps=0), OptionError, "ode_steps"),
        (lambda d, m: sk.sample(m, "daps", steps=2, num_samples=1, tau=0.0), OptionError, "tau > 0"),
        (lambda d, m: sk.sample(m, "red-diff", steps=2, num_samples=1, lr=0.0), OptionError, "lr > 0"),
        (lambda d, m: inverse.mmps(d, *m.parts, iterations=0), OptionError, "iterations"),
        (lambda d, m: inverse.diffpir(d, *m.parts, rho="best"), OptionError, "rho"),
        (lambda d, m: inverse.diffpir(d, *m.parts, variance=0.0), OptionError, "variance > 0"),
    ],
)  # fmt: skip
def test_what_is_refused(call, error, said):
    target = gaussian(6, 20.0)
    A, y = measured(target)
    m = inverse.measured(target, A, y, STD)
    m.parts = (A, y, STD)
    with pytest.raises(error, match=said):
        call(target, m)


def test_a_network_without_gradient():
    d = sk.wrap(lambda x, t: x.detach() * 0, "epsilon", sk.VP(), shape=(6,))
    A, y = measured(gaussian(6))
    with pytest.raises(DenoiserError, match="gradient"):
        sk.sample(inverse.pigdm(d, A, y, STD), "euler", steps=2, num_samples=1)
    sk.sample(inverse.diffpir(d, A, y, STD), "euler", steps=2, num_samples=1)
