"""The ways in which pipelines and notebooks call a scheduler: numbers of any type, no set_timesteps, a start at the end."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch
from scheduler_loop import BETAS, TRACEABLE, flow, loop, make, network, noise
from test_native_layouts import CLASSES, own_sampler
from tiny_pipelines import PIPELINES

from solverkit import SolverKitScheduler
from solverkit.errors import GridError, OptionError, SolverKitError

WHOLE = [4, 4.0, np.int64(4), np.int32(4), np.float64(4), np.uint8(4), torch.tensor(4), torch.tensor(4.0), np.array(4)]
NONE = [
    2.5, True, False, 0, -1, "4", float("nan"), float("inf"), None, [4], (4,), 4j, np.float32(2.5), np.bool_(True),
    torch.tensor(2.5), torch.tensor(True), torch.tensor([4]), torch.tensor(-1), torch.tensor(float("nan")),
    np.array([4, 4]), {}, b"4", -4.0, 0.5,
]  # fmt: skip


@pytest.mark.parametrize("n", WHOLE, ids=repr)
@pytest.mark.parametrize("make_one", [make, flow], ids=["vp", "flow"])
def test_whole_numbers_of_any_type(n, make_one):
    scheduler, plain = make_one("unipc"), make_one("unipc")
    scheduler.set_timesteps(n)
    plain.set_timesteps(4)
    assert torch.equal(scheduler.timesteps, plain.timesteps) and scheduler.nfe == 4
    assert scheduler.num_inference_steps == 4 and type(scheduler.num_inference_steps) is int


@pytest.mark.parametrize("n", NONE, ids=lambda n: repr(n)[:24])
def test_what_is_no_number_of_steps(n):
    for scheduler in (make("unipc"), flow("euler"), make("ddim", grid="karras")):
        with pytest.raises(GridError, match="num_inference_steps"):
            scheduler.set_timesteps(n)
        assert scheduler.nfe is None and len(scheduler.timesteps) == 1000


@pytest.mark.parametrize("make_one", [make, flow], ids=["vp", "flow"])
@pytest.mark.parametrize("sampler", ["unipc", "heun", "euler-ancestral"])
def test_one_timestep_a_sample(sampler, make_one):
    runs = []
    for shape in ((), (1,), (2,)):
        scheduler = make_one(sampler)
        scheduler.set_timesteps(5)
        x, generator = noise() * scheduler.init_noise_sigma, torch.Generator().manual_seed(0)
        for t in scheduler.timesteps:
            output = network(scheduler.scale_model_input(x, t), t)
            x = scheduler.step(output, t.expand(shape), x, generator=generator, return_dict=False)[0]
        runs.append(x)
    assert torch.equal(runs[0], runs[1]) and torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("make_one", [make, flow], ids=["vp", "flow"])
def test_different_timesteps_of_the_samples_are_refused(make_one):
    scheduler, x = make_one("unipc"), noise()
    scheduler.set_timesteps(5)
    for at in (0, 1, 4):
        with pytest.raises(OptionError, match=r"2 different timesteps, one a sample.*of its own"):
            scheduler.step(x, torch.stack([scheduler.timesteps[at], scheduler.timesteps[at - 1]]), x)
    assert scheduler.step_index is None
    scheduler.step(x, scheduler.timesteps[:1].expand(2), x)
    assert scheduler.step_index == 1


# -- nobody called set_timesteps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("cls", ["DDPMScheduler", "DDIMScheduler"])
def test_the_notebook_loop_over_the_trained_timesteps(cls, spacing):
    """`for t in scheduler.timesteps: ...` as in DDPM's notebooks."""
    native = getattr(diffusers, cls)(num_train_timesteps=20, **BETAS, clip_sample=False, timestep_spacing=spacing)
    ours = SolverKitScheduler.from_config(native.config, sampler=cls[:4].lower())
    assert torch.equal(ours.timesteps, native.timesteps)
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    idiom = loop(ours, noise(), generator=generators[0])
    native.set_timesteps(20)
    expected = noise()
    for t in native.timesteps:
        step = native.step(network(expected, t), t, expected, generator=generators[1])
        expected = step.prev_sample
    assert float((idiom - expected).norm() / expected.norm()) < 3e-5


