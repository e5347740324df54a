"""Loaders' keywords, parts of configs, and configs that go on to native classes: as the native classes have it."""

from __future__ import annotations

import json
import warnings

import diffusers
import pytest
import torch
from scheduler_loop import noise, run
from test_native_layouts import CLASSES
from tiny_pipelines import PIPELINES

from solverkit import SolverKitScheduler
from solverkit.errors import OptionError, ScheduleError, SolverKitError
from solverkit.files.diffusers_config import class_defaults
from solverkit.pipelines.peers import PEERS

SD15 = {
    "_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "beta_start": 0.00085, "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True,
    "steps_offset": 1, "trained_betas": None, "clip_sample": False,
}  # fmt: skip

KEYWORDS = [
    {"torch_dtype": torch.float16}, {"variant": "fp16"}, {"torch_dtype": "auto", "variant": None}, {"revision": "main"},
    {"local_files_only": True}, {"local_files_only": True, "revision": "fp16"}, {"device_map": None},
    {"device_map": "balanced"}, {"use_safetensors": True}, {"trust_remote_code": True}, {"trust_remote_code": False},
    {"low_cpu_mem_usage": True}, {"max_memory": {0: "1GB"}}, {"offload_folder": "x"}, {"cache_dir": "x"},
    {"force_download": False}, {"token": None}, {"proxies": None}, {"quantization_config": None}, {"from_flax": False},
    {"use_onnx": None}, {"provider": None}, {"sess_options": None}, {"output_loading_info": False}, {"mirror": None},
    {"custom_revision": None}, {"offload_state_dict": None}, {"disable_mmap": False}, {"dduf_entries": None},
    {"torch_dtype": torch.bfloat16, "variant": "fp16", "use_safetensors": True, "local_files_only": True},
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    SolverKitScheduler.from_config(SD15, sampler="unipc", sampler_options={"order": 2}).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("keywords", KEYWORDS, ids=lambda k: "-".join(k))
def test_keywords_of_loaders_do_not_matter(folder, keywords):
    plain = SolverKitScheduler.from_pretrained(folder)
    loaded = SolverKitScheduler.from_pretrained(folder, **keywords)
    assert loaded.config == plain.config and loaded.config.sampler == "unipc"
    assert not set(keywords) & set(loaded.config)
    with_overrides = SolverKitScheduler.from_pretrained(folder, sampler="heun", use_karras_sigmas=True, **keywords)
    assert with_overrides.config.sampler == "heun" and with_overrides.config.use_karras_sigmas is True


def test_what_was_not_used_is_returned(folder):
    keywords = {"torch_dtype": torch.float16, "variant": "fp16", "local_files_only": True}
    scheduler, unused = SolverKitScheduler.from_pretrained(folder, return_unused_kwargs=True, sampler="ddim", **keywords)
    assert unused == {"torch_dtype": torch.float16, "variant": "fp16"} and scheduler.config.sampler == "ddim"
    scheduler, unused = SolverKitScheduler.from_config(SD15, return_unused_kwargs=True)
    assert unused == {} and isinstance(scheduler, SolverKitScheduler)


@pytest.mark.parametrize("key", ["samplr", "torch_type", "beta_stop", "order", "eta0", "use_karras_sigma", "karras"])
def test_unknown_keywords_are_refused(folder, key):
    for load in (SolverKitScheduler.from_pretrained, lambda _, **k: SolverKitScheduler.from_config(SD15, **k)):
        with pytest.raises(OptionError, match=f"no config key {key!r}"):
            load(folder, **{key: 1})


def test_a_loaders_keyword_is_none_of_from_config(folder):
    with pytest.raises(OptionError, match="torch_dtype"):
        SolverKitScheduler.from_config(SD15, torch_dtype=torch.float16)
    with pytest.raises(OptionError, match="no config key 'variant'"):
        SolverKitScheduler.from_config(SD15, variant="fp16")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_saved_pipeline_loads_in_any_dtype(tmp_path, dtype):
    tiny = PIPELINES["ddpm"]()
    tiny.pipe.scheduler = SolverKitScheduler.from_config(tiny.pipe.scheduler.config, sampler="unipc", grid="trailing")
    tiny.pipe.save_pretrained(tmp_path)
    loaded = diffusers.DiffusionPipeline.from_pretrained(tmp_path, torch_dtype=dtype, use_safetensors=True)
    assert type(loaded.scheduler) is SolverKitScheduler and loaded.unet.dtype == dtype
    configs = [{k: v for k, v in pipe.scheduler.config.items() if k[0] != "_"} for pipe in (loaded, tiny.pipe)]
    assert configs[0] == configs[1]
    if dtype is torch.bfloat16:  # numpy, where this pipeline's images go, has none
        return
    loaded.set_progress_bar_config(disable=True)
    images = loaded(num_inference_steps=2, output_type="np", generator=torch.Generator().manual_seed(0)).images
    assert images.shape == (1, 8, 8, 3) and bool((images == images).all())


# -- parts of configs ----------------------------------------------------------------------------------------------------

OF_VP = ["DDIMScheduler", "DDPMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler",
         "UniPCMultistepScheduler", "DEISMultistepScheduler", "HeunDiscreteScheduler", "LMSDiscreteScheduler",
         "PNDMScheduler", "KDPM2DiscreteScheduler", "EulerAncestralDiscreteScheduler"]  # fmt: skip
PARTS = [
    {}, {"beta_schedule": "scaled_linear"}, {"beta_start": 0.00085, "beta_end": 0.012}, {"num_train_timesteps": 500},
    {"prediction_type": "v_prediction"}, {key: value for key, value in SD15.items() if key[0] != "_"},
]  # fmt: skip


def sampler_of(name, family="vp"):
    return next(sampler for sampler, peer in PEERS.items() if peer.classes.get(family) == name)


def same_levels(native, ours, n=6):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        native.set_timesteps(n)
    ours.set_timesteps(n)
    assert torch.equal(ours.timesteps, native.timesteps)
    assert not hasattr(native, "sigmas") or torch.equal(ours.sigmas, native.sigmas)
    assert float(ours.init_noise_sigma) == pytest.approx(float(getattr(native, "init_noise_sigma", 1.0)), rel=1e-6)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: "-".join(part)[:40] or "empty")
