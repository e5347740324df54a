"""The ComfyUI nodes of docs/examples, against stubs of what they call: comfy.samplers, comfy.model_sampling, comfy_api."""

from __future__ import annotations

import asyncio
import importlib.util
import math
import sys
import types
from pathlib import Path

import pytest
import torch

import solverkit as sk
from solverkit.errors import OptionError, UnknownNameError
from solverkit.problems import mixture

PACK = Path(__file__).parents[1] / "docs" / "examples" / "comfyui" / "__init__.py"


class KSAMPLER:
    """What ComfyUI's class does with a sampler function, from noise to samples."""

    def __init__(self, sampler_function, extra_options=None, inpaint_options=None):
        self.sampler_function, self.extra_options = sampler_function, extra_options or {}

    def sample(self, model_wrap, sigmas, extra_args, callback, noise):
        class ModelK:
            inner_model = model_wrap

            def __call__(self, x, sigma, denoise_mask=None, model_options=None, seed=None):
                return model_wrap(x, sigma, model_options, seed)

        noise = model_wrap.inner_model.model_sampling.noise_scaling(sigmas[0], noise)
        x = self.sampler_function(
            ModelK(), noise, sigmas, extra_args={**extra_args, "denoise_mask": None}, disable=True, **self.extra_options,
            callback=lambda info: callback(info["i"], info["denoised"], info["x"], len(sigmas) - 1),
        )  # fmt: skip
        return model_wrap.inner_model.model_sampling.inverse_noise_scaling(sigmas[-1], x)


class EPS:
    def noise_scaling(self, sigma, noise):
        return noise * sigma

    def inverse_noise_scaling(self, sigma, x):
        return x


class CONST(EPS):
    def inverse_noise_scaling(self, sigma, x):
        return x / (1 - sigma)


class ModelSamplingDiscrete(EPS):
    def __init__(self):
        vp = sk.VP("scaled_linear", 0.00085, 0.012)
        self.sigmas = torch.tensor([vp.ratio(t) for t in range(1000)])
        self.sigma_min, self.sigma_max = self.sigmas[0], self.sigmas[-1]


class ModelSamplingDiscreteFlow(CONST):
    shift = 3.0


class ModelSamplingFlux(CONST):
    shift = 1.15


class ModelSamplingContinuousEDM(EPS):
    sigma_min, sigma_max = torch.tensor(0.002), torch.tensor(120.0)


@pytest.fixture(scope="module")
def nodes():
    io = types.SimpleNamespace(ComfyNode=object, Schema=types.SimpleNamespace, NodeOutput=lambda *out: out)
    for kind in ("Combo", "String", "Model", "Int", "Float"):
        setattr(io, kind, types.SimpleNamespace(Input=lambda name, kind=kind, **said: (kind, name, said)))
    for kind in ("Sampler", "Sigmas"):
        setattr(io, kind, types.SimpleNamespace(Output=lambda kind=kind: kind))
    stubs = {
        "comfy": {}, "comfy.samplers": {"KSAMPLER": KSAMPLER}, "comfy_api": {},
        "comfy.model_sampling": {c.__name__: c for c in (CONST, ModelSamplingDiscrete, ModelSamplingFlux)},
        "comfy_api.latest": {"io": io, "ComfyExtension": object},
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, held in stubs.items():
            module = types.ModuleType(name)
            vars(module).update(held)
            patch.setitem(sys.modules, name, module)
            if "." in name:
                patch.setattr(sys.modules[name.partition(".")[0]], name.partition(".")[2], module, raising=False)
        spec = importlib.util.spec_from_file_location("solverkit_comfyui", PACK)
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "solverkit_comfyui", module)
        spec.loader.exec_module(module)
        yield module


def patcher(sampling):
    return types.SimpleNamespace(get_model_object={"model_sampling": sampling}.__getitem__)


