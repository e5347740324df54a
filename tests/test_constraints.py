"""Constraints: what is known stays known, what is drawn fits it, and what cannot be done is said."""

from __future__ import annotations

import math
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tiny_pipelines import PIPELINES

import solverkit as sk
from solverkit import constraints, guidance
from solverkit.errors import DenoiserError, OptionError
from solverkit.problems import gaussian, mixture
from solverkit.testing import option_sets

TRACEABLE = [name for name, card in sk.samplers().items() if card.traceable]
SMALL = {"ncsn": {"n_steps": 1}, "repaint": {"jump_length": 3, "jumps": 2}}
SMALL |= {name: option_sets(card)[0] for name, card in sk.samplers().items() if card.required and card.traceable}


@pytest.mark.parametrize("sampler", TRACEABLE)
@pytest.mark.parametrize("noise", ["fresh", "fixed"])
def test_known_values_are_in_the_result(sampler, noise):
    target = mixture(dim=6, modes=3, schedule=sk.Flow())
    known = target.target.sample(4, seed=1).float()
    mask = torch.tensor([1, 0, 1, 0, 0, 1])
    constraint = constraints.inpaint(known, mask, noise)
    result = sk.sample(target, sampler, steps=6, shape=(4, 6), constrain=constraint, **SMALL.get(sampler, {}))
    torch.testing.assert_close(result.x[:, mask.bool()], known[:, mask.bool()])
    assert torch.isfinite(result.x).all()
    free = sk.sample(target, sampler, steps=6, shape=(4, 6), **SMALL.get(sampler, {}))
    assert not torch.allclose(result.x[:, ~mask.bool()], free.x[:, ~mask.bool()])


def conditional(target, mask, known):
    """Mean and covariance of the unknown part of a Gaussian, given the known part."""
    mean, cov = target.target.mean, target.target.covariance
    k, u = mask.bool(), ~mask.bool()
    gain = cov[u][:, k] @ torch.linalg.inv(cov[k][:, k])
    return mean[u] + (known[:, k] - mean[k]) @ gain.T, cov[u][:, u] - gain @ cov[k][:, u]


def test_replacement_and_resampling_approach_the_conditional_law():
    target = gaussian(dim=4, condition=20.0, seed=3)
    known = target.target.sample(1, seed=5).expand(400, -1).contiguous()
    mask = torch.tensor([1, 1, 0, 0])
    wanted, _ = conditional(target, mask, known)
    errors = {}
    for name, sampler, options in (
        ("none", "ddpm", {"steps": 40}),
        ("replace", "ddpm", {"steps": 40, "constrain": constraints.inpaint(known, mask)}),
        ("repaint", "repaint", {"steps": 40, "jumps": 8, "jump_length": 4, "constrain": constraints.inpaint(known, mask)}),
    ):
        x = sk.sample(target, sampler, shape=known.shape, dtype=torch.float64, **options).x
        errors[name] = float((x[:, 2:].mean(0) - wanted[0]).norm())
    assert errors["repaint"] < 0.5 * errors["none"] and errors["repaint"] < 0.7 * errors["replace"], errors


def test_posterior_guidance_draws_from_the_posterior_of_a_gaussian():
    """Linear measurement with noise: the exact posterior mean is known."""
    target = gaussian(dim=4, condition=10.0, seed=3)
    matrix = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    truth = target.target.sample(1, seed=5)
    values, std = truth @ matrix.T, 0.1
    cov, mean = target.target.covariance, target.target.mean
    gain = cov @ matrix.T @ torch.linalg.inv(matrix @ cov @ matrix.T + std**2 * torch.eye(2, dtype=torch.float64))
    wanted = mean + (values[0] - mean @ matrix.T) @ gain.T
    guided = guidance.posterior(target, lambda x: x @ matrix.T, values, noise_std=std)
    x = sk.sample(guided, "ddpm", steps=100, shape=(400, 4), dtype=torch.float64).x
    free = sk.sample(target, "ddpm", steps=100, shape=(400, 4), dtype=torch.float64).x
    missed = float((x.mean(0) - wanted).norm() / (mean - wanted).norm())
    assert missed < 0.35
    off = float((x @ matrix.T - values).norm(dim=1).mean() / (free @ matrix.T - values).norm(dim=1).mean())
    assert off < 0.3