@pytest.mark.parametrize("name", OF_VP)
def test_a_part_of_a_config_has_the_defaults_of_the_samplers_class(name, part):
    native = getattr(diffusers, name).from_config(dict(part))
    ours = SolverKitScheduler.from_config(dict(part), sampler=sampler_of(name))
    assert ours.config.native_class == name
    for key in class_defaults(name):
        assert ours.config[key] == native.config[key], key
    same_levels(native, ours)


@pytest.mark.parametrize("part", [{"shift": 3.0}, {"shift": 3.0, "num_train_timesteps": 500}])
@pytest.mark.parametrize("name", ["FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"])
def test_a_part_with_a_shift_is_a_flow(name, part):
    native = getattr(diffusers, name).from_config(dict(part))
    ours = SolverKitScheduler.from_config(dict(part), sampler=sampler_of(name, "flow"))
    assert ours.config.native_class == name and ours.config.shift == 3.0
    same_levels(native, ours)


@pytest.mark.parametrize("name", OF_VP)
def test_a_config_of_stable_diffusion_lacks_its_spacing(name):
    """Written before there was `timestep_spacing`: each class then takes its own default, not PNDM's "leading"."""
    native = getattr(diffusers, name).from_config(dict(SD15))
    ours = SolverKitScheduler.from_config(dict(SD15), sampler=sampler_of(name))
    assert ours.config.native_class == "PNDMScheduler"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        native.set_timesteps(20)
    ours.set_timesteps(20)
    assert torch.equal(ours.timesteps, native.timesteps)


# -- on to native classes ------------------------------------------------------------------------------------------------

SAID = {
    "vp": {"beta_schedule": "scaled_linear", "timestep_spacing": "trailing", "prediction_type": "v_prediction"},
    "flow": {"shift": 3.0}, "edm": {"sigma_max": 60.0},
}  # fmt: skip


def said(name, variant):
    """Keyword arguments of a class: none, or one of each kind that it has."""
    wanted = [part for part in SAID.values() for _ in range(variant) if name != "UnCLIPScheduler"]
    return {key: value for part in wanted for key, value in part.items() if key in class_defaults(name)}


def read_by(cls, config):
    """What a class's from_config hands its constructor."""
    diffusers.utils.logging.set_verbosity_error()
    given = cls.extract_init_dict(dict(config))[0]
    return {**class_defaults(cls.__name__), **given}


# one set of keys for two methods: a config of theirs that does not name its class is refused
TWINS = ("LCMScheduler", "TCDScheduler")


def named(writer):
    return {"native_class": writer} if writer in TWINS else {}


@pytest.mark.parametrize("variant", [0, 1])
@pytest.mark.parametrize("writer", CLASSES)
def test_a_detour_over_ours_is_none(writer, variant):
    """Reader.from_config(ours.config) is Reader.from_config(writer's config), for every reader."""
    config = getattr(diffusers, writer)(**said(writer, variant)).config
    ours = SolverKitScheduler.from_config(config, sampler="euler", **named(writer)).config
    for reader in CLASSES:
        cls = getattr(diffusers, reader)
        assert read_by(cls, ours) == read_by(cls, config), reader


@pytest.mark.parametrize("writer", CLASSES)
def test_a_saved_config_is_read_as_the_saved_native_one(writer, tmp_path):
    native = getattr(diffusers, writer)(**said(writer, 1))
    native.save_pretrained(tmp_path / "native")
    SolverKitScheduler.from_config(native.config, sampler="euler", **named(writer)).save_pretrained(tmp_path / "ours")
    native, ours = (
        cls.from_pretrained(tmp_path / folder).config
        for cls, folder in ((type(native), "native"), (SolverKitScheduler, "ours"))
    )
    assert json.loads((tmp_path / "ours" / "scheduler_config.json").read_text())["native_class"] == writer
    for reader in CLASSES:
        cls = getattr(diffusers, reader)
        assert read_by(cls, ours) == read_by(cls, native), reader