def wrapped(sampling, schedule):
    """A guider of ComfyUI around an exact denoiser, and what it was told."""
    target, told = mixture(dim=4, modes=3, schedule=schedule), []

    class Guider:
        inner_model = types.SimpleNamespace(model_sampling=sampling)

        def __call__(self, x, sigma, model_options, seed):
            told.append((model_options, seed))
            return target(x.double(), target.schedule.at(float(sigma[0]))).to(x.dtype)

    return Guider(), target, told


def test_nodes_are_offered(nodes):
    extension = asyncio.run(nodes.comfy_entrypoint())
    sampler, sigmas = asyncio.run(extension.get_node_list())
    (kind, name, said), options = sampler.define_schema().inputs
    assert (kind, name, options[1]) == ("Combo", "sampler", "options")
    assert {"unipc", "dpmpp-2m-sde"} <= set(said["options"]) and not {"dps", "teleport", "auto"} & set(said["options"])
    assert sampler.define_schema().outputs == ["Sampler"] and sigmas.define_schema().outputs == ["Sigmas"]
    assert {"karras", "sgm-uniform", "flow"} <= set(sigmas.define_schema().inputs[1][2]["options"])


@pytest.mark.parametrize("flow", [False, True])
def test_a_run_is_that_of_sk_sample(nodes, flow):
    sampling, schedule = (ModelSamplingDiscreteFlow(), sk.Flow(shift=3.0)) if flow else (ModelSamplingDiscrete(), sk.EDM())
    (sigmas,) = nodes.SolverKitSigmas.execute(patcher(sampling), "flow" if flow else "karras", 6, 1.0, "")
    (sampler,) = nodes.SolverKitSampler.execute("dpmpp-2m-sde", "eta=0.5")
    guider, target, told = wrapped(sampling, schedule)
    noise, seen = torch.randn(2, 4, dtype=torch.float64), []
    extra = {"model_options": {"a": 1}, "seed": 5}
    x = sampler.sample(guider, sigmas, extra, lambda *said: seen.append((said[0], said[3])), noise)
    levels = sigmas.double().tolist()
    ours = sk.sample(target, "dpmpp-2m-sde", levels=levels, x=noise * levels[0], seed=5, eta=0.5).x
    assert float((x - ours).abs().max()) < 1e-6
    assert seen == [(i, 6) for i in range(6)] and told == [({"a": 1}, 5)] * 6


def test_sigmas_are_those_of_the_grid(nodes):
    def run(sampling, *said):
        return nodes.SolverKitSigmas.execute(patcher(sampling), *said)[0]

    discrete = ModelSamplingDiscrete()
    fifths = torch.cat([discrete.sigmas[[999, 799, 599, 399, 199]], torch.zeros(1)])
    assert torch.allclose(run(discrete, "simple", 5, 1.0, ""), fifths)
    assert len(run(discrete, "karras", 6, 0.5, "rho=5")) == 7
    assert torch.equal(run(discrete, "karras", 6, 0.5, "rho=5"), run(discrete, "karras", 12, 1.0, "rho=5")[-7:])
    assert run(discrete, "karras", 6, 0.0, "").numel() == 0
    assert float(run(ModelSamplingContinuousEDM(), "karras", 4, 1.0, "")[0]) == 120
    assert float(run(ModelSamplingDiscreteFlow(), "flow", 2, 1.0, "")[1]) == pytest.approx(0.75)
    e = math.exp(1.15)
    assert float(run(ModelSamplingFlux(), "flow", 2, 1.0, "")[1]) == pytest.approx(e / (1 + e))


def test_what_is_refused(nodes):
    with pytest.raises(OptionError, match="has no option 'etta'"):
        nodes.SolverKitSampler.execute("euler-ancestral", "etta=1")
    with pytest.raises(UnknownNameError, match="Did you mean 'unipc'"):
        nodes.SolverKitSampler.execute("unipcc", "")
    with pytest.raises(OptionError, match="has no option 'roh'"):
        nodes.SolverKitSigmas.execute(patcher(ModelSamplingDiscrete()), "karras", 4, 1.0, "roh=5")