@pytest.mark.parametrize("sampler", ["euler", "dpmpp-2m", "unipc", "euler-ancestral", "ddpm", "lms", "deis"])
@pytest.mark.parametrize("kind", ["vp", "sigma", "flow"])
def test_the_loop_without_set_timesteps_is_that_of_all_trained_timesteps(sampler, kind):
    if kind == "flow":
        native = diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=20, shift=2.0)
    else:
        cls = diffusers.EulerDiscreteScheduler if kind == "sigma" else diffusers.DDPMScheduler
        native = cls(num_train_timesteps=20, **BETAS, **({"clip_sample": False} if kind == "vp" else {}))
    first = SolverKitScheduler.from_config(native.config, sampler=sampler)
    before = first.init_noise_sigma
    bare = loop(first, noise() * before, generator=torch.Generator().manual_seed(0))
    second = SolverKitScheduler.from_config(native.config, sampler=sampler)
    if kind == "flow":
        t = torch.linspace(1, 1 / 20, 20)
        second.set_timesteps(timesteps=20 * (2 * t / (1 + t)))
    else:
        second.set_timesteps(timesteps=list(range(19, -1, -1)))
    assert float(before) == pytest.approx(float(second.init_noise_sigma), rel=1e-6)
    called = loop(second, noise() * second.init_noise_sigma, generator=torch.Generator().manual_seed(0))
    assert float((bare - called).norm() / called.norm()) < 1e-5
    assert first.step_index == 20 and torch.equal(first.timesteps, second.timesteps)


@pytest.mark.parametrize("sampler", ["heun", "kdpm2", "midpoint", "rk4", "pndm", "dpmpp-2s", "dpm-solver-3", "dpmpp-sde"])
@pytest.mark.parametrize("make_one", [make, flow], ids=["vp", "flow"])
def test_samplers_of_several_evaluations_ask_for_set_timesteps(sampler, make_one):
    """A loop over the trained timesteps would ask the network at other levels than the sampler does."""
    scheduler, x = make_one(sampler, num_train_timesteps=20), noise()
    shown = scheduler.timesteps
    with pytest.raises(SolverKitError, match=r"set_timesteps\(num_inference_steps\)"):
        scheduler.step(x, shown[0], x)
    assert scheduler.timesteps is shown and scheduler.nfe is None
    scheduler.set_timesteps(4)
    loop(scheduler, x * scheduler.init_noise_sigma, generator=torch.Generator().manual_seed(0))


def test_a_second_loop_without_set_timesteps_runs_again():
    scheduler = make("ddim", num_train_timesteps=20)
    loop(scheduler, noise())
    assert torch.equal(loop(scheduler, noise()), loop(make("ddim", num_train_timesteps=20), noise()))


# -- init_noise_sigma, nfe -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSES)
def test_init_noise_sigma_is_that_of_the_native_class(name):
    native = getattr(diffusers, name)()
    ours = SolverKitScheduler.from_config({**native.config, "_class_name": name}, sampler=own_sampler(name))
    exact = 1e-4 if name == "SASolverScheduler" else 1e-6  # no sampler here is SASolver: Euler starts at sigma_max alpha
    assert hasattr(ours, "nfe") and hasattr(ours, "order") and hasattr(ours, "init_noise_sigma")
    for begun in (False, True):
        if begun:
            native.set_timesteps(7)
            ours.set_timesteps(7)
        elif not hasattr(native, "init_noise_sigma"):
            continue
        expected = getattr(native, "init_noise_sigma", 1.0)
        assert type(ours.init_noise_sigma) is type(expected), begun
        assert float(ours.init_noise_sigma) == pytest.approx(float(expected), rel=exact), begun
    if isinstance(expected, torch.Tensor):
        assert ours.init_noise_sigma.dtype == expected.dtype and ours.init_noise_sigma.shape == expected.shape


def test_before_set_timesteps_nothing_raises():
    for scheduler in (make(), flow()):
        for name in ("nfe", "step_index", "_step_index", "begin_index", "_begin_index"):
            assert hasattr(scheduler, name) and getattr(scheduler, name) is None
        assert scheduler.num_inference_steps is None and scheduler.order == 1 and len(scheduler) == 1000
        scheduler.set_begin_index(3)  # pipelines call it before a run; the run forgets it
        scheduler.set_timesteps(4)
        assert scheduler.begin_index is None


# -- strength of less than one step --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["unipc", "dpmpp-2m", "heun", "rk4"])
def test_a_strength_of_less_than_a_step_is_named(sampler):
    tiny = PIPELINES["sd-img2img"]()
    config = tiny.pipe.scheduler.config
    tiny.pipe.scheduler = SolverKitScheduler.from_config(config, sampler=sampler)
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(SolverKitError, match="strength"):
        tiny.pipe(**{**tiny.inputs, "strength": 0.1}, num_inference_steps=5, generator=generator)
    images = tiny.pipe(**{**tiny.inputs, "strength": 0.5}, num_inference_steps=5, generator=generator).images
    assert torch.isfinite(images).all()


@pytest.mark.parametrize("sampler", [name for name in TRACEABLE if name != "teleport"])
def test_begin_indices_behind_the_last_timestep(sampler):
    scheduler = make(sampler)
    scheduler.set_timesteps(6)
    for index in (len(scheduler.timesteps), len(scheduler.timesteps) + 3, -1):
        with pytest.raises(OptionError, match="strength"):
            scheduler.set_begin_index(index)
    assert scheduler.begin_index is None
    scheduler.set_begin_index(len(scheduler.timesteps) - 1)
