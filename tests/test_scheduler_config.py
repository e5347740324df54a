"""Configs of SolverKitScheduler: native classes and back, what is refused, saving and loading."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import diffusers
import pytest
import torch
from scheduler_loop import BETAS, flow, loop, make, noise
from tiny_pipelines import PIPELINES

from solverkit import SolverKitScheduler, restore_native
from solverkit.errors import GridError, OptionError, ScheduleError, SolverKitError, UnknownNameError


def shown_keys(config):
    return {key: value for key, value in config.items() if not key.startswith("_")}


def test_a_config_keeps_the_defaults_of_its_class():
    heun = SolverKitScheduler.from_config({"_class_name": "HeunDiscreteScheduler"})
    assert heun.config.beta_end == 0.012 and heun.init_noise_sigma > 1
    ddim = SolverKitScheduler.from_config({"_class_name": "DDIMScheduler"})
    assert ddim.config.beta_end == 0.02 and ddim.config.clip_sample and ddim.init_noise_sigma == 1
    sd3 = SolverKitScheduler.from_config(diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0).config)
    assert sd3.config.native_class == "FlowMatchEulerDiscreteScheduler" and sd3.config.shift == 3.0


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_native_configs_come_back(name):
    native = PIPELINES[name]().pipe.scheduler
    ours = SolverKitScheduler.from_config(native.config, sampler="unipc", grid="karras")
    again = SolverKitScheduler.from_config(json.loads(ours.to_json_string()), sampler="heun")
    assert again.config.native_class == ours.config.native_class and again.config.sampler == "heun"
    assert again.config.grid == "karras" and again.config.sampler_options == {}
    for scheduler in (ours, again):
        for key, value in native.config.items():
            if not key.startswith("_"):
                assert scheduler.config[key] == value, key
    if ours.config.native_class == type(native).__name__ and not name.startswith("stable-audio"):
        for back in (type(native).from_config(dict(ours.config)), again.native()):
            assert type(back) is type(native)
            assert shown_keys({k: v for k, v in back.config.items() if k in native.config}) == shown_keys(native.config)


def test_flow_flags_of_multistep_classes_are_shown_where_such_a_class_lays_out():
    """Pipelines that see use_flow_sigmas drop their own sigmas, and the class lays out its own; X.from_config needs it."""
    config = diffusers.UniPCMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
    ).config
    ours, euler, named = (
        SolverKitScheduler.from_config(config, **own) for own in ({}, {"sampler": "euler"}, {"grid": "flow"})
    )
    for scheduler, shown in ((ours, True), (euler, False), (named, False)):
        assert scheduler.config["use_flow_sigmas"] is True and scheduler.config.use_flow_sigmas is shown
        assert diffusers.UniPCMultistepScheduler.from_config(scheduler.config).config.use_flow_sigmas is True
        assert copy.deepcopy(scheduler).config.use_flow_sigmas is shown
    plain = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0).config
    assert SolverKitScheduler.from_config(plain, sampler="unipc").config.use_flow_sigmas is True


def test_changed_attributes_of_a_config_are_seen():
    scheduler = SolverKitScheduler(sampler="ddim", timestep_spacing="trailing", **BETAS)
    scheduler.config.timestep_spacing = "leading"  # pipelines do this; the item stays
    scheduler.set_timesteps(10)
    assert scheduler.timesteps.tolist() == [900 - 100 * i for i in range(10)]
    scheduler.register_to_config(steps_offset=1)
    scheduler.set_timesteps(10)


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: make("dpmpp2m"), UnknownNameError, "dpmpp-2m"),
        (lambda: make("dpm-solver-12"), OptionError, "pull-only"),
        (lambda: make("unipc", sampler_options={"ordr": 2}), OptionError, "order"),
        (lambda: make("unipc", grid="karas"), UnknownNameError, "karras"),
        (lambda: make(beta_schedule="zigzag"), ScheduleError, "zigzag"),
        (lambda: make(native_class="DDIM"), ScheduleError, "DDIM"),
        (lambda: SolverKitScheduler.from_config({"a": 1}), ScheduleError, "_class_name"),
        (lambda: SolverKitScheduler.from_config("folder"), OptionError, "from_pretrained"),
        (lambda: SolverKitScheduler.from_config(make().config, samplr="heun"), OptionError, "sampler"),
        (lambda: SolverKitScheduler.from_config({"_class_name": "SCMScheduler"}), ScheduleError, "SCMScheduler"),
        (lambda: make(rescale_betas_zero_snr=True), ScheduleError, "v_prediction"),
        (lambda: make("heun").step(noise(), 0, noise()), SolverKitError, "set_timesteps"),
        (lambda: make()._begun(), SolverKitError, "set_timesteps"),
        (lambda: flow(use_dynamic_shifting=True).set_timesteps(4), GridError, "no mu"),
        (lambda: make(algorithm_type="sde-dpmsolver++"), TypeError, "algorithm_type"),
        (lambda: override(algorithm_type="sde-dpmsolver++"), OptionError, "dpmpp-2m-sde"),
        (lambda: override(solver_order=3), OptionError, "dpmpp-3m"),
        (lambda: override(eta=1.0), OptionError, "sampler_options"),
        (lambda: flow(stochastic_sampling=True), ScheduleError, "stochastic_sampling"),
        (lambda: make().set_timesteps(), GridError, "num_inference_steps"),
        (lambda: flow().set_timesteps(sigmas=[14.6, 3.0]), GridError, "another kind"),
        (lambda: flow().set_timesteps(sigmas=[0.2, 0.6]), GridError, "fall"),
        (lambda: make().set_timesteps(timesteps=[900, "x"]), GridError, "timesteps"),
        (lambda: flow().set_timesteps(timesteps=[900.0], sigmas=[0.9, 0.4]), GridError, "length"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said(build, error, words):
    with pytest.raises(error, match=words):
        build()


def override(**keys):
    return SolverKitScheduler.from_config(diffusers.DPMSolverMultistepScheduler(**BETAS).config, **keys)


def test_unknown_timesteps_take_the_nearest():
    scheduler = make()
    scheduler.set_timesteps(10)
    assert scheduler.index_for_timestep(0) == 9 and scheduler.index_for_timestep(torch.tensor(880)) == 1
    scheduler.step(noise(), 1, noise())
    assert scheduler.step_index == 10
    fresh = make(native_class="EulerDiscreteScheduler")
    assert torch.isfinite(fresh.scale_model_input(noise(), 0.0)).all()
    assert len(fresh) == len(fresh.timesteps) == len(fresh.sigmas) - 1 == 1000
    heun = make("heun")
    heun.set_timesteps(6)
    assert heun.index_for_timestep(float(heun.timesteps[2])) == 2


def test_saving_and_loading(tmp_path):
    pipe = PIPELINES["ddpm"]().pipe
    expected = dict(pipe.scheduler.config)
    pipe.scheduler = SolverKitScheduler.from_config(pipe.scheduler.config, sampler="unipc", sampler_options={"order": 2})
    pipe.save_pretrained(tmp_path / "ours")
    index = json.loads((tmp_path / "ours" / "model_index.json").read_text())
    assert index["scheduler"] == ["solverkit", "SolverKitScheduler"]
    code = (
        "import sys, solverkit; assert 'diffusers' not in sys.modules\n"
        "from diffusers import DDPMPipeline\n"
        f"pipe = DDPMPipeline.from_pretrained({str(tmp_path / 'ours')!r})\n"
        "assert pipe.scheduler.config.sampler == 'unipc' and pipe.scheduler.config.sampler_options == {'order': 2}\n"
        "pipe.set_progress_bar_config(disable=True)\n"
        "pipe(num_inference_steps=3, output_type='np')\n"
        "print(type(pipe.scheduler).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "SolverKitScheduler", done.stderr
    again = SolverKitScheduler.from_pretrained(tmp_path / "ours", subfolder="scheduler")
    assert again.config.sampler == "unipc"
    assert restore_native(pipe) is pipe and type(pipe.scheduler) is diffusers.DDPMScheduler
    assert shown_keys(pipe.scheduler.config) == shown_keys(expected)
    pipe.save_pretrained(tmp_path / "native")
    native = SolverKitScheduler.from_pretrained(tmp_path / "native", subfolder="scheduler", sampler="heun")
    assert native.config.native_class == "DDPMScheduler" and native.config.sampler == "heun"


def test_flow_shift_and_shift_are_one_thing():
    def sigmas(scheduler):
        scheduler.set_timesteps(4)
        return scheduler.sigmas

    wanted = sigmas(flow("unipc", shift=5.0))
    video = diffusers.UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0)
    for scheduler in (
        SolverKitScheduler.from_config(
            diffusers.FlowMatchEulerDiscreteScheduler().config, flow_shift=5.0, sampler="unipc"
        ),
        SolverKitScheduler.from_config(video.config, shift=5.0, sampler="unipc"),
        SolverKitScheduler.from_config(video.config, flow_shift=5.0, sampler="unipc"),
        SolverKitScheduler(native_class="UniPCMultistepScheduler", prediction_type="flow_prediction", shift=5.0),
    ):
        assert torch.equal(sigmas(scheduler), wanted)
    with pytest.raises(OptionError, match="flow_shift"):
        SolverKitScheduler.from_config(video.config, shift=5.0, flow_shift=4.0)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("RePaintScheduler", "resamples"),
        ("ScoreSdeVeScheduler", "step"),
    ],
)
def test_classes_that_do_something_else_are_refused(name, words):
    with pytest.raises(ScheduleError, match=words):
        SolverKitScheduler.from_config({"_class_name": name})
    with pytest.raises(ScheduleError, match=words):
        SolverKitScheduler.from_config(getattr(diffusers, name)().config)


@pytest.mark.parametrize("name", ["FlowMatchHeunDiscreteScheduler", "KDPM2DiscreteScheduler", "CogVideoXDDIMScheduler"])
def test_a_class_is_told_by_its_keys(name):
    assert SolverKitScheduler.from_config(getattr(diffusers, name)().config).config.native_class == name


def test_config_values_are_json_and_our_own():
    import numpy as np

    scheduler = make(trained_betas=np.linspace(1e-4, 0.02, 50), beta_schedule=None)
    assert len(scheduler.timesteps) == len(scheduler.sigmas) - 1 == 50
    copy.deepcopy(scheduler).set_timesteps(5)
    json.loads(scheduler.to_json_string())
    options = {"order": np.int64(1)}
    first = SolverKitScheduler.from_config(make().config, sampler="unipc", sampler_options=options)
    options["order"] = 3
    assert first.config.sampler_options == {"order": 1} and type(first.config.sampler_options["order"]) is int
    first.set_timesteps(6)
    x = loop(first, noise())
    first.config.sampler_options["order"] = 3  # seen by the next run
    first.set_timesteps(6)
    assert not torch.equal(loop(first, noise()), x)
    assert SolverKitScheduler.from_config(first.config, sampler_options={}).config.sampler_options == {}
    with pytest.raises(OptionError, match="JSON"):
        SolverKitScheduler.from_config(make().config, sampler_options={"order": object()})


def test_layouts_that_the_native_config_describes():
    for spacing in ("linspace", "leading", "trailing"):
        scheduler = SolverKitScheduler(
            native_class="EulerDiscreteScheduler", timestep_spacing=spacing, **BETAS
        )
        config = {**scheduler.config, "final_sigmas_type": "sigma_min"}
        scheduler = SolverKitScheduler.from_config(config)
        for n in (1, 5):
            scheduler.set_timesteps(n)
            assert scheduler.nfe == n and float(scheduler.sigmas[-1]) == pytest.approx(0.0292, abs=1e-3)
    one = flow(shift_terminal=0.1)
    with pytest.raises(GridError, match="nan"):  # 0 / 0 in the native class
        one.set_timesteps(1)


def test_a_detour_through_a_native_class():
    ours = SolverKitScheduler.from_config(diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0).config, sampler="heun")
    config = {**ours.config, "use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 5.0}
    native = diffusers.UniPCMultistepScheduler.from_config(config)
    native.register_to_config(_class_name="UniPCMultistepScheduler")
    back = SolverKitScheduler.from_config(native.config)
    assert back.config.native_class == "UniPCMultistepScheduler" and back.config.sampler == "heun"


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: make().set_timesteps(timesteps=[1500, 500]), GridError, "999"),
        (lambda: make().set_timesteps(timesteps=[500, -3]), GridError, "-3"),
        (lambda: flow().set_timesteps(timesteps=[1500.0]), GridError, "1000"),
        (lambda: make().set_timesteps(sigmas=[1000.0, 1.0]), GridError, "14.6"),
        (lambda: SolverKitScheduler(timestep_spacing="tralling"), OptionError, "tralling"),
        (lambda: begun(9), OptionError, "0 to 5"),
        (lambda: begun(-1), OptionError, "0 to 5"),
    ],
)
def test_what_also_cannot_be_done_is_said(build, error, words):
    with pytest.raises(error, match=words):
        build()


def begun(index):
    scheduler = make()
    scheduler.set_timesteps(6)
    scheduler.set_begin_index(index)


def test_steps_at_timesteps_that_are_no_loop():
    """Generic tests of schedulers step at 0, then at 1."""
    scheduler, x = make(timestep_spacing="leading"), noise()
    scheduler.set_timesteps(10)
    a, b = scheduler.step(x, 0, x).prev_sample, scheduler.step(x, 1, x).prev_sample
    assert a.shape == b.shape == x.shape
    assert scheduler.add_noise(x, x, [10, 20]).shape == x.shape


def test_other_default_devices_do_not_matter():
    with torch.device("meta"):
        scheduler = make()
        scheduler.set_timesteps(5, device="cpu")
    assert scheduler.sigmas.device.type == "cpu" and scheduler.alphas_cumprod.device.type == "cpu"