def test_posterior_guidance_of_a_nonlinear_measurement():
    target = mixture(dim=6, modes=4)
    truth = target.target.sample(1, seed=2)
    guided = guidance.posterior(target, lambda x: x.abs(), truth.abs(), noise_std=0.05)
    x = sk.sample(guided, "euler-ancestral", steps=60, shape=(64, 6), dtype=torch.float64).x
    free = sk.sample(target, "euler-ancestral", steps=60, shape=(64, 6), dtype=torch.float64).x
    missed, before = ((y.abs() - truth.abs()).norm(dim=1).median() for y in (x, free))
    assert float(missed) < 0.5 * float(before)
    flow = guidance.posterior(mixture(dim=6, modes=4, schedule=sk.Flow()), lambda x: x.abs(), truth.abs())
    assert torch.isfinite(sk.sample(flow, "euler", steps=10, shape=(2, 6)).x).all()


def test_orthogonal_measurements_of_any_kind():
    target = mixture(dim=9, modes=3)
    rows = torch.linalg.qr(torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q.T
    values = target.target.sample(2, seed=1) @ rows.T
    known = constraints.observe(rows, values)
    x = sk.sample(target, "unipc", steps=8, shape=(2, 9), dtype=torch.float64, constrain=known).x
    torch.testing.assert_close(x @ rows.T, values)
    colour = sk.wrap(lambda x, t: 0.5 * x, "epsilon", sk.VP())
    grey = torch.rand(2, 1, 4, 4)
    y = sk.sample(colour, "ddim", steps=5, shape=(2, 3, 4, 4), constrain=constraints.colorize(grey)).x
    torch.testing.assert_close(y.mean(1, keepdim=True), grey)
    assert float(y.std(1).mean()) > 0.01
    both = constraints.together(constraints.colorize(grey), constraints.inpaint(torch.zeros(2, 3, 4, 4), torch.zeros(4, 4)))
    torch.testing.assert_close(sk.sample(colour, "ddim", steps=5, shape=(2, 3, 4, 4), constrain=both).x, y)


def test_a_fixed_noise_is_one_noise():
    seen = []
    constraint = constraints.inpaint(torch.zeros(1, 4), torch.ones(4), "fixed")

    def watched(x, level, draw):
        y = constraint(x, level, draw)
        seen.append(y / float(level))
        return y

    sk.sample(mixture(dim=4, modes=2), "euler", steps=4, shape=(1, 4), dtype=torch.float64, constrain=watched)
    assert all(torch.allclose(z, seen[0]) for z in seen)


@pytest.mark.parametrize("sampler", ["ddim", "heun", "pc"])
def test_a_constraint_in_a_pipeline(sampler):
    tiny = PIPELINES["sd"]()
    to_zero = {"set_alpha_to_one": True}  # else a DDIM run ends at the least trained noise
    tiny.pipe.scheduler = sk.SolverKitScheduler.from_config(tiny.pipe.scheduler.config, sampler=sampler, **to_zero)
    known, mask = 0.3 * torch.ones(1, 4, 8, 8), torch.zeros(8, 8)
    mask[:, :4] = 1
    callback = constraints.pipeline_callback(constraints.inpaint(known, mask))
    generator = torch.Generator().manual_seed(0)
    x = tiny.pipe(**tiny.inputs, num_inference_steps=5, generator=generator, callback_on_step_end=callback).images
    assert torch.allclose(x[..., :4], known[..., :4], atol=1e-5) and torch.isfinite(x).all()
    tiny = PIPELINES["sd"]()
    with pytest.raises(OptionError, match="SolverKitScheduler"):
        tiny.pipe(**tiny.inputs, num_inference_steps=2, callback_on_step_end=callback)


def no_gradient(x, t):
    return x.detach() * 0.5


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: constraints.inpaint(torch.zeros(1, 4), torch.ones(3)), OptionError, "broadcast"),
        (lambda: constraints.inpaint(torch.zeros(1, 4), torch.ones(2, 4)), OptionError, "broadcast"),
        (lambda: constraints.inpaint(torch.zeros(1, 4), torch.full((4,), 1.5)), OptionError, "0 .unknown. to 1"),
        (lambda: constraints.inpaint(torch.zeros(1, 4), torch.ones(4), "old"), OptionError, "fresh"),
        (lambda: constraints.observe(torch.ones(2, 4), torch.zeros(1, 2)), OptionError, "orthonormal"),
        (lambda: constraints.observe(torch.eye(4), torch.zeros(1, 2)), OptionError, "matrix"),
        (lambda: constraints.colorize(torch.zeros(1, 3, 4, 4)), OptionError, "grey"),
        (lambda: run(constraints.inpaint(torch.zeros(3, 4), torch.ones(4))), OptionError, "one a sample"),
        (lambda: run(constraints.observe(torch.eye(5), torch.zeros(1, 5))), OptionError, "5 elements"),
        (lambda: run(constraints.colorize(torch.zeros(1, 1, 4, 4))), OptionError, "three channels"),
        (lambda: guided(no_gradient, lambda x: x), DenoiserError, "no gradient"),
        (lambda: guided(lambda x, t: 0.5 * x, lambda x: x.detach()), DenoiserError, "no gradient"),
        (lambda: guided(lambda x, t: 0.5 * x, lambda x: x[:, :2]), OptionError, "shape"),
        (lambda: guidance.posterior(mixture(dim=4, modes=2), "x", torch.zeros(1, 4)), OptionError, "function"),
    ],
)
def test_what_cannot_be_constrained(build, error, words):
    with pytest.raises(error, match=words):
        build()


