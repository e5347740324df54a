"""The exact targets against quadrature, autograd, fine integration and their own samples."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from solverkit.errors import ProblemError
from solverkit.problems import ExactDenoiser, GaussianMixture, gaussian, mixture
from solverkit.process.schedule import EDM, Flow
from solverkit.process.variance_preserving import VP

FRAMES = [EDM(), Flow()]
both_frames = pytest.mark.parametrize("schedule", FRAMES, ids=["sigma", "flow"])
# from almost clean to almost noise, in the coordinates of each frame
LEVELS = {0: (1e-3, 0.3, 1.0, 30.0), 1: (1e-3, 0.2, 0.5, 0.97)}


def grid_1d(low: float = -12.0, high: float = 12.0, n: int = 120001) -> tuple[Tensor, float]:
    x = torch.linspace(low, high, n, dtype=torch.float64)
    return x[:, None], (high - low) / (n - 1)


def draws(denoiser: ExactDenoiser, s: float, n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Noised samples x = alpha x_0 + s eps."""
    x0 = denoiser.target.sample(n, seed=0)
    eps = torch.randn(x0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return (denoiser.schedule.at(s).alpha * x0 + s * eps).to(dtype)


def quadrature(denoiser: ExactDenoiser, x: Tensor, s: float, x0: Tensor) -> tuple[Tensor, Tensor]:
    """E[x_0 | x] and log p(x), less the log volume of a cell, from p(x_0) N(x; alpha x_0, s^2) at x0."""
    alpha, D = denoiser.schedule.at(s).alpha, x.shape[1]
    log_joint = denoiser.target.log_prob(x0) - 0.5 * ((x[:, None] - alpha * x0) / s).square().sum(-1)
    log_p = log_joint.logsumexp(1) - D * math.log(s * math.sqrt(2 * math.pi))
    return log_joint.softmax(1) @ x0, log_p


@both_frames
@pytest.mark.parametrize("position", [0, 1, 2, 3])
def test_denoised_and_log_prob_match_quadrature_in_one_dimension(schedule, position):
    denoiser = mixture(dim=1, modes=3, schedule=schedule, seed=1)
    s = LEVELS[schedule.frame][position]
    x, (x0, width) = draws(denoiser, s, 20), grid_1d(-5, 5, 50001)
    D, log_p = quadrature(denoiser, x, s, x0)
    torch.testing.assert_close(denoiser(x, s), D, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(denoiser.log_prob(x, s), log_p + math.log(width), atol=1e-8, rtol=1e-8)


@both_frames
def test_denoised_and_log_prob_match_quadrature_in_two_dimensions(schedule):
    denoiser = mixture(dim=2, modes=4, schedule=schedule, seed=2)
    axis = torch.linspace(-4, 4, 401, dtype=torch.float64)
    x0 = torch.cartesian_prod(axis, axis)
    for s in LEVELS[schedule.frame][1:]:
        x = draws(denoiser, s, 10)
        D, log_p = quadrature(denoiser, x, s, x0)
        torch.testing.assert_close(denoiser(x, s), D, atol=1e-7, rtol=1e-7)
        torch.testing.assert_close(denoiser.log_prob(x, s), log_p + 2 * math.log(0.02), atol=1e-7, rtol=1e-7)


@both_frames
def test_low_rank_denoised_matches_importance_sampling(schedule):
    """No density to integrate: weigh samples of the target by the likelihood of the noise instead."""
    denoiser = mixture(dim=3, modes=2, rank=1, schedule=schedule, seed=3)
    s = LEVELS[schedule.frame][1]
    x, x0 = draws(denoiser, s, 5), denoiser.target.sample(200_000, seed=9)
    log_weight = -0.5 * ((x[:, None] - schedule.at(s).alpha * x0) / s).square().sum(-1)
    torch.testing.assert_close(denoiser(x, s), log_weight.softmax(1) @ x0, atol=3e-3, rtol=0)


@pytest.mark.parametrize("s", [0.0, 0.5])
@both_frames
def test_log_prob_integrates_to_one(schedule, s):
    denoiser = mixture(dim=1, modes=5, schedule=schedule)
    x, width = grid_1d()
    assert float(denoiser.log_prob(x, s).exp().sum() * width) == pytest.approx(1, abs=1e-9)


@both_frames
@pytest.mark.parametrize("rank", [None, 2])
def test_score_is_the_gradient_of_log_prob_and_agrees_with_the_denoiser(schedule, rank):
    denoiser = mixture(dim=5, modes=3, rank=rank, schedule=schedule)
    for s in LEVELS[schedule.frame]:
        x = draws(denoiser, s, 6).requires_grad_()
        (gradient,) = torch.autograd.grad(denoiser.log_prob(x, s).sum(), x)
        score = denoiser.score(x, s)
        scale = float(gradient.abs().max())
        torch.testing.assert_close(score, gradient, atol=1e-9 * scale, rtol=1e-8)
        tweedie = (schedule.at(s).alpha * denoiser(x, s) - x) / s**2
        torch.testing.assert_close(score, tweedie, atol=1e-8 * scale, rtol=1e-8)


def low_rank_with_floor(schedule: EDM | Flow) -> ExactDenoiser:
    full = gaussian(dim=6, schedule=schedule, seed=4).target
    target = GaussianMixture(full.weights, full.means, full.basis[:, :, :2], full.eigenvalues[:, :2], floor=0.05)
    return ExactDenoiser(target, schedule)


@both_frames
@pytest.mark.parametrize("kind", ["full", "low rank", "floor"])
def test_transport_solves_the_probability_flow(schedule, kind):
    """A fine RK4 of dx/ds = (x - D) / s, in log s so that the steps suit every level, gives the same map."""
    if kind == "floor":
        denoiser = low_rank_with_floor(schedule)
    else:
        denoiser = gaussian(dim=6, schedule=schedule, seed=4)
        if kind == "low rank":
            t = denoiser.target
            target = GaussianMixture(t.weights, t.means, t.basis[:, :, :2], t.eigenvalues[:, :2])
            denoiser = ExactDenoiser(target, schedule)
    start, end, steps = (20.0, 0.01, 250) if schedule.frame == 0 else (1.0, 0.01, 250)

    def slope(x: Tensor, log_s: float) -> Tensor:
        return x - denoiser(x, min(math.exp(log_s), start))  # dx / dlog s = s dx / ds

    x_start = x = draws(denoiser, start, 4)
    h = math.log(end / start) / steps
    for i in range(steps):
        u = math.log(start) + i * h
        k1 = slope(x, u)
        k2 = slope(x + h / 2 * k1, u + h / 2)
        k3 = slope(x + h / 2 * k2, u + h / 2)
        k4 = slope(x + h * k3, u + h)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    exact = denoiser.transport(x_start, start, end)
    torch.testing.assert_close(exact, x, atol=1e-6, rtol=0)
    torch.testing.assert_close(denoiser.transport(exact, end, start), x_start, atol=1e-9, rtol=0)


def test_transport_ends_on_the_data_and_agrees_across_frames():
    """s = 0 can be an end; one start, told in either frame's coordinates, has the same end."""
    sigma, flow = gaussian(schedule=EDM()), gaussian(schedule=Flow())
    x = draws(sigma, 4.0, 5)
    clean = sigma.transport(x, 4.0, 0.0)
    torch.testing.assert_close(flow.transport(x / 5.0, 0.8, 0.0), clean)  # k = alpha + sigma = 1 + 4
    torch.testing.assert_close(sigma.transport(clean, 0.0, 4.0), x)


@both_frames
@pytest.mark.parametrize("build", [mixture, partial(mixture, rank=8), gaussian], ids=["mnist", "rank 8", "one"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_at_the_extremes(schedule, build, dtype):
    denoiser = build(schedule=schedule)
    for s in (1e-4, 1e-3, 1.0) + ((100.0,) if schedule.frame == 0 else (1 - 1e-7,)):
        on = draws(denoiser, s, 4, dtype=dtype)
        for x in (on, torch.full_like(on, 3.0), torch.full_like(on, -100.0)):
            D = denoiser(x, s)
            assert D.dtype == dtype and D.shape == x.shape
            for v in (D, denoiser.score(x, s), denoiser.log_prob(x, s)):
                assert bool(v.isfinite().all()), (s, v)
        if s < 2e-4:
            torch.testing.assert_close(denoiser(on, s), on / schedule.at(s).alpha, atol=1e-3, rtol=0)


@both_frames
@pytest.mark.parametrize("rank", [None, 8])
def test_float32_agrees_with_float64(schedule, rank):
    denoiser = mixture(rank=rank, schedule=schedule)
    for s in (1e-4, *LEVELS[schedule.frame], *((100.0,) if schedule.frame == 0 else (1.0,))):
        x = draws(denoiser, s, 16, dtype=torch.float32)
        torch.testing.assert_close(denoiser(x, s).double(), denoiser(x.double(), s), atol=2e-4, rtol=1e-4)
    assert denoiser(x.bfloat16(), s).dtype == torch.bfloat16


@both_frames
def test_ends_of_the_schedule(schedule):
    """x / alpha without noise; the mean where alpha = 0."""
    denoiser = mixture(schedule=schedule, rank=5)
    x = denoiser.target.sample(3)
    torch.testing.assert_close(denoiser(x, 0.0), x)
    if schedule.frame == 1:
        torch.testing.assert_close(denoiser(x, 1.0), denoiser.target.mean.expand(3, -1))


@both_frames
def test_a_sample_does_not_depend_on_its_batch(schedule):
    denoiser = mixture(schedule=schedule)
    x = draws(denoiser, 0.4, 7)
    together = denoiser(x, 0.4)
    for i in range(7):
        torch.testing.assert_close(denoiser(x[i : i + 1], 0.4), together[i : i + 1], atol=1e-12, rtol=0)


@pytest.mark.parametrize("rank", [None, 2], ids=["full", "low"])
@pytest.mark.parametrize("floor", [0.0, 0.04])
def test_samples_have_the_stated_moments(rank, floor):
    t = mixture(dim=4, modes=3, seed=5).target
    target = GaussianMixture(t.weights, t.means, t.basis[:, :, :rank], t.eigenvalues[:, :rank], floor=floor)
    x, n = target.sample(200_000, seed=1), 200_000
    spread = float(target.covariance.diagonal().max())
    torch.testing.assert_close(x.mean(0), target.mean, atol=5 * math.sqrt(spread / n), rtol=0)
    torch.testing.assert_close(x.T.cov(), target.covariance, atol=5 * spread * math.sqrt(2 / n), rtol=0)
    # within one mode too: the between-mode part above is large and would hide a wrong floor
    one = GaussianMixture(torch.ones(1), t.means[:1], target.basis[:1], target.eigenvalues[:1], floor=floor)
    x = one.sample(n, seed=2)
    spread = float(one.covariance.diagonal().max())
    torch.testing.assert_close(x.T.cov(), one.covariance, atol=5 * spread * math.sqrt(2 / n), rtol=0)


def test_samples_are_reproducible():
    target = mixture().target
    assert torch.equal(target.sample(5, seed=3), target.sample(5, seed=3))
    assert not torch.equal(target.sample(5, seed=3), target.sample(5, seed=4))


def test_image_shaped_targets_are_the_flat_ones_reshaped():
    flat = mixture()
    t = flat.target
    image = ExactDenoiser(GaussianMixture(t.weights, t.means, t.basis, t.eigenvalues, shape=(1, 8, 8)), EDM())
    x = draws(image, 0.5, 3)
    assert x.shape == (3, 1, 8, 8)
    for method in ("__call__", "score"):
        expected = getattr(flat, method)(x.flatten(1), 0.5)
        assert torch.equal(getattr(image, method)(x, 0.5), expected.reshape(x.shape))
    assert torch.equal(image.log_prob(x, 0.5), flat.log_prob(x.flatten(1), 0.5))


def test_a_level_and_its_float_mean_the_same():
    denoiser = mixture(dim=3, schedule=Flow())
    x = draws(denoiser, 0.3, 2)
    assert torch.equal(denoiser(x, 0.3), denoiser(x, denoiser.schedule.at(0.3)))
    # a level brings its own alpha, whatever frame the denoiser's schedule prefers
    assert torch.equal(mixture(dim=3, schedule=EDM())(x, denoiser.schedule.at(0.3)), denoiser(x, 0.3))
    assert mixture(dim=3, schedule=VP())(x, 0.3).shape == x.shape


def test_the_bundled_mixture_is_what_it_says():
    target = mixture().target
    assert (target.modes, target.dim, target.rank, target.shape) == (10, 64, 64, (64,))
    condition = target.eigenvalues[:, 0] / target.eigenvalues[:, -1]
    assert bool((condition >= 1e3).all()) and bool((condition <= 1e6).all())
    assert float(target.means.min()) >= -1 and float(target.means.max()) <= 1
    assert float(target.weights.sum()) == pytest.approx(1)
    assert mixture(rank=8).target.rank == 8


def test_built_in_problems_are_reproducible_and_as_asked():
    assert mixture().shape == (64,) and gaussian(dim=3).shape == (3,)
    assert torch.equal(gaussian(seed=3).target.basis, gaussian(seed=3).target.basis)
    eigenvalues = gaussian(dim=5, condition=1e3).target.eigenvalues
    assert float(eigenvalues.max() / eigenvalues.min()) == pytest.approx(1e3)
    assert mixture(dim=7, modes=4, rank=3).target.basis.shape == (4, 7, 3)
    assert isinstance(gaussian().schedule, EDM)


def test_errors_say_what_was_given():
    low, x = mixture(dim=4, rank=2), torch.zeros(1, 4)
    with pytest.raises(ProblemError, match="rank 2 in 4"):
        low.target.log_prob(x)
    with pytest.raises(ProblemError, match="10 modes"):
        low.transport(x, 1.0, 0.5)
    with pytest.raises(ProblemError, match=r"\(1, 3\)"):
        low(torch.zeros(1, 3), 1.0)
    with pytest.raises(ProblemError, match="int64"):
        low(torch.zeros(1, 4, dtype=torch.int64), 1.0)
    with pytest.raises(ProblemError, match=r"s = 1\.5"):
        mixture(dim=4, schedule=Flow())(x, 1.5)
    with pytest.raises(ProblemError, match="rank"):
        mixture(rank=65)
    with pytest.raises(ProblemError, match="condition"):
        gaussian(condition=0.5)
    with pytest.raises(ProblemError, match="modes=3"):
        mixture(modes=3)
    with pytest.raises(ProblemError, match="got 0"):
        low.target.sample(0)
    one = torch.ones(1)
    with pytest.raises(ProblemError, match="orthonormal"):
        GaussianMixture(one, torch.zeros(1, 2), 2 * torch.eye(2)[None], torch.ones(1, 2))
    with pytest.raises(ProblemError, match="sum to 1"):
        GaussianMixture(2 * one, torch.zeros(1, 2), torch.eye(2)[None], torch.ones(1, 2))
    with pytest.raises(ProblemError, match=r"\(1, 3\)"):
        GaussianMixture(one, torch.zeros(1, 3), torch.eye(2)[None], torch.ones(1, 2))
