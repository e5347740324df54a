"""Schedules: the two-way map between time and sigma / alpha, the frames, and what a diffusers config means."""

from __future__ import annotations

import copy
import math
import pickle

import diffusers
import numpy as np
import pytest
import torch

import solverkit as sk
from solverkit.errors import GridError, ScheduleError, SolverKitError, UnknownNameError
from solverkit.files.diffusers_config import from_config
from solverkit.files.diffusers_export import to_config
from solverkit.process.level import from_log_snr, from_ratio

SCHEDULES = {
    "linear": sk.VP(),
    "scaled": sk.VP("scaled_linear", 0.00085, 0.012),
    "cosine": sk.VP("squaredcos_cap_v2"),
    "trained": sk.VP([0.01, 0.02, 0.05, 0.1, 0.3]),
    "zero-snr": sk.VP(zero_terminal_snr=True),
    "snr-shift": sk.VP("scaled_linear", 0.00085, 0.012, snr_shift_scale=3.0),
    "continuous": sk.VP(continuous=True),
    "constant": sk.VP(continuous=True, beta_min=2.0, beta_max=2.0),
    "sub-vp": sk.SubVP(),
    "ve": sk.VE(),
    "ve-log": sk.VE(told="log"),
    "ve-index": sk.VE(told="index"),
    "edm": sk.EDM(),
    "flow": sk.Flow(),
    "flow-1000": sk.Flow(shift=3.0, time_scale=1000.0),
}


@pytest.fixture(params=SCHEDULES, ids=str)
def schedule(request):
    return SCHEDULES[request.param]


def ratios(schedule, n=25):
    high = min(schedule.ratio_max, 1e4)
    return np.geomspace(schedule.ratio_min, high, n).clip(schedule.ratio_min, high)


def test_ratio_to_time_and_back(schedule):
    for ratio in ratios(schedule):
        assert schedule.ratio(schedule.time(ratio)) == pytest.approx(ratio, rel=1e-9)


def test_time_to_ratio_and_back(schedule):
    low, high = sorted((schedule.time(schedule.ratio_min), schedule.time(min(schedule.ratio_max, 1e4))))
    for time in np.linspace(low, high, 25):
        assert schedule.time(schedule.ratio(float(time))) == pytest.approx(float(time), rel=1e-9, abs=1e-9)


def test_model_start_survives_the_round_trip(schedule):
    assert schedule.ratio(schedule.time(schedule.ratio_max)) == pytest.approx(schedule.ratio_max, rel=1e-9)


def test_model_coefficients_have_the_ratio(schedule):
    for ratio in ratios(schedule):
        alpha, sigma = schedule.alpha_sigma(float(ratio))
        assert sigma / alpha == pytest.approx(float(ratio), rel=1e-12)


def test_a_level_means_the_same_in_both_frames(schedule):
    """k times the frame's (alpha, s) are the model's own (alpha, sigma), and lam does not depend on the frame."""
    for ratio in ratios(schedule):
        alpha, sigma = schedule.alpha_sigma(float(ratio))
        sigma_level, flow_level = schedule.level(float(ratio), 0), schedule.level(float(ratio), 1)
        for level in (sigma_level, flow_level):
            assert level.alpha * level.scale == pytest.approx(alpha, rel=1e-9)
            assert float(level) * level.scale == pytest.approx(sigma, rel=1e-9)
        assert sigma_level.lam == pytest.approx(flow_level.lam, rel=1e-9, abs=1e-9)
        assert sigma_level.time == flow_level.time
        assert flow_level.ratio == pytest.approx(float(ratio), rel=1e-9)


def test_every_level_pickles_and_copies(schedule):
    level = schedule.level(1.0)
    for other in (pickle.loads(pickle.dumps(level)), copy.deepcopy(level)):
        assert (float(other), other.time, other.scale, other.frame) == (float(level), level.time, level.scale, level.frame)
    assert pickle.loads(pickle.dumps(schedule)) == schedule


def test_own_frame_runs_from_start_to_zero(schedule):
    for grid_name in ("karras", "log-snr", "flow"):
        grid = sk.make_grid(grid_name, schedule, 6)
        assert grid[0].ratio == pytest.approx(schedule.ratio_max, rel=1e-9)
        assert float(grid[-1]) == 0 and grid[-1].alpha == 1


