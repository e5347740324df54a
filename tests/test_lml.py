"""The published update against its closed form, the solver that it is at kappa = 0, and Langevin steps in a metric."""

from __future__ import annotations

import pytest
import torch
from solverkit_plugins.lml.direction import correction, published_correction, random_turn
from solverkit_plugins.lml.langevin import lm_correct
from solverkit_plugins.lml.lml import preset
from solverkit_plugins.lml.metric import Secants, gaussian_metric, secant_metric
from solverkit_plugins.predictor_corrector.sampler import correct

import solverkit as sk
from solverkit.bench.frechet import frechet_distance, moments
from solverkit.errors import OptionError, StatsError
from solverkit.problems import gaussian, mixture
from solverkit.run.noise import Noise, SampleNoise, sample_seeds


def released(v, p, damping, momentum):
    """The formula of the released code, in the dtype of v."""
    m = momentum * p + (1 - momentum) * v
    d = v - m * ((v * m).sum(1, keepdim=True) / (damping + (m * m).sum(1, keepdim=True)))
    return d * (v.norm(dim=1, keepdim=True) / d.norm(dim=1, keepdim=True))


def corrected(v, p, damping, momentum):
    return v + correction(v, p, damping, momentum)


def vectors(n=8, dim=200, apart=0.3):
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(n, dim, dtype=torch.float64, generator=generator)
    return v, v + apart * torch.randn(n, dim, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("momentum", [1e-8, 1e-6, 1e-4, 1e-2, 0.1, 0.5])
@pytest.mark.parametrize("damping", [1e-3, 1.0])
def test_the_closed_form_is_the_published_formula(momentum, damping):
    v, p = vectors()
    assert float((corrected(v, p, damping, momentum) - released(v, p, damping, momentum)).abs().max()) < 1e-9
    torch.testing.assert_close(corrected(v, p, damping, momentum).norm(dim=1), v.norm(dim=1))


@pytest.mark.parametrize("solver", ["ddim", "dpmpp-2m", "unipc", "heun"])
@pytest.mark.parametrize("batch", [1, 64])
def test_without_momentum_it_is_the_solver_itself(solver, batch):
    """Both by their plans: pulled, a solver adds in another order, which in float32 at s = 80 is rounding of 1e-5."""
    model = mixture()
    for dtype, limit in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        for nfe in (5, 6, 8, 12, 20, 50, 100):
            run = {"nfe": nfe, "num_samples": batch, "dtype": dtype, "constrain": lambda x, level, draw: x}
            base, mine = sk.sample(model, solver, **run).x, sk.sample(model, "lml", solver=solver, **run).x
            assert float((base - mine).abs().max()) <= limit * max(1.0, float(base.abs().max())), (dtype, nfe)


@pytest.mark.parametrize("insertion", ["ddim", "data-increment", "noise-increment"])
def test_without_momentum_the_published_insertions_change_nothing(insertion):
    run = {"nfe": 9, "num_samples": 4, "dtype": torch.float64}
    solver = "dpm-solver-1" if insertion == "noise-increment" else "ddim"
    base = sk.sample(mixture(), solver, **run).x
    mine = sk.sample(mixture(), "lml", solver=solver, insertion=insertion, **run).x
    torch.testing.assert_close(mine, base, rtol=1e-10, atol=1e-10)


def test_ddim_as_published_is_the_loop_of_the_released_code():
    """x0 from the original epsilon, the direction term from the corrected one."""
    model = mixture()
    grid = sk.make_grid("karras", model.schedule, 7)
    x = 80 * torch.randn(3, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mine, previous = sk.sample(model, "lml", x=x, grid=grid, insertion="ddim", momentum=2e-6, damping="celebahq").x, None
    for s, t in grid.steps():
        denoised = model(x, s)
        eps = (x - denoised) / s
        x = denoised + float(t) * released(eps, eps if previous is None else previous, 5e-3, 2e-6)
        previous = eps
    torch.testing.assert_close(mine, x, rtol=1e-7, atol=1e-7)


def test_released_is_noise_where_the_closed_form_is_exact():
    model, run = mixture(), {"nfe": 8, "num_samples": 16}
    base = sk.sample(model, "ddim", **run).x
    assert float((sk.sample(model, "lml", solver="ddim", **run).x - base).abs().max()) < 1e-5
    noise = sk.sample(model, "lml", solver="ddim", damping=1e-3, released=True, **run).x
    assert float((noise - base).abs().max()) > 1e-4
    v = torch.randn(2, 200_000, generator=torch.Generator().manual_seed(0))
    out = v + published_correction(v, v, 1e-3, 0.0)
    assert not torch.isfinite(out).all() or float(torch.nn.functional.cosine_similarity(out, v).min()) < 0.999
    assert torch.equal(corrected(v, v, 1e-3, 0.0), v)


def test_half_precision_latents_do_not_overflow():
    generator = torch.Generator().manual_seed(0)
    v, p = (torch.randn(2, 4, 128, 128, generator=generator).half() for _ in range(2))
    for momentum in (0.0, 1e-7, 0.1):
        out = corrected(v, p, 1e-3, momentum)
        assert out.dtype == torch.float16 and bool(torch.isfinite(out).all())
        torch.testing.assert_close(out.float().norm(), v.float().norm(), rtol=1e-3, atol=0)


def test_runs_share_nothing():
    run = {"nfe": 6, "solver": "dpmpp-2m", "momentum": 5e-6}
    first = sk.sample(mixture(), "lml", num_samples=3, **run).x
    sk.sample(mixture(), "lml", num_samples=5, seed=9, **run)
    assert torch.equal(sk.sample(mixture(), "lml", num_samples=3, **run).x, first)


def test_the_control_turns_by_the_angle():
    v, p = vectors()
    out = v + random_turn(v, p - v, 0.3)
    cosine = torch.nn.functional.cosine_similarity(out, v)
    torch.testing.assert_close(cosine, torch.full_like(cosine, 0.3).cos())
    torch.testing.assert_close(out.norm(dim=1), v.norm(dim=1))


def test_presets_and_what_is_refused():
    assert preset("cifar10", 5) == 8e-4 and preset("cifar10", 9) == 1e-3 and preset("cifar10", 200) == 5e-5
    assert preset("flux", 28) == 1e-2
    for options, words in (
        ({"damping": "imagenet"}, "cifar10"),
        ({"damping": 0.0}, "damping"),
        ({"momentum": 1.0}, "momentum"),
        ({"insertion": "data-increment", "solver": "heun"}, "one evaluation"),
        ({"insertion": "data-increment", "solver": "ddpm"}, "deterministic"),
    ):
        with pytest.raises(OptionError, match=words):
            sk.sample(mixture(), "lml", nfe=8, num_samples=2, **options)


# --- the metric


def test_the_secants_of_a_gaussian_are_its_hessian():
    target = gaussian(dim=6, condition=30.0)
    level = target.schedule.at(0.4)
    x = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moved = [0.1 * torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(1, 7)]
    answered = [target(x + m, level) - target(x, level) for m in moved]
    values, vectors = torch.linalg.eigh(target.target.covariance)
    exact = gaussian_metric(x, sk.GaussianStats(target.target.mean, vectors.T.flip(0), values.flip(0)), level, 0.1)
    wanted = exact.along(x, exact.curvature, exact.off)
    for pooled in (False, True):
        metric = secant_metric(x, Secants(moved, answered, pooled), level, 0.1)
        torch.testing.assert_close(metric.along(x, metric.curvature, metric.off), wanted, rtol=1e-3, atol=1e-3)
    nothing = secant_metric(x, Secants([], [], False), level, 0.1)
    torch.testing.assert_close(nothing.along(x, nothing.curvature, nothing.off), x / 0.4**2)


def test_a_gaussian_is_left_as_it_is_by_its_own_metric():
    """Stationary for any step, not only for small ones."""
    target = gaussian(dim=4, condition=50.0)
    level, n = target.schedule.at(0.5), 20_000
    covariance = target.target.covariance + 0.25 * torch.eye(4, dtype=torch.float64)
    z = torch.randn(n, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    x = target.target.sample(n, seed=1) + 0.5 * z
    values, vectors = torch.linalg.eigh(target.target.covariance)
    stats = sk.GaussianStats(target.target.mean, vectors.T.flip(0), values.flip(0))
    noise = Noise(SampleNoise(sample_seeds(0, n), (4,), torch.float64))
    out = lm_correct(target, x, level, noise, stats, "gaussian", 3, 0.1)
    assert frechet_distance(*moments(out), target.target.mean, covariance) < 0.03


@pytest.mark.parametrize("s", [0.3, 0.1])
def test_one_step_in_the_gaussian_metric_beats_eight_isotropic_ones(s):
    model, n = mixture(), 2000
    target, level = model.target, model.schedule.at(s)
    z = torch.randn(n, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    start = target.mean + 0.8 * (target.sample(n, seed=1) + s * z - target.mean)
    covariance = target.covariance + s * s * torch.eye(64, dtype=torch.float64)

    def best(step):
        def noise():
            return Noise(SampleNoise(sample_seeds(5, n), (64,), torch.float64))

        ends = [step(snr, noise()) for snr in (0.2, 0.3, 0.4, 0.5, 0.7)]
        return min(frechet_distance(*moments(x), target.mean, covariance) for x in ends)

    isotropic = best(lambda snr, noise: correct(model, start, level, noise, "langevin", 8, snr))
    metric = best(lambda snr, noise: lm_correct(model, start, level, noise, "mixture", "gaussian", 1, snr))
    pooled = best(lambda snr, noise: lm_correct(model, start, level, noise, None, "secant", 1, snr, pooled=True))
    assert metric < isotropic and pooled < isotropic, (isotropic, metric, pooled)  # 1 and 2 evaluations against 8


def test_it_corrects_any_predictor():
    model = mixture()
    for corrector, nfe in (("metric=gaussian,stats=mixture", 12), ("probes=1", 18), ("probes=1,pooled=true", 18)):
        for predictor in ("ancestral", "dpmpp-2m"):
            options = {"predictor": predictor, "corrector": f"lm-langevin:{corrector}"}
            result = sk.sample(model, "pc", steps=6, num_samples=8, **options)
            assert torch.isfinite(result.x).all() and result.nfe == nfe
    with pytest.raises(OptionError, match="no corrector"):
        sk.sample(model, "pc", steps=4, num_samples=2, corrector="heun")
    for options, kind, words in (
        ({"metric": "gaussian"}, OptionError, "stats="),
        ({"metric": "gaussian", "stats": "mnist"}, StatsError, "shape"),
        ({"metric": "gaussian", "stats": "mixture", "pooled": True}, OptionError, "secant"),
        ({"snr": 0.0}, OptionError, "snr"),
    ):
        with pytest.raises(kind, match=words):
            sk.sample(model, "lm-langevin", steps=4, num_samples=2, **options)
