"""DPM-Solver-v3 and its statistics: special cases, exactness on Gaussians, measurement, files, the command, bad input."""

from __future__ import annotations

import json
import math
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad

import solverkit as sk
from solverkit.ems.closed import OfGaussian
from solverkit.errors import LoadError, OptionError, StatsError

EDM = sk.EDM()
EVEN = sk.make_grid("log-snr", EDM, 16)
VARIANCES = torch.logspace(0, -3, 8, dtype=torch.float64)
MEAN = torch.linspace(-1, 1, 8, dtype=torch.float64)


def diagonal(schedule=EDM):
    basis = torch.eye(8, dtype=torch.float64)[None]
    target = sk.problems.GaussianMixture(torch.ones(1), MEAN[None], basis, VARIANCES[None])
    return sk.problems.ExactDenoiser(target, schedule)


def noises(n=8, dim=64, scale=80.0):
    return scale * torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def measured():
    return sk.ModelStats.measured(diagonal(), samples=64, nodes=60)


@pytest.mark.parametrize(
    ("options", "other"),
    [
        ("order=1,corrector=none", "euler"),
        ("order=2,corrector=none", "unipc:order=2,variant=vary,corrector=false"),
        ("order=3,corrector=none", "unipc:order=3,variant=vary,corrector=false"),
        ("order=2", "unipc:order=2,variant=vary"),
        ("order=3", "unipc:order=3,variant=vary"),
    ],
)
def test_with_l_1_it_is_dpm_solver_plus_plus(options, other):
    """In its exact form: the unrounded weights of UniPC's varying coefficients, data prediction."""
    model, run = sk.problems.mixture(), {"x": noises(), "grid": EVEN, "dtype": torch.float64}
    ours = sk.sample(model, f"dpm-solver-v3:stats=data,{options}", **run).x
    assert float((ours - sk.sample(model, other, **run).x).abs().max()) < 1e-12


@pytest.mark.parametrize("order", [1, 2, 3])
def test_with_s_minus_1_it_is_dpm_solver(order):
    """x_t = x_s - sum_i eps_i int e^-lam ell_i dlam, ell_i the Lagrange polynomials of past noise predictions."""
    model, grid = sk.problems.mixture(), EVEN
    x, history = noises(), []
    for i, (s, t) in enumerate(pairwise(grid)):
        eps = (x - model(x, s)) / float(s)
        history = [(s.lam, eps), *history[: order - 1]]
        if t == 0:
            x = x - float(s) * eps
            continue
        used = history[: min(order, i + 1, len(grid) - 1 - i)]
        lams = [lam for lam, _ in used]
        for lam, past in used:
            others = [other for other in lams if other != lam]

            def weighed(u, lam=lam, others=others):
                return math.exp(-u) * math.prod((u - o) / (lam - o) for o in others)

            x = x - quad(weighed, s.lam, t.lam, epsabs=0, epsrel=1e-13)[0] * past
    options = {"stats": "noise", "order": order, "corrector": "none"}
    ours = sk.sample(model, "dpm-solver-v3", x=noises(), grid=grid, dtype=torch.float64, **options).x
    assert float((ours - x).abs().max()) < 1e-12 * 80


@pytest.mark.parametrize("schedule", [EDM, sk.Flow()])
def test_one_step_is_exact_on_a_diagonal_gaussian(schedule):
    model = diagonal(schedule)
    ends = [schedule.at(r if schedule is EDM else r / (1 + r)) for r in (10.0, 0.02)]
    x = ends[0].alpha * MEAN + ends[0] * noises(4, 8, 1.0)
    grid = sk.Grid(tuple(ends), schedule)
    run = {"x": x * ends[0].scale, "grid": grid, "dtype": torch.float64, "stats": OfGaussian(VARIANCES, MEAN)}
    for order in (1, 3):
        ours = sk.sample(model, "dpm-solver-v3", order=order, **run).x / ends[1].scale
        assert float((ours - model.transport(x, *ends)).abs().max()) < 1e-12


def test_l_without_b_is_worse_than_dpm_solver_plus_plus():
    model, x = diagonal(), MEAN + noises(64, 8, 10.0)
    grid, exact = sk.Grid((EDM.at(10.0), EDM.at(0.02)), EDM), model.transport(x, 10.0, 0.02)
    run = {"x": x, "grid": grid, "dtype": torch.float64, "order": 1, "corrector": "none"}

    def error(stats):
        return float((sk.sample(model, "dpm-solver-v3", stats=stats, **run).x - exact).square().mean().sqrt())

    assert error(OfGaussian(VARIANCES, 0 * MEAN)) > 2 * error("data") > 1000 * error(OfGaussian(VARIANCES, MEAN))


def test_measured_statistics_are_the_closed_form(measured):
    l, s, b = OfGaussian(VARIANCES, MEAN).at(measured.lams)  # noqa: E741
    assert float((measured.l - l).abs().max()) < 1e-6
    assert float((measured.s - s).abs().max()) < 1e-6  # 0 / 0 without the ridge
    inner = slice(2, -2)  # one-sided differences at the ends
    assert float((measured.b - b)[inner].abs().max()) < 0.02
    assert measured.provenance["evaluations"] > 0 and measured.provenance["fingerprint"]


