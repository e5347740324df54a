"""Figures of exact targets in closed form, planted faults by name, the command, and bad input."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import solverkit as sk
from solverkit.errors import DenoiserError, OptionError

FLOW = sk.Flow()


@pytest.fixture(scope="module")
def gaussian():
    target = sk.problems.gaussian()
    return target, sk.diagnose(target, nfe=(), num_samples=256)


@pytest.fixture(scope="module")
def mixture():
    return sk.problems.mixture(schedule=FLOW)


@pytest.fixture(scope="module")
def data(mixture):
    return mixture.target.sample(512, seed=9)


def velocity(exact):
    """A network u(x, t) = eps - x_0 that knows its target, told t."""

    def net(x, t):
        level = FLOW.at(min(max(float(t[0]), 1e-6), 1.0))
        return (x - exact(x, level)) / float(level)

    return net


def named(denoiser, data):
    return [f.name for f in sk.diagnose(denoiser, data, nfe=(), num_samples=32, levels=5).faults]


def test_a_gaussians_figures_are_its_closed_form(gaussian):
    target, found = gaussian
    variances, d = target.target.eigenvalues[0], 8
    for row in found.levels:
        s2 = row.ratio**2
        ssm = -float((s2 / (variances + s2)).sum()) / (2 * d)  # -E|score|^2 / 2 = -tr (S + s^2)^-1 / 2
        loss = float((variances * s2 / (variances + s2)).sum()) / d
        assert abs(row.ssm - ssm) < 4 * row.ssm_error + 1e-9
        assert abs(row.fd_ssm - row.ssm) < 1e-6  # exact for linear scores
        assert abs(row.loss - loss) < 4 * row.loss_error
        assert row.asymmetry < 1e-8
        assert row.nonfinite == 0
        assert row.lipschitz == pytest.approx(float((variances / (variances + s2)).max()), rel=0.02)
    assert found.faults == ()


def test_a_scaled_score_loses_what_theory_says():
    """J of N(0, V I) with its score scaled by 1 + e is -(1 - e^2) s^2 / (2 V) in units of d / s^2."""
    V, e = 1.0, 0.3

    def net(x, sigma):
        return x - (1 + e) * sigma[0] ** 2 * x / (V + sigma[0] ** 2)

    schedule = sk.EDM()
    draws = torch.randn(20000, 4, generator=torch.Generator().manual_seed(0))
    found = sk.diagnose(sk.wrap(net, "denoised", schedule, shape=(4,)), draws, nfe=(), num_samples=4096, levels=3)
    for row in found.levels:
        optimum = -(row.ratio**2) / (2 * (V + row.ratio**2))
        assert abs(row.ssm - optimum * (1 - e**2)) < 5 * row.ssm_error + 1e-6
        assert row.balance == pytest.approx(1 + e, rel=0.08)


def test_a_mixture_is_symmetric_and_balanced(mixture):
    found = sk.diagnose(mixture, nfe=(), num_samples=256, levels=6)
    finite = [row for row in found.levels if math.isfinite(row.ratio)]
    assert math.isinf(found.levels[0].ratio)  # where alpha = 0
    assert max(row.asymmetry for row in finite) < 1e-8
    assert all(abs(row.ssm - row.fd_ssm) < 0.02 for row in finite)
    assert all(abs(row.balance - 1) < 0.15 for row in finite)
    assert all(row.loss <= 1.1 * row.linear for row in finite)
    assert found.faults == ()


def test_a_good_network_has_no_fault(mixture, data):
    assert named(sk.wrap(velocity(mixture), "flow_prediction", FLOW, shape=(64,)), data) == []


@pytest.mark.parametrize("fault", ["time", "data_at", "prediction", "sign", "scale", "range", "range 255", "units"])
def test_a_planted_fault_is_named(mixture, data, fault):
    net, prediction, schedule, given = velocity(mixture), "flow_prediction", FLOW, data.float()
    own = net
    if fault == "time":
        net = lambda x, t: own(x, 1 - t)  # noqa: E731
    elif fault == "data_at":
        schedule = sk.Flow(data_at=1)
    elif fault == "prediction":
        prediction = "sample"
    elif fault == "sign":
        net = lambda x, t: -own(x, t)  # noqa: E731
    elif fault == "scale":
        net = lambda x, t: own(2.5 * x, t)  # noqa: E731
    elif fault == "range":
        given = (given + 1) / 2
    elif fault == "range 255":
        given = (given + 1) * 127.5
        given = given.clamp(0, 255)
    else:
        net = lambda x, t: own(x, 1000 * t)  # noqa: E731
    expected = {
        "time": "swapped time", "data_at": "swapped time", "prediction": "prediction type", "sign": "prediction type",
        "scale": "scaled input", "range": "data range", "range 255": "data range", "units": "time units",
    }  # fmt: skip
    found = sk.diagnose(sk.wrap(net, prediction, schedule, shape=(64,)), given, nfe=(), num_samples=32, levels=5)
    assert found.faults[0].name == expected[fault]
    said = {"scale": "times 0.4", "range": "2 x - 1", "range 255": "x / 127.5 - 1", "units": "times 0.001"}
    assert said.get(fault, "") in found.faults[0].said


def test_the_prediction_is_named_itself(mixture, data):
    wrong = sk.wrap(velocity(mixture), "epsilon", FLOW, shape=(64,))
    first = sk.diagnose(wrong, data, nfe=(), num_samples=32, levels=5).faults[0]
    assert first.name == "prediction type" and "'flow_prediction'" in first.said


@pytest.mark.parametrize("autograd", [True, False])
def test_a_rotating_field_is_named(mixture, data, autograd):
    own = velocity(mixture)
    turn = torch.triu(torch.ones(64, 64), 1)
    turn = turn - turn.T

    def net(x, t):
        with torch.set_grad_enabled(autograd and torch.is_grad_enabled()):
            return own(x, t) + x @ turn.to(x)

    found = sk.diagnose(sk.wrap(net, "flow_prediction", FLOW, shape=(64,)), data, nfe=(), num_samples=32, levels=5)
    assert "no gradient field" in [f.name for f in found.faults]
    assert "scaled input" not in [f.name for f in found.faults]  # another scale loses less, and is no explanation
    worst = max(found.levels[1:], key=lambda row: row.asymmetry)
    assert worst.asymmetry > 0.5
    assert math.isnan(worst.ssm) == (not autograd)


def test_a_network_that_breaks_at_an_end_is_told(mixture, data):
    own = velocity(mixture)

    def broken(x, t):
        return own(x, t) + (float("nan") if t[0] < 0.002 else 0.0)

    def wild(x, t):
        return own(x, t) * (1e6 if t[0] < 0.002 else 1.0)

    first = sk.diagnose(sk.wrap(broken, "flow_prediction", FLOW, shape=(64,)), data, nfe=(), num_samples=32, levels=5)
    assert "not finite" in [f.name for f in first.faults] and first.levels[-1].nonfinite == 64
    assert "blow-up" in named(sk.wrap(wild, "flow_prediction", FLOW, shape=(64,)), data)


def test_half_precision_guidance_and_seconds_are_measured():
    torch.manual_seed(0)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(4, 4)

        def forward(self, x, t, shift=0.0):
            return self.linear(x) + shift

    one = sk.wrap(Net(), "sample", FLOW, shape=(4,), shift=0.0)
    guided = sk.guidance.classifier_free(one.with_inputs(shift=1.0), one, 3.0)
    draws = torch.randn(100, 4)
    found = sk.diagnose(one, draws, nfe=(), num_samples=16, levels=3)
    assert all(0 < row.bfloat16 < 0.05 and row.float16 < row.bfloat16 for row in found.levels[1:])
    assert list(found.seconds) == [1, 4, 16, 64] and min(found.seconds.values()) > 0
    more = sk.diagnose(guided, draws, nfe=(), num_samples=16, levels=3)
    assert all(row.guided == pytest.approx(2.0 / found.spread, rel=1e-4) for row in more.levels)  # 3 - 1 of a shift of 1


def test_a_recommendation_rests_on_a_trial():
    found = sk.diagnose(sk.problems.gaussian(4), num_samples=16, levels=3, nfe=(6,))
    one = found.solvers[0]
    assert one.nfe == 6 and one.noises == 8 and one.rms > 0
    assert f"RMS {one.rms:.3g}" in found.advice[0]
    assert found.evaluations > 8 * 512  # the trial's converged run is counted


def test_the_command_prints_draws_and_writes_json(cli, tmp_path):
    from matplotlib.image import imread

    arguments = ("diagnose", "gaussian", "--nfe", "none", "--num-samples", "16", "--levels", "4")
    code, out, err = cli(*arguments, "--out", "figures/d.png")
    assert code == 0 and "none found" in out and "asym." in out, err
    assert imread(tmp_path / "figures/d.png").shape[2] == 4
    code, out, _ = cli(*arguments, "--json")
    told = json.loads(out)
    assert told["source"] == "target" and len(told["levels"]) == 4 and told["levels"][0]["guided"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--nfe", "x"), "budgets with commas"),
        (("--nfe", "1"), "at least 2"),
        (("--num-samples", "4"), "at least 8"),
        (("--data", "absent.npy"), "absent.npy"),
        (("--key", "x"), "--data"),
        (("--out", "d.txt"), ".png"),
        (("--guidance", "2"), "--label"),
        (("--data", "short.npy", "--nfe", "none"), "the model makes (8,)"),
        (("--data", "same.npy", "--nfe", "none"), "all samples"),
        (("--data", "nan.npy", "--nfe", "none"), "NaN"),
        (("--data", "words.txt"), ".npy"),
    ],
)
def test_bad_usage_is_told(cli, tmp_path, arguments, said):
    np.save(tmp_path / "short.npy", np.zeros((9, 3)))
    np.save(tmp_path / "same.npy", np.zeros((9, 8)))
    np.save(tmp_path / "nan.npy", np.full((9, 8), np.nan))
    (tmp_path / "words.txt").write_text("words")
    code, _, err = cli("diagnose", "gaussian", *arguments)
    assert code == 2 and said in err


def test_what_is_no_denoiser_is_refused():
    with pytest.raises(DenoiserError, match="sk.wrap"):
        sk.diagnose(lambda x, t: x)
    with pytest.raises(OptionError, match="nfe is a sequence"):
        sk.diagnose(sk.problems.gaussian(), nfe=10)
    with pytest.raises(OptionError, match="levels"):
        sk.diagnose(sk.problems.gaussian(), levels=2)
    with pytest.raises(OptionError, match="shape"):
        sk.diagnose(sk.wrap(lambda x, t: x, "sample", replace(FLOW)))
