"""Imputation: conditional networks, constraints and gradients against a Gaussian process whose conditional law is known."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

import solverkit as sk
from solverkit import constraints, guidance, inverse
from solverkit.errors import DenoiserError, OptionError, ProblemError
from solverkit.problems import ExactDenoiser, GaussianMixture, posterior, series
from solverkit.proofs.affine import affine_law
from solverkit.run.chain import chain_noise
from solverkit.run.noise import Noise, SampleNoise

RHO, C = 0.8, 1.3


def pair(schedule=None):
    """Two coordinates of unit variance and correlation 0.8."""
    half = math.sqrt(0.5)
    basis = torch.tensor([[half, half], [half, -half]], dtype=torch.float64)[None]
    values = torch.tensor([[1 + RHO, 1 - RHO]], dtype=torch.float64)
    return ExactDenoiser(GaussianMixture(torch.ones(1), torch.zeros(1, 2), basis, values), schedule or sk.EDM())


def first(value=C):
    return torch.tensor([[value, 0.0]], dtype=torch.float64), torch.tensor([[True, False]])


def recursion(noise, levels):
    """Mean and variance of the second coordinate under replacement of the first: ancestral steps x' = a x_2 + b x_1 + w z.

    x_1 = C + s z_1 is replaced at each level; q is the covariance of x_2 and z_1 at the level itself.
    """
    mean, variance, q = 0.0, float(levels[0]) ** 2, 0.0
    for s, t in pairwise(levels):
        inverse_ = torch.linalg.inv(torch.tensor([[1 + s * s, RHO], [RHO, 1 + s * s]], dtype=torch.float64))
        gain = torch.tensor([RHO, 1.0], dtype=torch.float64) @ inverse_  # E[x_2 of the data | x_1, x_2]
        r2, w = (t / s) ** 2, t * math.sqrt(1 - (t / s) ** 2)
        a, b = r2 + (1 - r2) * float(gain[1]), (1 - r2) * float(gain[0])
        mean, variance = a * mean + b * C, a * a * variance + 2 * a * b * s * q + b * b * s * s + w * w
        q = {"fresh": 0.0, "fixed": 1.0, "chain": t / s}[noise] * (a * q + b * s)
    return mean, variance


@pytest.mark.parametrize("noise", ["fresh", "fixed", "chain"])
@pytest.mark.parametrize("steps", [10, 50])
def test_the_bias_of_replacement_is_the_recursion(noise, steps):
    d, (known, mask) = pair(), first()
    grid = sk.make_grid("karras", d.schedule, steps)
    mean, covariance = affine_law("ddpm", d, grid, constraints.inpaint(known, mask, noise))
    wanted = recursion(noise, [float(s) for s in grid])
    assert float(mean[0]) == pytest.approx(C, abs=1e-12)
    tolerance = 1e-10 if noise != "chain" else 2e-3  # its draws are shared by levels that are nearer than 1.7e-3
    assert float(mean[1]) == pytest.approx(wanted[0], abs=1e-10)
    assert float(covariance[1, 1]) == pytest.approx(wanted[1], rel=tolerance)


def test_how_biased_each_method_is():
    """The conditional law of the second coordinate is N(1.04, 0.36)."""
    d, (known, mask) = pair(), first()
    exact = posterior(d, inverse.inpainting(mask[0]), known[:, :1], 0.0).target
    assert float(exact.mean[1]) == pytest.approx(RHO * C) and float(exact.covariance[1, 1]) == pytest.approx(1 - RHO**2)
    found = {}
    grid = sk.make_grid("karras", d.schedule, 50)
    for noise in ("fresh", "fixed", "chain"):
        found[noise] = affine_law("ddpm", d, grid, constraints.inpaint(known, mask, noise))
    known_part = constraints.inpaint(known, mask)
    many = {"jump_length": 2, "jumps": 10}
    found["repaint"] = affine_law("repaint", d, grid, known_part, **many)
    operator = inverse.inpainting(mask[0])
    for make in (inverse.pigdm, inverse.mmps):
        fine = sk.make_grid("karras", d.schedule, 100)
        found[make.__name__] = affine_law("heun", make(d, operator, known[:, :1], 0.0), fine)
    bias = {k: (float(m[1]) / (RHO * C) - 1, float(v[1, 1]) / (1 - RHO**2) - 1) for k, (m, v) in found.items()}
    print(bias)
    # a start of mean 0 at s = 80, where the posterior's is 1.04: the flow carries 0.6 / 80 of it to the end
    assert bias["mmps"][0] == pytest.approx(-math.sqrt(1 - RHO**2) / 80, rel=0.02) and abs(bias["mmps"][1]) < 5e-3
    assert bias["fresh"][0] < -0.3 and bias["fixed"][0] == pytest.approx(bias["fresh"][0]) == bias["chain"][0]
    assert abs(bias["repaint"][0]) < 0.5 * abs(bias["fresh"][0])
    assert abs(bias["pigdm"][0]) > 0.01 or abs(bias["pigdm"][1]) > 0.01


def test_the_affine_law_is_what_samples_have():
    d, (known, mask) = pair(sk.VP()), first()
    constraint = constraints.inpaint(known, mask, "chain")
    grid = sk.make_grid("trailing", d.schedule, 6)
    mean, covariance = affine_law("ddpm", d, grid, constraint)
    x = sk.sample(d, "ddpm", grid=grid, shape=(1000, 2), dtype=torch.float64, constrain=constraint).x
    size = float(covariance[1, 1]) ** 0.5
    assert abs(float(x[:, 1].mean() - mean[1])) < 4 * size / math.sqrt(1000)
    assert abs(float(x[:, 1].var() / covariance[1, 1]) - 1) < 4 * math.sqrt(2 / 1000)
    free = affine_law("heun", d, grid)
    again = sk.sample(d, "heun", grid=grid, shape=(4000, 2), dtype=torch.float64).x
    assert abs(float(again[:, 1].var() / free[1][1, 1]) - 1) < 4 * math.sqrt(2 / 4000)


def test_noise_of_a_chain():
    """Unit variance, correlation t / s, whatever was asked before; the ends are finite."""
    n = 1500
    draws = SampleNoise(list(range(n)), (2,), torch.float64)
    noise, schedule = Noise(lambda ordinal, s, t: draws(ordinal, s, t)), sk.Flow()
    levels = {ratio: schedule.level(ratio) for ratio in (5.0, 2.0, 0.3, math.inf, 0.0)}
    z = {ratio: chain_noise(noise, level) for ratio, level in levels.items()}
    for ratio in (5.0, 2.0, 0.3):
        assert float(z[ratio].var()) == pytest.approx(1, abs=5 / math.sqrt(n))
    for a, b in ((5.0, 2.0), (2.0, 0.3), (5.0, 0.3)):
        assert float((z[a] * z[b]).mean()) == pytest.approx(b / a, abs=4 / math.sqrt(2 * n))
    torch.testing.assert_close(chain_noise(noise, levels[2.0]), z[2.0])


def test_the_series_is_a_process():
    target = series(3, 10).target
    covariance = target.covariance.reshape(3, 10, 3, 10)
    torch.testing.assert_close(covariance[0, :, 0].diagonal(), torch.ones(10, dtype=torch.float64))
    torch.testing.assert_close(covariance[0, :, 1], 0.6 * covariance[0, :, 0])
    assert float(torch.linalg.eigvalsh(target.covariance).min()) > 0.01
    assert sk.load("series").shape == (4, 24)
    with pytest.raises(ProblemError, match="length"):
        series(2, 0)


def exact_network(target, seen=None):
    """A conditional network that is the exact denoiser of the missing part, for one mask."""

    def net(x, sigma, observed, mask):
        if seen is not None:
            seen.update(x=x, observed=observed, mask=mask)
        out, m = torch.empty_like(x), mask[0].bool()
        for row in observed.unique(dim=0):
            own = posterior(target, inverse.inpainting(m), row[m][None], 0.0).target
            rows = (observed == row).flatten(1).all(1)
            out[rows] = own.denoised(torch.where(m, row, x[rows]), 1.0, float(sigma[0]))
        return out

    return sk.wrap(net, "denoised", sk.EDM(), shape=target.shape)


def holes(n=2, seed=0):
    target = series(2, 8)
    truth = target.target.sample(n, seed=seed)
    mask = torch.zeros(1, 2, 8, dtype=torch.bool)
    mask[..., :5] = True
    return target, truth, mask


def test_a_conditional_network_is_told_and_not_shown():
    target, truth, mask = holes()
    seen = {}
    d = guidance.given(exact_network(target, seen), truth, mask.expand_as(truth))
    x = torch.randn(2, 2, 8, dtype=torch.float64)
    answer = d(x, 2.0)
    assert float(seen["x"][:, :, :5].abs().max()) == 0 and float(seen["observed"][:, :, 5:].abs().max()) == 0
    torch.testing.assert_close(seen["x"][:, :, 5:], x[:, :, 5:])
    torch.testing.assert_close(answer[:, :, :5], truth[:, :, :5])
    x[:, :, :5] = 1e6
    torch.testing.assert_close(d(x, 2.0), answer)
    torch.testing.assert_close(d.rows(1, 2, 2)(x[1:], 2.0), answer[1:])


def test_an_exact_conditional_network_has_the_conditional_law():
    target, truth, mask = holes(1)
    made = sk.impute(exact_network(target), truth, mask, samples=300, sampler="heun", steps=15, dtype=torch.float64)
    exact = posterior(target, inverse.inpainting(mask[0]), truth[:, mask[0]], 0.0).target
    size = exact.covariance.diagonal().reshape(2, 8).sqrt()[:, 5:]
    off = (made.samples.mean(1)[0, :, 5:] - exact.mean.reshape(2, 8)[:, 5:]) / size
    assert float(off.abs().max()) < 4 / math.sqrt(300)
    assert float((made.samples.var(1)[0, :, 5:] / size**2 - 1).abs().max()) < 5 * math.sqrt(2 / 300)
    torch.testing.assert_close(made.samples[:, :, :, :5], truth[:, None, :, :5].expand(1, 300, 2, 5))


METHODS = ("replacement", "chain", "repaint", "pigdm", "mmps")


@pytest.mark.parametrize("method", METHODS)
def test_series_do_not_depend_on_each_other(method):
    """Masks of their own; the first alone, other holes' contents, and batches make no difference."""
    target, truth, _ = holes(3)
    mask = torch.rand(3, 2, 8, generator=torch.Generator().manual_seed(1)) < 0.5
    same = {"samples": 3, "method": method, "steps": 4, "dtype": torch.float64, "seed": 5}
    if method == "repaint":
        same |= {"jump_length": 2, "jumps": 2}
    whole = sk.impute(target, truth.where(mask, torch.nan), mask, **same)
    assert whole.samples.shape == (3, 3, 2, 8) and bool(torch.isfinite(whole.samples).all())
    kept = mask[:, None].expand(3, 3, 2, 8)
    torch.testing.assert_close(whole.samples[kept], truth[:, None].expand(3, 3, 2, 8)[kept])
    alone = sk.impute(target, truth[:1], mask[:1], **same)
    torch.testing.assert_close(alone.samples, whole.samples[:1], atol=1e-9, rtol=1e-9)
    parts = sk.impute(target, truth, mask, batch_size=2, **same)
    torch.testing.assert_close(parts.samples, whole.samples, atol=1e-9, rtol=1e-9)
    assert (whole.products > 0) == (method in ("pigdm", "mmps")) and parts.nfe == whole.nfe