def test_measured_statistics_help_on_the_mixture():
    model = sk.problems.mixture(dim=6, modes=3)
    stats = sk.ModelStats.measured(model, samples=64, nodes=60)
    start = sk.make_grid("flow", EDM, 6)
    x = noises(64, 6)
    converged = sk.sample(model, "rk4", x=x, grid=sk.make_grid("karras", EDM, 200), dtype=torch.float64).x

    def error(sampler, **options):
        run = sk.sample(model, sampler, x=x, grid=start, dtype=torch.float64, **options)
        return float((run.x - converged).square().mean().sqrt())

    assert error("dpm-solver-v3", stats=stats) < error("dpmpp-2m")


def test_files_keep_what_was_measured(measured, tmp_path):
    path = measured.save(tmp_path)
    assert path.name == "model_statistics.safetensors"
    again = sk.ModelStats.load(tmp_path)
    assert again is sk.ModelStats.load(path)  # plans that are traced again share it
    assert torch.allclose(again.l, measured.l, atol=1e-6) and dict(again.provenance) == dict(measured.provenance)
    assert repr(again) == "ModelStats(shape=(8,), 64 levels, l 7.09e-06..1)"
    assert torch.equal(pickle.loads(pickle.dumps(again)).b, again.b)
    run = sk.sample(diagonal(), "dpm-solver-v3", nfe=5, num_samples=2, stats=str(path))
    assert run.nfe == 5
    with pytest.warns(UserWarning, match="another network"):
        sk.sample(diagonal(sk.VE()), "dpm-solver-v3", nfe=5, num_samples=2, stats=str(path))


def test_a_plan_with_statistics_is_the_function(measured):
    plan = sk.trace("dpm-solver-v3", EVEN, stats=measured)
    model, x = diagonal(), noises(3, 8)
    pulled = sk.sample(model, "dpm-solver-v3", x=x, grid=EVEN, dtype=torch.float64, stats=measured).x
    y, state = sk.begin(pickle.loads(pickle.dumps(plan)), x)
    for level in plan.levels:
        y, state = sk.advance(plan, state, y, model(y, level))
    assert plan.nfe == 16 and float((y - pulled).abs().max()) < 1e-10


def test_without_a_gradient_it_measures_by_differences():
    exact = diagonal()

    def net(x, sigma):
        with torch.no_grad():
            return exact(x.double(), float(sigma[0])).float()

    blind = sk.wrap(net, "denoised", EDM, shape=(8,))
    found = sk.ModelStats.measured(blind, samples=8, nodes=16, evaluations=32)
    l, _, _ = OfGaussian(VARIANCES, MEAN).at(found.lams)  # noqa: E741
    assert found.provenance["products"] == 0 and float((found.l - l).abs().max()) < 0.05


def test_the_command_measures_and_saves(cli, tmp_path):
    arguments = ("stats", "gaussian", "--ems", "--trajectories", "8", "--nodes", "16")
    code, out, err = cli(*arguments, "--out", "made", "--json")
    told = json.loads(out)
    assert code == 0 and told["model"] == "gaussian" and told["fingerprint"], err
    assert sk.ModelStats.load(tmp_path / "made").shape == (8,)
    code, out, _ = cli(*arguments, "--out", "made.safetensors")
    assert code == 0 and "mean l" in out
    code, _, err = cli("sample", "gaussian", "-s", "dpm-solver-v3:stats=made", "-n", "5", "-o", "x.safetensors")
    assert code == 0, err


@pytest.mark.parametrize("more", [("--data", "x.npy"), ("--source", "samples"), ("--key", "x")])
def test_the_command_refuses_data(cli, tmp_path, more):
    np.save(tmp_path / "x.npy", np.zeros((4, 8)))
    code, _, err = cli("stats", "gaussian", "--ems", "--out", "made", *more)
    assert code == 2 and "--ems" in err


def test_bad_statistics_are_refused(measured, tmp_path):
    lams, l = measured.lams, measured.l  # noqa: E741
    with pytest.raises(StatsError, match="rise"):
        sk.ModelStats(lams.flip(0), l, l, l)
    with pytest.raises(StatsError, match="lams"):
        sk.ModelStats(lams, l[1:], l, l)
    with pytest.raises(StatsError, match="NaN"):
        sk.ModelStats(lams, l, l * math.nan, l)
    with pytest.raises(StatsError, match="left out"):
        measured.without("l")
    model = sk.problems.gaussian(4)
    with pytest.raises(StatsError, match=r"\(8,\), and the model makes \(4,\)"):
        sk.sample(model, "dpm-solver-v3", nfe=5, num_samples=2, stats=measured)
    with pytest.raises(StatsError, match="--ems"):
        sk.sample(model, "dpm-solver-v3", nfe=5, num_samples=2)
    with pytest.raises(OptionError, match="order"):
        sk.sample(model, "dpm-solver-v3", nfe=5, num_samples=2, stats="data", order=4)
    with pytest.raises(LoadError, match="model statistics"):
        sk.sample(model, "dpm-solver-v3", nfe=5, num_samples=2, stats="absent.safetensors")
    sk.GaussianStats.isotropic().save(tmp_path / "g.safetensors")
    with pytest.raises(StatsError, match="holds no model statistics"):
        sk.ModelStats.load(tmp_path / "g.safetensors")
    with pytest.raises(OptionError, match="samples"):
        sk.ModelStats.measured(model, samples=2)
    with pytest.raises(OptionError, match="ridge"):
        sk.ModelStats.measured(model, ridge=0.0)
