"""Noise processes in continuous time behind the scheduler: Wuerstchen's and Dance Diffusion's cosines; c_in of EDM."""

from __future__ import annotations

import copy
import math
import pickle

import diffusers
import numpy as np
import pytest
import torch
from scheduler_loop import noise
from tiny_continuous_time import dance_diffusion, stable_cascade, stable_cascade_prior, wuerstchen_prior
from tiny_video import cosmos_video

from solverkit import SolverKitScheduler
from solverkit.errors import OptionError, ScheduleError
from solverkit.files.diffusers_config import from_config
from solverkit.files.diffusers_export import to_config
from solverkit.process.cosine import CosineVP
from solverkit.process.schedule import Flow

DANCE = CosineVP(offset=0.0, bound=0.0)


def network(x, t):
    t = float(t)
    return 0.9 * x * t + 0.3 * torch.sin(2 * x + t) + 0.1 * torch.roll(x, 1, -1) * (1 - t)


def relative(a, b):
    return float((a - b).norm() / b.norm())


def ours(native, sampler, **options):
    return SolverKitScheduler.from_config(native.config, sampler=sampler, **options)


# -------------------------------------------------------------------------------------------------------- the schedules


@pytest.mark.parametrize("s", [0.008, 0.02])
@pytest.mark.parametrize("scaler", [1.0, 2.0, 0.5])
def test_wuerstchens_cosine(scaler, s):
    native = diffusers.DDPMWuerstchenScheduler(scaler=scaler, s=s)
    schedule, prediction = from_config({**native.config, "_class_name": "DDPMWuerstchenScheduler"})
    assert schedule == CosineVP(s, power=scaler) and prediction == "epsilon"
    times = torch.linspace(0, 1, 41, dtype=torch.float64)
    for t, expected in zip(times.tolist(), native._alpha_cumprod(times, torch.device("cpu")).tolist()):
        alpha, sigma = schedule.alpha_sigma(schedule.ratio(t))
        assert alpha**2 == pytest.approx(expected, rel=1e-4, abs=1e-7) and alpha**2 + sigma**2 == pytest.approx(1)
        if 1.01e-4 < expected < 1 - 1.01e-4:
            assert schedule.time(schedule.ratio(t)) == pytest.approx(t, abs=1e-9)
    assert (schedule.time(schedule.ratio_max), schedule.time(0.0)) == (1.0, 0.0)


def test_dance_diffusions_cosine():
    native = diffusers.IPNDMScheduler()
    native.set_timesteps(30)
    assert from_config({**native.config, "_class_name": "IPNDMScheduler"}) == (DANCE, "v_prediction")
    for t, alpha, sigma in zip(native.timesteps.tolist(), native.alphas.tolist(), native.betas.tolist()):
        assert DANCE.alpha_sigma(DANCE.ratio(t)) == pytest.approx((alpha, sigma), abs=2e-7)
    for t in (0.0, 1e-6, 0.3, 1 - 1e-6, 1.0):
        assert DANCE.time(DANCE.ratio(t)) == pytest.approx(t, abs=1e-12)
    assert math.isinf(DANCE.ratio(1.0)) and DANCE.ratio(0.0) == 0


@pytest.mark.parametrize("schedule", [CosineVP(), CosineVP(0.02, power=2.0), DANCE])
def test_configs_are_read_back(schedule):
    prediction = "epsilon" if schedule.bound else "v_prediction"
    assert from_config(to_config(schedule, prediction)) == (schedule, prediction)
    assert to_config(schedule, "sample") is None


def test_what_no_schedule_can_be():
    with pytest.raises(ScheduleError, match="trained_betas"):
        from_config({"_class_name": "IPNDMScheduler", "trained_betas": [0.1, 0.2]})
    for wrong in ({"offset": -1.0}, {"bound": 0.5}, {"power": 0.0}, {"power": math.nan}):
        with pytest.raises(ScheduleError, match="cosine"):
            CosineVP(**wrong)


# --------------------------------------------------------------------------------------------------- Wuerstchen's class


def both(native, mine, network, x, timesteps):
    """The largest relative difference of two runs with the same noise, step by step."""
    y, worst = x, 0.0
    draws = [torch.Generator().manual_seed(1) for _ in range(2)]
    for t in timesteps:
        told = t.expand(len(x))
        x = native.step(network(x, t), told, x, generator=draws[0]).prev_sample
        y = mine.step(network(y, t), told, y, generator=draws[1]).prev_sample
        worst = max(worst, relative(y, x))
    return worst


