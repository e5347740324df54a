"""What other projects call a prediction, which way their time runs, and how they give a schedule."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch

import solverkit as sk
from solverkit.errors import DenoiserError, ScheduleError, UnknownNameError

torch.set_num_threads(1)

MEAN, SPREAD = 1.5, 0.4  # data N(MEAN, SPREAD^2)


def towards_data(x, tau):
    """E[x_0 - eps | x] on x = tau x_0 + (1 - tau) eps: torchcfm, flow_matching and SiT, noise at 0 and data at 1."""
    tau = tau.to(x).view(-1, 1)
    gain = (x - tau * MEAN) / (tau**2 * SPREAD**2 + (1 - tau) ** 2)
    return MEAN + tau * SPREAD**2 * gain - (1 - tau) * gain


def towards_noise(x, t):
    """E[eps - x_0 | x] on x = (1 - t) x_0 + t eps: the target of diffusers and minRF, data at 0, noise at 1."""
    return -towards_data(x, 1 - t)


def turned(net):
    """What the documentation advises for a network whose velocity runs against its time."""
    return lambda x, t: -net(x, t)


CONVENTIONS = {
    "noise at 0, towards data": (towards_data, sk.Flow(data_at=1)),
    "noise at 0 of 1000": (lambda x, t: towards_data(x, t / 1000), sk.Flow(data_at=1, time_scale=1000.0)),
    "data at 0, towards noise": (towards_noise, sk.Flow()),
    "noise at 0, towards noise, sign turned": (turned(lambda x, tau: -towards_data(x, tau)), sk.Flow(data_at=1)),
    "data at 0, towards data, sign turned": (turned(lambda x, t: -towards_noise(x, t)), sk.Flow()),
}


def test_the_reference_is_the_flow_as_its_authors_integrate_it():
    """Euler of dx/dtau from noise at 0 to data at 1, without solverkit: the map is x_1 = MEAN + SPREAD x_0."""
    x = z = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    for i in range(4000):
        x = x + towards_data(x, torch.full((5,), i / 4000)) / 4000
    torch.testing.assert_close(x, MEAN + SPREAD * z, atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_flow_network_in_its_own_convention_makes_the_data(name):
    net, schedule = CONVENTIONS[name]
    z = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    denoiser = sk.wrap(net, "flow_prediction", schedule, shape=(1,))
    out = sk.sample(denoiser, "heun", steps=200, x=z).x
    torch.testing.assert_close(out, MEAN + SPREAD * z, atol=5e-3, rtol=0)


@pytest.mark.parametrize(
    ("net", "schedule"),
    [(towards_data, sk.Flow()), (towards_noise, sk.Flow(data_at=1)), (lambda x, t: -towards_data(x, t), sk.Flow(data_at=1)),
     (lambda x, t: -towards_noise(x, t), sk.Flow())],
)  # fmt: skip
def test_the_wrong_convention_is_another_flow(net, schedule):
    z = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    out = sk.sample(sk.wrap(net, "flow_prediction", schedule, shape=(1,)), "heun", steps=50, x=z).x
    assert (out - (MEAN + SPREAD * z)).abs().max() > 0.5


@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v_prediction", "score"])
def test_only_a_velocity_has_a_sign_that_time_turns(prediction):
    """Other predictions are functions of x and the level, whichever way time runs."""
    a = sk.wrap(lambda x, t: torch.tanh(x) * t[:, None], prediction, sk.Flow())
    b = sk.wrap(lambda x, t: torch.tanh(x) * (1 - t[:, None]), prediction, sk.Flow(data_at=1))
    x = torch.randn(3, 2, dtype=torch.float64)
    torch.testing.assert_close(a(x, 0.3), b(x, 0.3))


def test_the_told_time_of_a_flow_that_ends_at_one():
    schedule = sk.Flow(data_at=1, time_scale=1000.0)
    assert [schedule.at(s).time for s in (1.0, 0.25, 0.0)] == [0.0, 750.0, 1000.0]
    for ratio in (0.0, 0.1, 1.0, 7.0, math.inf):
        assert math.isclose(schedule.ratio(schedule.time(ratio)), ratio, rel_tol=1e-12, abs_tol=1e-12)
    assert schedule.ratio_min == sk.Flow().ratio_min and schedule != sk.Flow(time_scale=1000.0)
    for bad in (2, -1, 0.5, True, "data", None):
        with pytest.raises(ScheduleError, match="data_at"):
            sk.Flow(data_at=bad)


@pytest.mark.parametrize(
    ("name", "schedule", "meant"),
    [
        ("eps", sk.VP(), "epsilon"), ("noise", sk.VP(), "epsilon"), ("x0", sk.VP(), "sample"), ("x_0", sk.EDM(), "sample"),
        ("x_start", sk.VP(), "sample"), ("v", sk.VP(), "v_prediction"), ("velocity", sk.VP(), "v_prediction"),
        ("v", sk.Flow(), "flow_prediction"), ("velocity", sk.Flow(data_at=1), "flow_prediction"),
        ("flow", sk.Flow(), "flow_prediction"), ("Velocity", sk.Flow(), "flow_prediction"), ("epsilom", sk.VP(), "epsilon"),
    ],
)  # fmt: skip
def test_names_of_other_projects(name, schedule, meant):
    with pytest.raises(UnknownNameError, match=f"Did you mean '{meant}'") as caught:
        sk.wrap(lambda x, t: x, name, schedule)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(copy.copy(caught.value)) == str(caught.value)


# ----------------------------------------------------------------------------------------------- products of alphas

ABAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))


@pytest.mark.parametrize(
    "given", [ABAR, ABAR.tolist(), tuple(ABAR), torch.from_numpy(ABAR)], ids=["array", "list", "tuple", "tensor"]
)
def test_alphas_cumprod_are_the_schedule(given):
    schedule, plain = sk.VP(alphas_cumprod=given), sk.VP()
    np.testing.assert_allclose(schedule.log_ratios, plain.log_ratios, rtol=1e-10, atol=1e-12)
    assert sk.VP(alphas_cumprod=given, integer_time=True).at(1.0).time == sk.VP(integer_time=True).at(1.0).time
    assert hash(schedule) == hash(sk.VP(alphas_cumprod=ABAR)) and schedule == sk.VP(alphas_cumprod=ABAR)
    single = sk.VP(alphas_cumprod=torch.tensor(ABAR, dtype=torch.float32))
    np.testing.assert_allclose(single.log_ratios, plain.log_ratios, atol=2e-3)


def test_alphas_cumprod_that_reach_zero_start_at_pure_noise():
    assert sk.VP(alphas_cumprod=[0.9, 0.5, 0.0]).ratio_max == math.inf
    assert math.isclose(sk.VP(alphas_cumprod=[0.9, 0.5, 0.1]).ratio_max, 3.0)


@pytest.mark.parametrize(
    "bad", [[0.5, 0.9], [1.0, 0.5], [0.9, 0.9], [0.9, -0.1], [0.9, math.nan], [], 0.5, "linear", [[0.9], [0.5]], 1 - ABAR]
)
def test_alphas_cumprod_that_are_none(bad):
    with pytest.raises(ScheduleError, match="alphas_cumprod"):
        sk.VP(alphas_cumprod=bad)


@pytest.mark.parametrize("more", [{"continuous": True}, {"betas": "cosine"}, {"betas": [0.1, 0.2]}, {"betas": np.ones(3)}])
def test_one_description_of_a_schedule_at_a_time(more):
    with pytest.raises(ScheduleError, match="give one of"):
        sk.VP(alphas_cumprod=ABAR, **more)


def test_the_cap_of_the_cosine_schedule():
    """abar_T / abar_(T-1) = 1 - cap where the cosine's own last beta is above it (Nichol and Dhariwal 2021, 3.2)."""

    def last(schedule):
        abar = 1 / (1 + np.exp(2 * schedule.log_ratios))
        return 1 - abar[-1] / abar[-2]

    assert math.isclose(last(sk.VP("cosine")), 0.999, rel_tol=1e-9)
    for cap in (0.9999, 0.5):
        assert math.isclose(last(sk.VP("cosine", beta_cap=cap)), cap, rel_tol=1e-9)
    assert sk.VP("cosine", beta_cap=1).ratio_max == math.inf
    for bad in ({"beta_cap": 0.0}, {"beta_cap": 1.5}, {"beta_cap": math.nan}):
        with pytest.raises(ScheduleError, match="beta_cap"):
            sk.VP("cosine", **bad)
    with pytest.raises(ScheduleError, match="cosine"):
        sk.VP("linear", beta_cap=0.5)


def test_names_that_mean_nothing_still_list_what_there_is():
    with pytest.raises(UnknownNameError, match=r"Known: .*flow_prediction"):
        sk.wrap(lambda x, t: x, "zzzzzz", sk.VP())
    with pytest.raises(DenoiserError, match="schedule is missing"):
        sk.wrap(lambda x, t: x, "epsilon")