def test_a_shared_mask_is_one_run():
    target, truth, mask = holes(3)
    shared = sk.impute(target, truth, mask, samples=2, method="chain", steps=4, dtype=torch.float64)
    alone = sk.impute(target, truth[:1], mask, samples=2, method="chain", steps=4, dtype=torch.float64)
    torch.testing.assert_close(shared.samples[:1], alone.samples)
    nothing = sk.impute(target, truth, torch.zeros_like(mask), samples=2, method="mmps", steps=4)
    assert nothing.products == 0


def test_scores():
    """CRPS of N(0, 1) at 0 is 0.2337; the fair estimate has no bias; a perfect one has no loss."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 5, 1, 1, dtype=torch.float64, generator=generator)
    made = sk.Imputation(x, torch.zeros(2000, 1, 1, dtype=torch.bool), 1.0, 0)
    truth = torch.zeros(2000, 1, 1, dtype=torch.float64)
    exact = math.sqrt(2 / math.pi) - 1 / math.sqrt(math.pi)
    assert made.crps(truth) == pytest.approx(exact, abs=0.015)
    pairs = (x[:, :, None] - x[:, None]).abs().sum((1, 2)).mean() / 20
    assert made.crps(truth) == pytest.approx(float(x.abs().mean() - pairs / 2))
    certain = sk.Imputation(torch.ones(1, 3, 2), torch.tensor([[True, False]]), 1.0, 0)
    assert certain.crps(torch.ones(1, 2)) == certain.mae(torch.ones(1, 2)) == certain.quantile_loss(torch.ones(1, 2)) == 0
    assert certain.mae(torch.zeros(1, 2)) == 1 and certain.quantile_loss(2 * torch.ones(1, 2)) == pytest.approx(0.5)
    torch.testing.assert_close(made.quantiles([0.5])[0], made.median)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"mask": torch.ones(1, 2, 8)}, OptionError, "boolean.*float32"),
        ({"mask": torch.ones(1, 8, dtype=torch.bool)}, OptionError, r"\(2, 2, 8\)"),
        ({"observed": torch.zeros(2, 8)}, OptionError, r"data of shape \(8,\)"),
        ({"observed": torch.zeros(2, 2, 8, dtype=torch.long)}, OptionError, "floating-point"),
        ({"observed": torch.full((2, 2, 8), torch.nan)}, OptionError, "NaN.*mask to false"),
        ({"samples": 0}, OptionError, "samples"),
        ({"method": "best"}, OptionError, "'repaint'"),
        ({"method": "conditional"}, DenoiserError, "sk.wrap.*'mmps'"),
        ({"method": "chain", "noise_std": 0.1}, OptionError, "noise_std is for"),
        ({"noise_std": -0.1}, OptionError, "noise_std must be"),
        ({"method": "repaint", "sampler": "ddpm"}, OptionError, "the sampler 'repaint'"),
        ({"method": "chain", "sampler": "repaint:jumps=2"}, OptionError, "the sampler 'repaint'"),
    ],
)  # fmt: skip
def test_what_is_refused(change, error, said):
    target, truth, mask = holes()
    given = {"observed": truth, "mask": mask, "samples": 2, "method": "mmps", "steps": 3, **change}
    with pytest.raises(error, match=said):
        sk.impute(target, given.pop("observed"), given.pop("mask"), **given)


def test_what_scores_refuse():
    made = sk.Imputation(torch.ones(1, 1, 2), torch.tensor([[True, False]]), 1.0, 0)
    for call, said in (
        (lambda: made.crps(torch.ones(1, 2)), "two"), (lambda: made.mae(torch.ones(2)), "shape"),
        (lambda: made.quantile(2.0), "0 to 1"),
        (lambda: made.mae(torch.ones(1, 2), torch.zeros(1, 2, dtype=torch.bool)), "nothing to score"),
    ):  # fmt: skip
        with pytest.raises(OptionError, match=said):
            call()