@pytest.mark.parametrize("scaler", [1.0, 0.5])
@pytest.mark.parametrize("steps", [1, 2, 5, 30])
def test_wuerstchens_steps_are_those_of_ddpm(steps, scaler):
    native = diffusers.DDPMWuerstchenScheduler(scaler=scaler)
    mine = ours(native, "ddpm")
    native.set_timesteps(steps)
    mine.set_timesteps(steps)
    assert torch.equal(mine.timesteps, native.timesteps) and mine.nfe == steps
    assert both(native, mine, network, noise(), native.timesteps[:-1]) <= 1e-5


def test_wuerstchens_given_timesteps():
    native = diffusers.DDPMWuerstchenScheduler()
    mine = ours(native, "ddpm")
    for given in ([1.0, 0.7, 0.3, 0.0], torch.linspace(1, 0, 8)):
        native.set_timesteps(timesteps=given)
        mine.set_timesteps(timesteps=given)
        assert torch.equal(mine.timesteps, native.timesteps)
        assert both(native, mine, network, noise(), native.timesteps[:-1]) <= 1e-5


def test_levels_that_the_bound_makes_equal():
    """alpha^2 = 1e-4 above t = 0.9936: the class takes steps there that change nothing."""
    native = diffusers.DDPMWuerstchenScheduler()
    native.set_timesteps(400)
    mine, other = ours(native, "ddpm"), ours(native, "dpmpp-2m")
    mine.set_timesteps(400)
    assert torch.equal(mine.timesteps, native.timesteps) and mine.nfe == 400
    assert both(native, mine, network, noise(), native.timesteps[:-1]) <= 1e-3  # at equal levels ours draws 1e-4
    other.set_timesteps(400)
    assert other.nfe == len(other.timesteps) - 1 == 398


def test_wuerstchens_noised_samples():
    native = diffusers.DDPMWuerstchenScheduler()
    mine, times = ours(native, "ddpm"), torch.tensor([0.9, 0.35])
    for _ in range(2):
        noisy = mine.add_noise(noise(), noise(seed=1), times)
        torch.testing.assert_close(noisy, native.add_noise(noise(), noise(seed=1), times))
        mine.set_timesteps(10)


@pytest.mark.parametrize(
    ("sampler", "grid"),  # the last step of rk4 on "karras" asks below the least level, which has no time of its own
    [*((sampler, grid) for sampler in ("ddim", "dpmpp-2m", "heun", "unipc") for grid in (None, "karras")), ("rk4", None)],
)
def test_the_last_timestep_is_the_ends_for_every_sampler(sampler, grid):
    native = diffusers.DDPMWuerstchenScheduler()
    mine = ours(native, sampler, grid=grid)
    mine.set_timesteps(9)
    assert len(mine.timesteps) == mine.nfe + 1 and mine.timesteps[-1] == 0 and mine.sigmas[-1] == 0
    x, clean = noise(), noise(seed=1)
    for t in mine.timesteps[:-1]:  # the exact noise of one image: every solver ends there
        alpha, sigma = mine._convention().schedule.alpha_sigma(mine._convention().ratio(float(t)))
        x = mine.step((x - alpha * clean) / sigma, t.expand(2), x).prev_sample
    assert mine.step_index == mine.nfe and relative(x, clean) <= 1e-4


def test_it_is_an_instance_of_the_class_that_pipelines_look_for(tmp_path):
    native = diffusers.DDPMWuerstchenScheduler()
    mine = ours(native, "ddpm")
    mine.set_timesteps(5)
    mine.save_pretrained(tmp_path)
    loaded = SolverKitScheduler.from_pretrained(tmp_path)
    for scheduler in (mine, copy.deepcopy(mine), pickle.loads(pickle.dumps(mine)), loaded):
        assert isinstance(scheduler, diffusers.DDPMWuerstchenScheduler) and isinstance(scheduler, SolverKitScheduler)
        assert type(scheduler).__name__ == scheduler.config["_class_name"] == "SolverKitScheduler"
    for name in set(vars(diffusers.DDPMWuerstchenScheduler)) & set(dir(SolverKitScheduler)):
        if not name.startswith("_") or name == "__len__":  # nothing that ours has is the native class's
            assert getattr(type(mine), name) == getattr(SolverKitScheduler, name), name
    assert type(mine.native()) is diffusers.DDPMWuerstchenScheduler
    assert type(mine.from_config(diffusers.DDIMScheduler().config)) is SolverKitScheduler

    class Own(SolverKitScheduler):
        pass

    assert type(Own.from_config(native.config)) is Own


# ---------------------------------------------------------------------------------------------------------- pipelines