def test_log_snr_limits():
    assert from_log_snr(math.inf, 0) == 0 and from_log_snr(math.inf, 1) == 0
    assert from_log_snr(-math.inf, 0) == math.inf and from_log_snr(-math.inf, 1) == 1
    for frame in (0, 1):
        assert from_log_snr(-math.log(3.0), frame) == pytest.approx(from_ratio(3.0, frame))


# ---------------------------------------------------------------------------------------------------- definitions


def test_vp_keeps_variance_and_sub_vp_does_not():
    for ratio in (0.01, 1.0, 50.0):
        alpha, sigma = sk.VP(continuous=True).alpha_sigma(ratio)
        assert alpha**2 + sigma**2 == pytest.approx(1)
        alpha, sigma = sk.SubVP().alpha_sigma(ratio)
        assert sigma == pytest.approx(1 - alpha**2)


def test_sub_vp_identities():
    """Same alpha(t) as VP, sigma = 1 - alpha^2 = the square of VP's sigma (Song et al. 2021, eq. 14)."""
    vp, sub = sk.VP(continuous=True), sk.SubVP()
    for time in (1.0, 100.0, 500.0, 999.0):
        a, s = vp.alpha_sigma(vp.ratio(time))
        b, r = sub.alpha_sigma(sub.ratio(time))
        assert b == pytest.approx(a, rel=1e-9) and r == pytest.approx(s**2, rel=1e-9)


def test_continuous_vp_is_its_integral():
    t = 0.3
    integral = 0.1 * t + 0.5 * 19.9 * t * t
    assert sk.VP(continuous=True).ratio(999 * t) == pytest.approx(math.sqrt(math.exp(integral) - 1), rel=1e-12)


def test_ve_edm_and_flow_say_what_their_networks_are_told():
    assert sk.VE().time(3.0) == 3.0
    assert sk.VE(told="log").time(3.0) == pytest.approx(math.log(3.0))
    index = sk.VE(0.01, 50.0, told="index")
    assert index.time(50.0) == 0 and index.time(0.01) == pytest.approx(999)
    assert sk.Flow(time_scale=1000).time(1.0) == 500 and sk.Flow(time_scale=1000).time(math.inf) == 1000


def test_zero_snr_starts_at_pure_noise():
    schedule = sk.VP(zero_terminal_snr=True)
    level = schedule.level(schedule.ratio_max)
    assert schedule.ratio_max == math.inf and schedule.frame == 1
    assert (level.alpha, float(level), level.time, level.scale) == (0, 1, 999, 1) and level.lam == -math.inf
    by_betas = sk.VP([0.1, 0.5, 1.0])
    assert by_betas.frame == 1 and by_betas.level(by_betas.ratio_max).alpha == 0
    near = schedule.level(schedule.ratio(998.5))
    assert 0 < near.alpha < schedule.level(schedule.ratio(998)).alpha


# ------------------------------------------------------------------------------------------------------- integers


def test_integer_networks_get_trained_levels_only():
    schedule = sk.VP(integer_time=True)
    for ratio in np.geomspace(schedule.ratio_min, schedule.ratio_max, 40):
        level = schedule.level(float(ratio))
        assert level.time == round(level.time)
        assert level.ratio == pytest.approx(schedule.ratio(level.time), rel=1e-12)  # the level moved with its time
    grid = sk.make_grid("karras", schedule, 200)
    assert len(grid) < 201 and all(level.time == round(level.time) for level in grid)  # equal neighbours merged
    assert len({float(level) for level in grid}) == len(grid)


def test_without_integers_nothing_snaps():
    assert sk.VP().level(1.2345).ratio == 1.2345


def test_snap_false_rounds_the_time_only():
    level = sk.VP(integer_time=True).at(1.2345, snap=False)
    assert float(level) == 1.2345 and level.time == round(level.time)


# ------------------------------------------------------------------------------------------------------ diffusers


@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace"])
@pytest.mark.parametrize("zero", [False, True])
def test_tables_agree_with_diffusers(betas, zero):
    scheduler = diffusers.DDPMScheduler(beta_schedule=betas, rescale_betas_zero_snr=zero)
    schedule, prediction = from_config({**scheduler.config, "_class_name": "DDPMScheduler"})
    abar = 1 / (1 + np.exp(2 * schedule.log_ratios))
    theirs = scheduler.alphas_cumprod.double().numpy()
    assert prediction == "epsilon"
    np.testing.assert_allclose(abar, theirs, rtol=1e-4, atol=2e-7)  # their cumprod is float32
    big = theirs > 0.01
    np.testing.assert_allclose(abar[big], theirs[big], rtol=2e-5)


