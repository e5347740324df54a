"""SolverKitScheduler under the contracts of servers, by stubs of their public code.

What is stubbed, and where it was read: `RequestScopedPipeline` of huggingface/diffusers, examples/server-async/utils at
6dda0ecf67a5; vllm-omni 0.30.0 (diffusion: registry.py, models/qwen_image/pipeline_qwen_image.py, distributed);
sglang 0.5.23 (multimodal_gen/runtime: models/registry.py, loader/component_loaders/scheduler_loader.py, pipelines_core).
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import inspect
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from tiny_pipelines import PIPELINES

from solverkit import SolverKitScheduler
from solverkit.errors import OptionError, UnknownNameError

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
QWEN = {"shift": 1.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 0.9, "shift_terminal": 0.02}


# diffusers: a pipeline of its own for each request


class AsyncScheduler:
    """What the example puts round a scheduler: all attributes are those inside."""

    def __init__(self, scheduler):
        super().__setattr__("scheduler", scheduler)

    def __getattr__(self, name):
        return getattr(super().__getattribute__("scheduler"), name)

    def __setattr__(self, name, value):
        setattr(self.scheduler, name, value)

    def clone_for_request(self, num_inference_steps, device=None):
        local = copy.deepcopy(self.scheduler)
        local.set_timesteps(num_inference_steps=num_inference_steps, device=device)
        return AsyncScheduler(local)


class RequestScoped:
    """The example's life of a request: a clone with its timesteps, a copy of that, and a shallow copy of the pipeline."""

    def __init__(self, pipe):
        self.base, self.shared = pipe, False
        pipe.scheduler = AsyncScheduler(pipe.scheduler)

    def generate(self, num_inference_steps, **inputs):
        try:
            local = self.base.scheduler.clone_for_request(num_inference_steps=num_inference_steps)
        except Exception:
            local = copy.deepcopy(self.base.scheduler)
        pipe = copy.copy(self.base)
        try:
            own = copy.deepcopy(local.scheduler)  # async_retrieve_timesteps(..., return_scheduler=True)
            own.set_timesteps(num_inference_steps, device=None)
            pipe.scheduler = AsyncScheduler(own)
        except Exception:
            self.shared = True  # "proceeding without replacing scheduler"
        return pipe(num_inference_steps=num_inference_steps, **inputs)


@pytest.mark.parametrize(("tiny", "sampler"), [("sdxl", "dpmpp-2m-sde"), ("sd3", "unipc"), ("sd3", "heun")])
def test_request_scoped_pipelines_share_one_scheduler(tiny, sampler):
    made = PIPELINES[tiny]()
    made.pipe.scheduler = SolverKitScheduler.from_config(made.pipe.scheduler.config, sampler=sampler)
    requests = [(steps, seed) for seed, steps in enumerate((2, 3, 4, 5) * 2)]

    def alone(steps, seed):
        pipe = copy.copy(made.pipe)
        pipe.scheduler = copy.deepcopy(made.pipe.scheduler)
        return image(pipe(num_inference_steps=steps, **made.inputs, generator=torch.Generator().manual_seed(seed)))

    def image(output):
        return torch.as_tensor(getattr(output, made.output))

    expected = [alone(*request) for request in requests]
    server = RequestScoped(made.pipe)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(
            lambda r: image(server.generate(r[0], **made.inputs, generator=torch.Generator().manual_seed(r[1]))), requests
        ))  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(found, expected))
    assert server.base.scheduler.scheduler.nfe is None  # the shared one was never stepped, nor given timesteps
    assert not server.shared


@pytest.mark.parametrize("own", [True, False])
def test_a_dynamic_shift_leaves_request_scoped_pipelines_one_scheduler_for_all(own):
    """The clone gets timesteps without mu, which every class with a dynamic shift refuses; one request at a time runs."""
    made = PIPELINES["flux"]()
    if own:
        made.pipe.scheduler = SolverKitScheduler.from_config(made.pipe.scheduler.config, sampler="unipc")
    server = RequestScoped(made.pipe)
    assert torch.isfinite(torch.as_tensor(getattr(server.generate(3, **made.inputs), made.output))).all() and server.shared


# a network without a pipeline, and one request as a server drives it


def velocity(x, t):
    return torch.tanh(x) * (0.5 + t / 1000)