def run(tiny, scheduler, net, steps=4):
    """What the pipeline returns, and what its network was told."""
    told = []

    def remember(module, arguments, keywords):
        asked = next(v for k, v in keywords.items() if k in ("timestep_ratio", "r")) if keywords else arguments[1]
        told.append(float(asked.flatten()[0]))

    hook = getattr(tiny.pipe, net).register_forward_pre_hook(remember, with_kwargs=True)
    tiny.pipe.scheduler = scheduler
    result = tiny.pipe(**tiny.inputs, num_inference_steps=steps, generator=torch.Generator().manual_seed(0))
    hook.remove()
    return torch.as_tensor(np.asarray(getattr(result, tiny.output), dtype=np.float64)), told


@pytest.mark.parametrize(
    ("build", "net"), [(stable_cascade, "decoder"), (stable_cascade_prior, "prior"), (wuerstchen_prior, "prior")]
)
def test_pipelines_of_wuerstchens_family(build, net):
    tiny = build()
    native = tiny.pipe.scheduler
    expected, told = run(tiny, native, net)
    got, mine = run(tiny, ours(native, "ddpm"), net)
    assert mine == told == [1.0, 0.75, 0.5, 0.25] and relative(got, expected) <= 1e-5
    for sampler in ("dpmpp-2m", "heun"):
        scheduler = ours(native, sampler)
        got, mine = run(tiny, scheduler, net)
        assert mine == scheduler.timesteps.tolist()[:-1] and len(mine) == scheduler.nfe and torch.isfinite(got).all()


# -------------------------------------------------------------------------------------------------- Dance Diffusion's


@pytest.mark.parametrize("steps", [1, 2, 5, 40])
def test_ipndms_steps_are_those_of_the_class(steps):
    native = diffusers.IPNDMScheduler()
    mine = ours(native, "ipndm")
    native.set_timesteps(steps)
    mine.set_timesteps(steps)
    assert mine.config["native_class"] == "IPNDMScheduler" and torch.equal(mine.timesteps, native.timesteps)
    x = y = noise()
    for t in native.timesteps:
        x, y = native.step(network(x, t), t, x).prev_sample, mine.step(network(y, t), t, y).prev_sample
        assert float((y - x).norm()) <= 1e-5 * float(x.norm())  # a single step ends at 0


def test_the_first_answer_is_used_unless_the_class_decides():
    native = diffusers.IPNDMScheduler()
    x, v = noise(), noise(seed=1)
    for options, uses in ({}, 0), ({"released": False}, 1):
        mine = ours(native, "ipndm", sampler_options=options)
        native.set_timesteps(10)
        mine.set_timesteps(10)
        first, second = mine.timesteps[:2]
        alpha, sigma = DANCE.alpha_sigma(DANCE.ratio(float(second)))
        stepped = mine.step(v, first, x).prev_sample
        torch.testing.assert_close(stepped, sigma * x - uses * alpha * v)  # x_0 = -v at alpha = 0
        if not uses:
            torch.testing.assert_close(native.step(v, first, x).prev_sample, stepped)


def test_other_samplers_end_nearer_than_the_class_does():
    """Data N(1, 0.5^2): the exact flow ends at 1 + x / 2."""

    def velocity(x, t):
        alpha, sigma = DANCE.alpha_sigma(DANCE.ratio(float(t)))
        denoised = (sigma**2 + 0.25 * alpha * x) / (sigma**2 + 0.25 * alpha**2)
        return (alpha * x - denoised) / sigma

    native = diffusers.IPNDMScheduler()
    errors = []
    for sampler, options in (("ipndm", {}), ("ipndm", {"released": False}), ("dpmpp-2m", {})):
        scheduler = ours(native, sampler, sampler_options=options)
        scheduler.set_timesteps(50)
        x = start = noise()
        for t in scheduler.timesteps:
            x = scheduler.step(velocity(x, t), t, x).prev_sample
        errors.append(relative(x, 1 + start / 2))
    assert errors[0] > 0.01 and errors[1] < 1e-4 and errors[2] < 1e-3, errors


def test_the_pipeline_of_dance_diffusion():
    tiny = dance_diffusion()
    native = tiny.pipe.scheduler
    expected, told = run(tiny, native, "unet")
    got, mine = run(tiny, ours(native, "ipndm"), "unet")
    assert mine == told and relative(got, expected) <= 1e-5 and float((expected.abs() < 1).double().mean()) > 0.5
    for sampler in ("ddim", "dpmpp-2m", "heun"):
        scheduler = ours(native, sampler)
        got, mine = run(tiny, scheduler, "unet")
        assert len(mine) == scheduler.nfe and torch.isfinite(got).all()