@pytest.mark.parametrize("name", ["CogVideoXDDIM", "HeunDiscrete", "LCM", "PNDM", "UnCLIP"])
def test_missing_keys_take_the_defaults_of_their_class(name):
    name += "Scheduler"
    schedule, _ = from_config({"_class_name": name})
    abar = 1 / (1 + np.exp(2 * schedule.log_ratios))
    np.testing.assert_allclose(abar, getattr(diffusers, name)().alphas_cumprod.double().numpy(), rtol=1e-4, atol=2e-7)


def test_exp_betas_of_shap_e():
    scheduler = diffusers.HeunDiscreteScheduler(beta_schedule="exp")
    schedule, _ = from_config({**scheduler.config, "_class_name": "HeunDiscreteScheduler"})
    abar = 1 / (1 + np.exp(2 * schedule.log_ratios))
    np.testing.assert_allclose(abar, scheduler.alphas_cumprod.double().numpy(), rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "expected", "prediction"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, sk.Flow(3.0, 1000.0), "flow_prediction"),
        ({"_class_name": "FlowMatchHeunDiscreteScheduler"}, sk.Flow(1.0, 1000.0), "flow_prediction"),
        ({"shift": 3.0}, sk.Flow(3.0, 1000.0), "flow_prediction"),
        ({"base_shift": 0.5}, sk.Flow(1.0, 1000.0), "flow_prediction"),
        (
            {"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True, "flow_shift": 5.0,
             "prediction_type": "flow_prediction"},
            sk.Flow(5.0, 1000.0), "flow_prediction",
        ),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "prediction_type": "flow_prediction"},
            sk.Flow(1.0, 1000.0), "flow_prediction",
        ),
        ({"_class_name": "EDMEulerScheduler", "sigma_data": 1.0}, sk.EDM(told="quarter-log", sigma_data=1.0), "edm"),
        ({"_class_name": "ScoreSdeVeScheduler"}, sk.VE(0.01, 1348.0), "score"),
        ({"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}, sk.VP(), "v_prediction"),
        ({"_class_name": "DDIMScheduler", "trained_betas": [0.1, 0.2]}, sk.VP([0.1, 0.2]), "epsilon"),
    ],
)  # fmt: skip
def test_other_families(config, expected, prediction):
    schedule, read = from_config(config)
    assert read == prediction
    if isinstance(config.get("trained_betas"), list):
        np.testing.assert_allclose(schedule.log_ratios, expected.log_ratios)
    else:
        assert schedule == expected


def test_a_flow_config_converted_to_a_vp_class_is_not_vp():
    """DPMSolverMultistepScheduler.from_config(flow config) makes betas out of defaults and would run SD3 as epsilon."""
    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    converted = diffusers.DPMSolverMultistepScheduler.from_config(flow.config)
    assert from_config(converted.config) == (sk.Flow(3.0, 1000.0), "flow_prediction")
    saved = {key: value for key, value in converted.config.items() if key != "_use_default_values"}
    with pytest.raises(ScheduleError, match="shift"):
        from_config({**saved, "_class_name": "DPMSolverMultistepScheduler"})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "_class_name"),
        ({"_class_name": "Foo"}, "Foo"),
        ({"beta_schedule": "linear"}, "beta_start"),
        ({"_class_name": "DDIMScheduler", "beta_schedule": "zigzag"}, "zigzag"),
        ({"_class_name": "DDIMScheduler", "prediction_type": "trigflow"}, "trigflow"),
        ({"_class_name": "DDIMScheduler", "beta_start": "small"}, "beta_start"),
        ({"_class_name": "DDIMScheduler", "beta_start": 0.5, "beta_end": 0.1}, "beta_start"),
        ({"_class_name": "DDIMScheduler", "num_train_timesteps": 0}, "num_train_timesteps"),
        ({"_class_name": "SCMScheduler"}, "SCMScheduler"),
        ({"_class_name": "KarrasVeScheduler"}, "KarrasVeScheduler"),
        ({"_class_name": "CMStochasticIterativeScheduler"}, "CMStochastic"),
        ({"_class_name": "EDMEulerScheduler", "prediction_type": "sample"}, "sample"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "invert_sigmas": True}, "invert_sigmas"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": -1.0}, "shift"),
        ({"use_flow_sigmas": True, "prediction_type": "v_prediction"}, "v_prediction"),
    ],
)  # fmt: skip
def test_configs_that_cannot_be_honoured(config, words):
    with pytest.raises(ScheduleError, match=words):
        from_config(config)
    with pytest.raises(ScheduleError):
        from_config("scheduler_config.json")


