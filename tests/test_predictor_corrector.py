"""The Score-SDE family: the released update, the law that PC keeps, and what it is for."""

from __future__ import annotations

import math

import pytest
import torch

import solverkit as sk
from solverkit.errors import OptionError
from solverkit.problems import gaussian, mixture
from solverkit.proofs.driving import in_one_run
from solverkit.proofs.growth import diagonal

N = 40  # beta_max / N must stay below 1


class Reference:
    """The released loop, written from its formulas: tables of N levels, dt = 1/N, batch norms, the last mean returned."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.low, self.high = (0.01, 50.0) if kind == "ve" else (0.1, 20.0)
        self.epsilon = 1e-3
        self.sigmas = torch.exp(torch.linspace(math.log(0.01), math.log(50.0), N, dtype=torch.float64))
        self.betas = torch.linspace(0.1 / N, 20.0 / N, N, dtype=torch.float64)

    def marginal(self, t):
        if self.kind == "ve":
            return 1.0, self.low * (self.high / self.low) ** t
        log_mean = -0.25 * t * t * (self.high - self.low) - 0.5 * t * self.low
        alpha = math.exp(log_mean)
        return alpha, 1 - alpha**2 if self.kind == "subvp" else math.sqrt(1 - alpha**2)

    def sde(self, t):
        if self.kind == "ve":
            return 0.0, self.marginal(t)[1] * math.sqrt(2 * math.log(self.high / self.low))
        beta = self.low + t * (self.high - self.low)
        if self.kind == "vp":
            return -0.5 * beta, math.sqrt(beta)
        return -0.5 * beta, math.sqrt(beta * (1 - math.exp(-2 * self.low * t - (self.high - self.low) * t * t)))

    def discretize(self, t):
        f, g = self.sde(t)
        if self.kind == "subvp":
            return f / N, g / math.sqrt(N)
        i = int(t * (N - 1) + 1e-9)
        if self.kind == "vp":
            return math.sqrt(1 - self.betas[i]) - 1, math.sqrt(self.betas[i])
        before = 0.0 if i == 0 else float(self.sigmas[i - 1])
        return 0.0, math.sqrt(float(self.sigmas[i]) ** 2 - before**2)

    def predict(self, name, score, x, t, z):
        if name == "none":
            return x, x
        i = int(t * (N - 1) + 1e-9)
        if name == "euler-maruyama":
            f, g = self.sde(t)
            mean = x - (f * x - g**2 * score(x, t)) / N
            return mean + g * math.sqrt(1 / N) * z, mean
        if name == "ancestral" and self.kind == "ve":
            high, low = float(self.sigmas[i]) ** 2, 0.0 if i == 0 else float(self.sigmas[i - 1]) ** 2
            mean = x + (high - low) * score(x, t)
            return mean + math.sqrt(low * (high - low) / high) * z, mean
        if name == "ancestral":
            beta = float(self.betas[i])
            mean = (x + beta * score(x, t)) / math.sqrt(1 - beta)
            return mean + math.sqrt(beta) * z, mean
        f, g = self.discretize(t)
        if name == "probability-flow":
            mean = x - f * x + 0.5 * g**2 * score(x, t)
            return mean, mean
        mean = x - f * x + g**2 * score(x, t)
        return mean + g * z, mean

    def correct(self, name, score, x, t, z, snr):
        alpha = 1.0 if self.kind == "ve" else 1 - float(self.betas[int(t * (N - 1) + 1e-9)])
        if name == "langevin":
            s = score(x, t)
            ratio = z.flatten(1).norm(dim=1).mean() / s.flatten(1).norm(dim=1).mean()
            step = 2 * alpha * (snr * float(ratio)) ** 2
        else:
            s, step = score(x, t), 2 * alpha * (snr * self.marginal(t)[1]) ** 2
        mean = x + step * s
        return mean + math.sqrt(2 * step) * z, mean

    def run(self, score, x, predictor, corrector, n_steps, snr, draws):
        draws, mean = iter(draws), x
        for i in range(N):
            t = 1 - i * (1 - self.epsilon) / (N - 1)
            for _ in range(n_steps if corrector != "none" else 0):
                x, mean = self.correct(corrector, score, x, t, next(draws), snr)
            if predictor != "none":
                z = torch.zeros_like(x) if predictor == "probability-flow" else next(draws)
                x, mean = self.predict(predictor, score, x, t, z)
        return mean


SCHEDULES = {"ve": sk.VE(0.01, 50.0), "vp": sk.VP(continuous=True), "subvp": sk.SubVP(0.1, 20.0)}


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("predictor", ["reverse-diffusion", "euler-maruyama", "ancestral", "probability-flow", "none"])
@pytest.mark.parametrize("corrector", ["langevin", "annealed-langevin", "none"])
def test_published_mode_is_the_released_update(kind, predictor, corrector):
    if (predictor, corrector) == ("none", "none"):
        with pytest.raises(sk.errors.TraceError):
            grid = sk.make_grid("score-sde", SCHEDULES[kind], N)
            sk.trace("pc", grid, predictor="none", corrector="none", released=True)
        return
    schedule, reference = SCHEDULES[kind], Reference(kind)
    target = mixture(dim=6, modes=3, schedule=schedule)
    grid = sk.make_grid("score-sde", schedule, N)
    options = {"predictor": predictor, "corrector": corrector, "n_steps": 2, "snr": 0.16, "released": True}
    if kind == "subvp" and predictor == "ancestral":
        with pytest.raises(OptionError, match="sub-VP"):
            sk.trace("pc", grid, **options)
        return

    def score(x, t):  # in the model's own coordinates
        alpha, sigma = reference.marginal(t)
        level = schedule.level(sigma / alpha)
        return (alpha * target(x / level.scale, level) - x) / sigma**2

    x = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * reference.marginal(1.0)[1]
    plan = sk.trace("pc", grid, **options)
    draws = [torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(5 * N)]
    expected = reference.run(score, x, predictor, corrector, 2, 0.16, draws)
    left = iter(draws)
    y, state = sk.begin(plan, x / grid[0].scale, lambda i, s, t: next(left))
    for level in plan.levels:
        y, state = sk.advance(plan, state, y, target(y, level), lambda i, s, t: next(left))
    y = y * grid[-1].scale
    assert float((y - expected).abs().max()) <= 1e-6 * float(expected.abs().max())


def test_published_mode_refuses_processes_without_tables():
    with pytest.raises(OptionError, match="VE"):
        sk.sample(gaussian(schedule=sk.Flow()), "pc", steps=5, num_samples=2, released=True)
    few = gaussian(schedule=sk.VP(continuous=True))
    for predictor in ("reverse-diffusion", "ancestral"):
        with pytest.raises(OptionError, match="more than 20 steps"):
            sk.sample(few, "pc", steps=20, num_samples=2, predictor=predictor, corrector="none", released=True)
        sk.sample(few, "pc", steps=21, num_samples=2, predictor=predictor, corrector="none", released=True)


def test_recipes_and_special_cases():
    target = mixture(dim=4, modes=3)
    same = {"num_samples": 3, "steps": 6, "dtype": torch.float64}
    assert torch.equal(sk.sample(target, "pc-ve", **same).x, sk.sample(target, "pc", **same).x)
    for quick, full in (("ddpm", {"flow_share": 0.0}), ("ddim", {"flow_share": 1.0})):
        torch.testing.assert_close(sk.sample(target, quick, **same).x, sk.sample(target, "reverse-sde", **same, **full).x)
    a = sk.sample(target, "pc", predictor="ancestral", corrector="none", **same).x
    torch.testing.assert_close(a, sk.sample(target, "ddpm", **same).x)  # the ancestral step of VE is the exact posterior
    b = sk.sample(target, "pc", predictor="dpmpp-2m", corrector="none", **same).x
    torch.testing.assert_close(b, sk.sample(target, "dpmpp-2m", **same).x)


def test_evaluations_are_counted():
    target = mixture(dim=4, modes=3)
    for options, each in (({}, 2), ({"n_steps": 3}, 4), ({"corrector": "none"}, 1), ({"predictor": "heun"}, 3)):
        result = sk.sample(target, "pc", steps=5, num_samples=2, **options)
        assert result.nfe == 5 * each - (1 if "predictor" in options else 0)


def test_norms_are_per_sample_unless_published_ones_are_asked_for():
    target = mixture(dim=8, modes=3)
    one = sk.sample(target, "pc", steps=5, num_samples=1, seed=[7], dtype=torch.float64).x
    many = sk.sample(target, "pc", steps=5, num_samples=2, seed=[7, 8], dtype=torch.float64).x
    torch.testing.assert_close(one[0], many[0], rtol=1e-10, atol=0)
    mixed = sk.sample(target, "pc", steps=5, num_samples=2, seed=[7, 8], dtype=torch.float64, batch_norms=True).x
    assert not torch.allclose(mixed[0], one[0])


@pytest.mark.parametrize("schedule", [sk.EDM(), sk.VP(continuous=True), sk.SubVP(), sk.VE(0.01, 30.0), sk.Flow()])
@pytest.mark.parametrize("flow_share", [0.0, 0.4, 1.0])
def test_reverse_sde_keeps_the_law_on_every_process(schedule, flow_share):
    target = diagonal(schedule)
    plan = sk.trace("reverse-sde", sk.make_grid("log-snr", schedule, 200), flow_share=flow_share)
    mean, spread = in_one_run([plan], target)  # exact, no Monte Carlo
    assert float((mean - target.target.means[0]).abs().max()) < 0.02
    assert float((spread / target.target.eigenvalues[0].sqrt() - 1).abs().max()) < 0.1


def test_langevin_keeps_the_law_of_a_level():
    """From exact samples of a noise level, many corrector steps at a small SNR stay there; a large one adds spread."""
    from solverkit_plugins.predictor_corrector.sampler import correct

    target = gaussian(dim=32, condition=10.0)
    level = target.schedule.level(0.5)
    generator = torch.Generator().manual_seed(0)
    clean = target.target.sample(2000, seed=1)
    x = clean + 0.5 * torch.randn(clean.shape, dtype=torch.float64, generator=generator)
    wanted = float(torch.trace(target.target.covariance)) + 32 * 0.25
    for snr, low, high in ((0.02, 0.97, 1.03), (0.3, 1.1, 2.0)):
        y = correct(
            target, x, level, lambda s, t: torch.randn(x.shape, dtype=torch.float64, generator=generator),
            "langevin", 60, snr,
        )  # fmt: skip
        assert low < float(y.var(0).sum()) / wanted < high


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_steps": 0}, "n_steps"),
        ({"snr": -1.0}, "snr"),
        ({"predictor": "eular"}, "euler"),
        ({"predictor": "unipc:ordr=2"}, "order"),
        ({"predictor": "dpm-solver-12"}, "pull-only"),
        ({"corrector": "langevan"}, "langevin"),
    ],
)
def test_what_pc_cannot_do(options, words):
    with pytest.raises(sk.errors.SolverKitError, match=words):
        sk.sample(mixture(dim=4, modes=2), "pc", steps=3, num_samples=2, **options)