# -------------------------------------------------------------------------------------------------------------- c_in


def test_c_in_is_that_of_edm():
    native = diffusers.EDMEulerScheduler(sigma_data=0.7)
    mine = ours(native, "euler")
    for sigma in (0.1, torch.tensor([0.001, 3.0])):
        torch.testing.assert_close(mine._get_conditioning_c_in(sigma), native._get_conditioning_c_in(sigma))
    with pytest.raises(OptionError, match="c_in belongs to EDM"):
        SolverKitScheduler()._get_conditioning_c_in(0.1)


def test_cosmos_conditioned_on_an_image():
    tiny = cosmos_video()
    native = tiny.pipe.scheduler
    results = []
    for scheduler in (native, ours(native, "euler"), ours(native, "dpmpp-2m")):
        tiny.pipe.scheduler = scheduler
        result = tiny.pipe(**tiny.inputs, num_inference_steps=4, generator=torch.Generator().manual_seed(0))
        results.append(result.frames)
    assert relative(results[1], results[0]) <= 1e-5 and torch.isfinite(results[2]).all()
    assert relative(results[2], results[0]) > 1e-4


# -------------------------------------------------------------------------------------------------------- MiniMax H3


def test_minimax_h3():
    """Told 1 - t, a velocity to the data; n counts the levels, the end among them."""
    native = diffusers.MiniMaxH3Scheduler()
    schedule, prediction = from_config({**native.config, "_class_name": "MiniMaxH3Scheduler"})
    assert (schedule, prediction) == (Flow(shift=12.0, data_at=1), "flow_prediction")
    for sampler in ("euler", "dpmpp-2m"):
        for given in ({"num_inference_steps": 9}, {"sigmas": [1.0, 0.7, 0.2, 0.0]}):
            mine = ours(native, sampler)
            native.set_timesteps(**given)
            mine.set_timesteps(**given)
            torch.testing.assert_close(mine.timesteps, native.timesteps)
            torch.testing.assert_close(mine.sigmas, native.sigmas)
            assert "sigmas" in given or torch.equal(mine.timesteps, native.timesteps)
            x = y = noise()
            clean = noise(seed=1)
            for t in native.timesteps:
                answer = [network(z, t) if sampler == "euler" else (clean - z) / (1 - t) for z in (x, y)]
                x, y = native.step(answer[0], t, x).prev_sample, mine.step(answer[1], t, y).prev_sample
            assert relative(y, x) <= 1e-5
    mine = ours(native, "euler", grid="flow:shift=2")
    mine.set_timesteps(6)
    assert mine.timesteps[0] == 0 and (mine.timesteps.diff() > 0).all()
    t = torch.tensor([0.25])
    torch.testing.assert_close(mine.scale_noise(clean, t, x), native.scale_noise(clean, t, x))


@pytest.mark.parametrize("sampler", ["euler", "dpmpp-2m", "unipc"])
def test_minimax_h3s_rows_are_overwritten(sampler):
    """Its pipeline holds conditions and samples in one table of rows, and writes each result over the rows it passed."""
    native = diffusers.MiniMaxH3Scheduler()
    ends = []
    for scheduler, in_place in ((ours(native, sampler), False), (ours(native, sampler), True), (native, True)):
        scheduler.set_timesteps(8)
        table = noise(6, 16)
        for t in scheduler.timesteps:
            rows = table[2:] if in_place else table[2:].clone()
            table[2:] = scheduler.step(network(table, t)[2:], t, rows, return_dict=False)[0]
        ends.append(table)
    assert torch.equal(ends[0], ends[1]) and torch.equal(ends[1][:2], noise(6, 16)[:2])
    assert (relative(ends[1], ends[2]) <= 1e-5) == (sampler == "euler")


def test_one_key_may_be_a_whole_config_or_a_part():
    assert ours(diffusers.MiniMaxH3Scheduler(), "euler").config["native_class"] == "MiniMaxH3Scheduler"
    assert SolverKitScheduler(shift=3.0, sampler="euler").config["native_class"] == "FlowMatchEulerDiscreteScheduler"
    part = SolverKitScheduler.from_config({"shift": 3.0}, sampler="euler")
    assert part.config["native_class"] == "FlowMatchEulerDiscreteScheduler"
    for name in ("MiniMaxH3Scheduler", "FlowMatchEulerDiscreteScheduler"):
        assert SolverKitScheduler.from_config({"shift": 3.0}, native_class=name).config["native_class"] == name