def run(constraint):
    return sk.sample(mixture(dim=4, modes=2), "euler", steps=3, shape=(2, 4), constrain=constraint)


def guided(net, measure):
    denoiser = guidance.posterior(sk.wrap(net, "epsilon", sk.VP()), measure, torch.zeros(1, 4))
    return sk.sample(denoiser, "euler", steps=3, shape=(2, 4))


def test_repaint_costs_what_it_says():
    plan = sk.trace("repaint", sk.make_grid("trailing", sk.VP(), 250))
    assert plan.nfe == 10 + 10 * 240 == 2410
    assert math.isclose(float(plan.levels[0]), sk.VP().ratio_max)


def test_a_soft_mask_blends_at_the_levels_own_variance():
    """x <- (1 - m) x + m alpha c + g s z: the noised blend of data, whose noise keeps the variance of the level."""
    n, level, m, c, x0 = 40000, sk.Flow().at(0.6), 0.3, 2.0, -1.0
    generator = torch.Generator().manual_seed(0)
    e, z = (torch.randn(n, 1, dtype=torch.float64, generator=generator) for _ in range(2))
    x = level.alpha * x0 + float(level) * e
    mask = torch.full((1, 1), m)
    fresh = constraints.inpaint(torch.full((1, 1), c), mask)
    edited = fresh(x, level, lambda s, t: z)
    blend = (1 - m) * x0 + m * c
    assert abs(float(edited.mean()) - level.alpha * blend) < 0.02
    assert abs(float(edited.std()) - float(level)) < 0.01

    class Carried:
        def fixed(self):
            return e  # the state carries the noise that is kept for the whole run

    kept = constraints.inpaint(torch.full((1, 1), c), mask, "fixed")(x, level, Carried())
    torch.testing.assert_close(kept, level.alpha * blend + float(level) * e, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(fresh.finish(torch.full((1, 1), x0)), torch.full((1, 1), blend))


def test_a_mask_of_zeros_and_ones_is_what_it_was():
    x, z, known = torch.randn(3, 6), torch.randn(3, 6), torch.randn(3, 6)
    mask, level = torch.tensor([1, 0, 1, 0, 0, 1]), sk.EDM().at(2.0)
    for given in (mask, mask.bool(), mask.double()):
        edited = constraints.inpaint(known, given)(x, level, lambda s, t: z)
        torch.testing.assert_close(edited, torch.where(mask.bool(), known + 2.0 * z, x))


def test_one_constraint_in_two_threads():
    """It keeps nothing of the batch that it saw last."""
    matrix = torch.linalg.qr(torch.randn(64, 4))[0].T
    known, level = constraints.observe(matrix, torch.zeros(1, 4)), sk.EDM().at(1.0)
    seen, interval = [], sys.getswitchinterval()

    def work(shape):
        x = torch.zeros(shape)
        for _ in range(400):
            seen.append(known(x, level, lambda s, t: x).shape == x.shape)

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(work, [(2, 64), (2, 8, 8)]))
    finally:
        sys.setswitchinterval(interval)
    assert len(seen) == 800 and all(seen)


def test_a_measurement_that_is_not_finite_is_not_orthonormal():
    with pytest.raises(OptionError, match="orthonormal"):
        constraints.observe(torch.full((1, 4), torch.nan), torch.zeros(1, 1))
    with pytest.raises(OptionError, match="0 .unknown. to 1"):
        constraints.inpaint(torch.zeros(1, 4), torch.full((4,), torch.nan))