def test_configs_of_edm_networks_with_a_velocity():
    """Stable Video Diffusion, CosXL and Stable Audio: F with the sign of v, told log(sigma) / 4 or 2 / pi atan(sigma)."""
    video = {"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous", "prediction_type": "v_prediction"}
    schedule, prediction = from_config({**video, "sigma_min": 0.002, "sigma_max": 700.0})
    assert (schedule, prediction) == (sk.EDM(0.002, 700.0, told="quarter-log", sigma_data=1.0), "edm_v")
    schedule, prediction = from_config({**video, "prediction_type": "epsilon"})  # diffusers then tells the discrete time
    assert prediction == "epsilon" and schedule == sk.VP("linear")
    schedule, prediction = from_config({"_class_name": "CosineDPMSolverMultistepScheduler"})
    assert prediction == "edm_v" and schedule.time(1.0) == pytest.approx(0.5)
    assert schedule.ratio(schedule.time(37.0)) == pytest.approx(37.0)
    x, out = torch.randn(2, 3), torch.randn(2, 3)
    level = schedule.level(3.0)
    raw = sk.wrap(lambda y, t: out, "edm_v", schedule)(x, level)
    torch.testing.assert_close(raw, x / 10 - 3 / 10**0.5 * out)  # v-prediction of x / sqrt(1 + sigma^2) with sigma_data = 1


@pytest.mark.parametrize(
    ("schedule", "prediction", "known"),
    [
        (sk.VP(integer_time=True), "epsilon", True),
        (sk.VP("cosine", zero_terminal_snr=True), "v_prediction", True),
        (sk.VP("scaled_linear", 0.00085, 0.012, snr_shift_scale=3.0), "v_prediction", True),
        (sk.VP([0.1, 0.2, 0.3]), "sample", True),
        (sk.Flow(2.0, 1000.0), "flow_prediction", True),
        (sk.VE(), "score", True),
        (sk.EDM(told="quarter-log"), "edm", True),
        (sk.EDM(), "denoised", False),
        (sk.Flow(), "epsilon", False),
        (sk.SubVP(), "score", False),
        (sk.VP(), "score", False),
    ],
)
def test_to_config_is_read_back_or_is_none(schedule, prediction, known):
    config = to_config(schedule, prediction)
    assert (config is not None) == known
    if config is not None:
        back, read = from_config(config)
        assert read == prediction and back.ratio_max == schedule.ratio_max
        assert getattr(diffusers, config["_class_name"]).from_config(config) is not None


# --------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: sk.VP("zigzag"), UnknownNameError),
        (lambda: sk.VP([]), ScheduleError),
        (lambda: sk.VP([0.1, -0.1]), ScheduleError),
        (lambda: sk.VP(["a"]), ScheduleError),
        (lambda: sk.VP(beta_start=-1.0), ScheduleError),
        (lambda: sk.VP(beta_end=2.0), ScheduleError),
        (lambda: sk.VP(num_train_timesteps=0), ScheduleError),
        (lambda: sk.VP(snr_shift_scale=0.0), ScheduleError),
        (lambda: sk.VP(continuous=True, integer_time=True), ScheduleError),
        (lambda: sk.VP(continuous=True, beta_min=-1.0), ScheduleError),
        (lambda: sk.SubVP(t_min=0.0), ScheduleError),
        (lambda: sk.VE(1.0, 0.1), ScheduleError),
        (lambda: sk.VE(1.0, math.inf), ScheduleError),
        (lambda: sk.EDM(sigma_data=0.0), ScheduleError),
        (lambda: sk.Flow(shift=0.0), ScheduleError),
        (lambda: sk.Flow(time_scale=0.0), ScheduleError),
        (lambda: sk.Flow(t_min=2.0), ScheduleError),
        (lambda: sk.VP().at(-1.0), GridError),
        (lambda: sk.VP().at(math.nan), GridError),
        (lambda: sk.Flow().at(-0.5), GridError),
        (lambda: sk.VE(told="time"), UnknownNameError),
    ],
)
def test_bad_parameters(make, error):
    with pytest.raises(error) as caught:
        make()
    assert isinstance(caught.value, SolverKitError)