# -- keys that name a method ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "key", "value", "words"),
    [
        ("unipc", "algorithm_type", "dpmsolver++", "dpmpp-2m"),
        ("dpmpp-2m", "algorithm_type", "sde-dpmsolver++", "dpmpp-2m-sde"),
        ("dpmpp-2m", "solver_order", 3, "dpmpp-3m"), ("heun", "solver_order", 2, "sampler="),
        ("unipc", "euler_at_final", True, "euler_at_final"), ("euler", "solver_type", "bh1", "sampler_options"),
        ("dpmpp-2m", "skip_prk_steps", True, "pndm"), ("euler", "s_churn", 1.0, "heun"),
        ("ddim", "eta", 0.5, "sampler_options"),
        ("unipc", "predict_x0", False, "x_0"), ("unipc", "disable_corrector", [0], "corrector"),
    ],
)  # fmt: skip
def test_keys_of_other_methods_name_what_does_the_same(sampler, key, value, words):
    with pytest.raises(OptionError) as error:
        SolverKitScheduler.from_config(SD15, sampler=sampler, **{key: value})
    assert key in str(error.value) and words in str(error.value) and repr(value) in str(error.value)


@pytest.mark.parametrize(
    ("sampler", "key", "value", "option"),
    [
        ("unipc", "solver_order", 3, "order"), ("unipc", "solver_type", "bh1", "variant"),
        ("dpmpp-2m", "euler_at_final", True, "euler_at_final"), ("dpmpp-2m", "solver_type", "heun", "solver_type"),
        ("deis", "solver_order", 1, "order"), ("pndm", "skip_prk_steps", False, "start"),
        ("dpmpp-2m", "algorithm_type", "dpmsolver++", None), ("dpmpp-2m", "solver_order", 2, None),
    ],
)  # fmt: skip
def test_keys_of_the_own_method_are_read(sampler, key, value, option):
    keyed = SolverKitScheduler.from_config(SD15, sampler=sampler, **{key: value})
    plain = SolverKitScheduler.from_config(SD15, sampler=sampler)
    wanted = {"bh1": "bh1", False: "prk"}.get(value, value)
    optioned = SolverKitScheduler.from_config(SD15, sampler=sampler, sampler_options={option: wanted} if option else {})
    for scheduler in (keyed, optioned, plain):
        scheduler.register_to_config(final_sigmas_type="sigma_min")  # at 0 the last step is of first order anyway
    ends = [run(s, 16, noise(1, 4, 4, 4)) for s in (keyed, optioned, plain)]
    assert torch.equal(ends[0], ends[1]) and torch.equal(ends[0], ends[2]) == (option is None)


@pytest.mark.parametrize("key", ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"])
def test_keys_of_layouts_are_legal(key):
    scheduler = SolverKitScheduler.from_config(SD15, sampler="dpmpp-2m", **{key: True})
    native = diffusers.DPMSolverMultistepScheduler.from_config(SD15, **{key: True})
    same_levels(native, scheduler, 10)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"_class_name": "RePaintScheduler"}, "resamples between the steps"),
        ({"_class_name": "NoSuchScheduler"}, "NoSuchScheduler"), ({"strange_key": 1}, "strange_key"),
        ({**SD15, "beta_start": "low"}, "beta_start"), ({**SD15, "prediction_type": "mean"}, "prediction_type"),
        ({**SD15, "num_train_timesteps": 0}, "num_train_timesteps"), ({"shift": -1.0}, "shift=-1"),
        ({**SD15, "beta_schedule": "wavy"}, "wavy"), ({**SD15, "rescale_betas_zero_snr": True}, "zero terminal SNR"),
        (dict(diffusers.LCMScheduler().config), "LCMScheduler"), (dict(diffusers.TCDScheduler().config), "TCDScheduler"),
    ],
)  # fmt: skip
def test_the_reason_why_a_config_cannot_be_read(config, words):
    with pytest.raises(SolverKitError, match=words):
        SolverKitScheduler.from_config(config)


@pytest.mark.parametrize("given", [None, "folder", 3, [("a", 1)]])
def test_what_is_no_config(given):
    with pytest.raises(OptionError, match="from_config needs a config"):
        SolverKitScheduler.from_config(given)


def test_a_folder_without_a_scheduler_says_so(tmp_path):
    with pytest.raises(OSError, match="scheduler_config.json"):
        SolverKitScheduler.from_pretrained(tmp_path)
    (tmp_path / "scheduler_config.json").write_text(json.dumps({"_class_name": "RePaintScheduler"}), encoding="utf-8")
    with pytest.raises(ScheduleError, match="resamples"):
        SolverKitScheduler.from_pretrained(tmp_path)