def plugin(name, monkeypatch):
    """An example module, imported by its name as a server's plugin is."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)


def modules(monkeypatch, **contents):
    """Stub modules of a server; `a__b` is a.b."""
    for path, members in contents.items():
        path = path.replace("__", ".")
        parts = path.split(".")
        for i in range(1, len(parts)):
            monkeypatch.setitem(sys.modules, ".".join(parts[:i]), types.ModuleType(".".join(parts[:i])))
        module = types.ModuleType(path)
        module.__dict__.update(members)
        monkeypatch.setitem(sys.modules, path, module)


# vllm-omni 0.30.0


class QwenImagePipeline:
    """Its scheduler in its own code; one request after `prepare_encode` has a deep copy, made behind set_timesteps."""

    def __init__(self, *, od_config, prefix=""):
        self.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**od_config)

    def prepare_encode(self, seed, steps):
        sigmas, mu = np.linspace(1.0, 1 / steps, steps), 0.6 + 0.01 * self.scheduler.config.get("base_shift", 0.5)
        assert "sigmas" in inspect.signature(self.scheduler.set_timesteps).parameters
        self.scheduler.set_timesteps(sigmas=sigmas, device=None, mu=mu)
        state = types.SimpleNamespace(timesteps=self.scheduler.timesteps, step_index=0)
        state.scheduler = copy.deepcopy(self.scheduler)
        state.scheduler.set_begin_index(0)
        state.latents = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(seed))
        return state

    def step_scheduler(self, state):
        t = state.timesteps[state.step_index]
        noise_pred = velocity(state.latents, t)
        state.latents = state.scheduler.step(noise_pred, t, state.latents, return_dict=False)[0]
        state.step_index += 1


@pytest.fixture
def vllm_omni(monkeypatch):
    registered = {}
    stub = types.ModuleType("pipeline_qwen_image")
    own = {"QwenImagePipeline": QwenImagePipeline, "get_qwen_image_post_process_func": lambda od_config: "theirs"}
    stub.__dict__.update(own)
    paths = {name: {name: QwenImagePipeline} for name in ("FluxPipeline", "StableDiffusion3Pipeline", "ZImagePipeline")}
    modules(
        monkeypatch,
        vllm_omni__diffusion__registry={
            "register_diffusion_model": lambda arch, module, name: registered.update({arch: (module, name)})
        },
        vllm_omni__diffusion__models__flux__pipeline_flux=paths["FluxPipeline"],
        vllm_omni__diffusion__models__sd3__pipeline_sd3=paths["StableDiffusion3Pipeline"],
        vllm_omni__diffusion__models__z_image__pipeline_z_image=paths["ZImagePipeline"],
        vllm_omni__diffusion__models__qwen_image__pipeline_qwen_image=own,
    )
    return registered


def served(pipeline, requests, together):
    """The ends of requests: each step by step, one after the other or in turns."""
    states, ends = [], []
    for seed, steps in requests:
        states.append(pipeline.prepare_encode(seed, steps))
        if not together:
            while states[-1].step_index < len(states[-1].timesteps):
                pipeline.step_scheduler(states[-1])
    while any(s.step_index < len(s.timesteps) for s in states):
        for state in states:
            if state.step_index < len(state.timesteps):
                pipeline.step_scheduler(state)
    ends += [state.latents for state in states]
    return ends


@pytest.mark.parametrize("sampler", ["unipc:order=3", "dpmpp-2m", "heun", "euler"])
def test_vllm_omni_steps_eight_requests_in_turns(vllm_omni, monkeypatch, sampler):
    monkeypatch.setenv("SOLVERKIT_SAMPLER", sampler)
    plugin("vllm_omni_plugin", monkeypatch).register()
    module, name = vllm_omni["QwenImagePipeline"]
    cls = getattr(importlib.import_module(module), name)
    assert issubclass(cls, QwenImagePipeline) and cls.__name__ == "QwenImagePipeline" and len(vllm_omni) == 4
    assert sys.modules[module].get_qwen_image_post_process_func({}) == "theirs"
    pipeline = cls(od_config=QWEN)
    requests = [(seed, (5, 7, 9, 4)[seed % 4]) for seed in range(8)]
    alone, together = served(pipeline, requests, False), served(pipeline, requests, True)
    assert all(torch.equal(a, b) for a, b in zip(alone, together)) and all(torch.isfinite(a).all() for a in alone)
    native = served(QwenImagePipeline(od_config=QWEN), requests, True)
    error = max(float((a - b).abs().max()) for a, b in zip(alone, native))
    assert error < 1e-5 if sampler == "euler" else error > 1e-3


def test_vllm_omni_plugin_tells_a_wrong_sampler(vllm_omni, monkeypatch):
    monkeypatch.setenv("SOLVERKIT_SAMPLER", "nosuch")
    module = plugin("vllm_omni_plugin", monkeypatch)
    with pytest.raises(UnknownNameError, match="nosuch"):
        module.QwenImagePipeline(od_config=QWEN)
    with pytest.raises(AttributeError, match="nothing_of_theirs"):
        module.nothing_of_theirs


# sglang 0.5.23


class Registry:
    """A registry of classes by name, lazily imported from "module:class"."""

    def __init__(self):
        self.registered = {}

    def register_model(self, name, cls):
        assert len(cls.split(":")) == 2
        self.registered[name] = cls

    def resolve_model_cls(self, name):
        module, attribute = self.registered[name].split(":")
        return getattr(importlib.import_module(module), attribute)


def load_scheduler(registry, config, override=None, flow_shift=None):
    """The loader: the class of the override or of the config, the keys that its constructor takes, the shift."""
    written = config.pop("_class_name")
    cls = registry.resolve_model_cls(override or written)
    parameters = inspect.signature(cls.__init__).parameters
    if not any(p.kind == inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        config = {key: value for key, value in config.items() if key in parameters or key.startswith("_")}
    scheduler = cls(**config)
    if flow_shift is not None:
        scheduler.set_shift(flow_shift)
    return scheduler


def denoised(template, seed, steps, isolate):
    """One request: its scheduler, its timesteps, what the stage resets, and the loop."""
    scheduler = copy.deepcopy(template) if isolate else template
    arguments = {"mu": 0.7} if "mu" in inspect.signature(scheduler.set_timesteps).parameters else {}
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps).tolist(), device="cpu", **arguments)
    assert len(scheduler.timesteps) - steps * scheduler.order >= -1 and scheduler.config.num_train_timesteps == 1000
    for name, value in (("_step_index", None), ("_begin_index", None), ("lower_order_nums", 0), ("last_sample", None)):
        if hasattr(scheduler, name):
            setattr(scheduler, name, value)
    scheduler.set_begin_index(0)
    latents = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(seed))
    given = {"generator": torch.Generator().manual_seed(seed), "eta": 0.0, "rollout": False}
    extra = {key: value for key, value in given.items() if key in inspect.signature(scheduler.step).parameters}
    for t in scheduler.timesteps:
        noise_pred = velocity(scheduler.scale_model_input(latents, t), t)
        latents = scheduler.step(model_output=noise_pred, timestep=t, sample=latents, **extra, return_dict=False)[0]
    return latents


@pytest.fixture
def sglang(monkeypatch):
    registry = Registry()
    modules(monkeypatch, sglang__multimodal_gen__runtime__models__registry={"ModelRegistry": registry})
    monkeypatch.setenv("SGLANG_EXTERNAL_MODEL_PACKAGE", "sglang_plugin")
    plugin("sglang_plugin", monkeypatch)
    return registry


def written(**changes):
    """scheduler_config.json of a flow-matching checkpoint."""
    return dict(diffusers.FlowMatchEulerDiscreteScheduler(**{**QWEN, **changes}).config) | {
        "_class_name": "FlowMatchEulerDiscreteScheduler"
    }


@pytest.mark.parametrize("sampler", ["unipc:order=3", "euler-ancestral", "euler"])
def test_sglang_loads_it_by_name_and_runs_requests_in_threads(sglang, monkeypatch, sampler):
    monkeypatch.setenv("SOLVERKIT_SAMPLER", sampler)
    template = load_scheduler(sglang, written(), override="SolverKitScheduler")
    assert isinstance(template, SolverKitScheduler)
    assert template.config["native_class"] == "FlowMatchEulerDiscreteScheduler"
    requests = [(seed, (5, 7, 9, 4)[seed % 4]) for seed in range(8)]
    alone = [denoised(template, *request, isolate=False) for request in requests]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda r: denoised(template, *r, isolate=True), requests))
    assert all(torch.equal(a, b) for a, b in zip(alone, together))
    if sampler == "euler":
        native = diffusers.FlowMatchEulerDiscreteScheduler(**QWEN)
        native.scale_model_input = lambda sample, timestep: sample  # their copy of the class has it
        assert torch.allclose(alone[0], denoised(native, *requests[0], isolate=True), atol=1e-5)


def test_sglang_sets_a_shift(sglang, monkeypatch):
    monkeypatch.setenv("SOLVERKIT_SAMPLER", "euler")
    plain = {"use_dynamic_shifting": False, "shift_terminal": None}
    template = load_scheduler(sglang, written(**plain, shift=1.0), "SolverKitScheduler", flow_shift=5.0)
    native = diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0)
    for scheduler in (template, native):
        scheduler.set_timesteps(6)
    assert torch.allclose(template.sigmas, native.sigmas, atol=1e-6)
    with pytest.raises(OptionError, match="on none"):
        SolverKitScheduler.from_config(diffusers.DDIMScheduler().config).set_shift(3.0)


def test_sglang_loads_a_saved_scheduler_without_an_override(sglang, monkeypatch):
    monkeypatch.delenv("SOLVERKIT_SAMPLER", raising=False)
    saved = dict(SolverKitScheduler.from_config(written(), sampler="unipc", sampler_options={"order": 3}).config)
    loaded = load_scheduler(sglang, {**saved, "_class_name": "SolverKitScheduler"})
    assert (loaded.config["sampler"], loaded.config["sampler_options"]) == ("unipc", {"order": 3})
    assert torch.equal(denoised(loaded, 0, 5, True), denoised(SolverKitScheduler.from_config(saved), 0, 5, True))
