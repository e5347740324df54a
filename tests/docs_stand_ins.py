"""What the blocks of a page take for granted: names that stand for the reader's own network, data and pipeline.

A page's function gives the names that its blocks begin with; what it takes from the network or would be slow, it replaces
on the modules themselves (`patch`, a MonkeyPatch). A page that is not here begins with nothing.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import huggingface_hub
import numpy
import pytest
import test_modular
import torch
from tiny_stable_diffusion import stable_diffusion

import solverkit as sk
import solverkit.registry.find
from solverkit.commands.plugin_template import TEMPLATE
from solverkit.foreign import released
from solverkit.registry.registry import build_registry, load_plugins

ROOT = Path(__file__).parents[1]
FULL = os.environ.get("SOLVERKIT_PROOFS") == "full"
Names = dict[str, Any]


def blobs(*shape: int) -> Any:
    """An exact denoiser of two Gaussian blobs, in the place of a network of that shape."""
    size = int(torch.tensor(shape).prod())
    means = torch.randn(2, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    eye = torch.eye(size, dtype=torch.float64).expand(2, -1, -1)
    variances = torch.full((2, size), 0.1, dtype=torch.float64)
    target = sk.problems.GaussianMixture(torch.full((2,), 0.5), means, eye, variances, shape=shape)
    return sk.problems.ExactDenoiser(target, sk.VP())


def few(patch: pytest.MonkeyPatch, owner: Any, name: str, **most: int) -> None:
    """Let a function run as it is written, but with at most so many samples, unless SOLVERKIT_PROOFS=full."""
    if FULL:
        return
    real = getattr(owner, name)

    @functools.wraps(real)
    def fewer(*given: Any, **options: Any) -> Any:
        return real(*given, **{k: min(v, most[k]) if k in most and v else v for k, v in options.items()})

    patch.setattr(owner, name, fewer)


def pair(patch: pytest.MonkeyPatch) -> Names:
    """The bundled networks, two samples at a time."""
    few(patch, sk, "sample", num_samples=2, nfe=6)
    return {"sk": sk}


def readme(patch: pytest.MonkeyPatch) -> Names:
    few(patch, sk, "sample", num_samples=2)
    return {"pipe": stable_diffusion(diffusers.StableDiffusionPipeline).pipe}


def benchmarks(patch: pytest.MonkeyPatch) -> Names:
    def my_sampler(model: Any, x: Any, grid: Any, noise: Any) -> Any:
        for s, t in grid.steps():
            x = x + (t - s) * (x - model(x, s)) / s
        return x

    return {"sk": sk, "denoiser": blobs(4), "my_sampler": my_sampler}


class Prompted:
    """A pipeline without a text encoder that is called with a prompt."""

    def __init__(self) -> None:
        self.pipe, self.inputs, *_ = stable_diffusion(diffusers.StableDiffusionPipeline)

    def __call__(self, prompt: str, **given: Any) -> Any:
        if "latents" in given:
            given["latents"] = given["latents"][..., :8, :8]  # of the tiny network's size
        return self.pipe(**{**self.inputs, **given})

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "scheduler":
            self.pipe.scheduler = value
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pipe, name)


class Blocks:
    """Modular blocks without encoders and decoder; their pipeline comes with tiny components and fixed inputs."""

    def __init__(self, own: Any = None) -> None:
        self.own = test_modular.blocks("sdxl") if own is None else own

    def init_pipeline(self, repo: str) -> Any:
        pipe, inputs = test_modular.modular("sdxl", self.own)

        def run(prompt: str, num_inference_steps: int, output: str, **given: Any) -> Any:
            output = "latents" if output == "images" else output
            return pipe(**inputs, num_inference_steps=4, output=output, **given)

        class Pipeline:
            __call__ = staticmethod(run)
            load_components = staticmethod(lambda: None)
            update_components = staticmethod(pipe.update_components)
            scheduler = pipe.scheduler

        return Pipeline()


def pipelines(patch: pytest.MonkeyPatch) -> Names:
    real = sk.pulled
    patch.setattr(sk, "pulled", lambda blocks, sampler: Blocks(real(blocks.own, sampler)))
    patch.setattr(diffusers.StableDiffusionPipeline, "from_pretrained", lambda name: Prompted())
    return {"sk": sk, "prompt": "a lighthouse", "repo": "user/repo", "StableDiffusionXLAutoBlocks": Blocks}


def serving(patch: pytest.MonkeyPatch) -> Names:
    return {"shared": Prompted().pipe}


def imputation(patch: pytest.MonkeyPatch) -> Names:
    few(patch, sk, "impute", samples=8, nfe=6)
    return {}


def inverse(patch: pytest.MonkeyPatch) -> Names:
    few(patch, sk, "sample", num_samples=2, steps=4, nfe=6)
    return {}


def model_statistics(patch: pytest.MonkeyPatch) -> Names:
    few(patch, sk.ModelStats, "measured", samples=8, nodes=12)
    return {}


class CompVisDenoiser:
    """k_diffusion.external's of a network of epsilon: sigma to its timestep by log sigma, the state to unit variance."""

    def __init__(self, model: Any) -> None:
        self.model, self.logs = model, ((1 - model.alphas_cumprod) / model.alphas_cumprod).log() / 2

    def get_sigmas(self, n: int) -> Any:
        t = torch.linspace(999, 0, n)
        low, high = self.logs[t.floor().long()], self.logs[t.ceil().long()]
        return torch.cat([torch.lerp(low, high, t.frac()).exp(), torch.zeros(1)])

    def __call__(self, x: Any, sigma: Any, **inputs: Any) -> Any:
        t = torch.as_tensor(numpy.interp(sigma.log(), self.logs, range(1000)))
        s = sigma.view(-1, 1, 1, 1)
        return x - s * self.model.apply_model(x / (1 + s**2).sqrt(), t, **inputs)


def coming_from(patch: pytest.MonkeyPatch) -> Names:
    external = types.SimpleNamespace(CompVisDenoiser=CompVisDenoiser)
    patch.setitem(sys.modules, "k_diffusion.external", external)
    patch.setitem(sys.modules, "k_diffusion.sampling", types.SimpleNamespace(**released.k_diffusion_functions()))
    return {}


def score(patch: pytest.MonkeyPatch) -> Names:
    patch.setattr(sk, "load", lambda name: blobs(1, 4, 4))
    images = -torch.ones(2, 1, 4, 4)
    mask = torch.ones(1, 4, 4)
    mask[..., 2:] = 0
    return {"images": images, "mask": mask, "blur": lambda x: x.mean((2, 3)), "blurred": torch.zeros(2, 1)}


def systems(patch: pytest.MonkeyPatch) -> Names:
    few(patch, sk, "sample", num_samples=2)
    return {"net": lambda x, times, mask: x, "mask": torch.ones(1, 20), "known_edges": lambda x, level, noise: x}


def tokens(patch: pytest.MonkeyPatch) -> Names:
    few(patch, sk, "sample", num_samples=2)

    class Checkpoint(torch.nn.Module):
        config = types.SimpleNamespace(model_type="llada", vocab_size=126464)

        def forward(self, input_ids: Any) -> Any:
            return types.SimpleNamespace(logits=torch.zeros(*input_ids.shape, 126464))

    def from_pretrained(name: Any, trust_remote_code: bool) -> Any:
        return Checkpoint()

    transformers = types.SimpleNamespace(AutoModel=types.SimpleNamespace(from_pretrained=from_pretrained))
    return {"transformers": transformers}


class Hub:
    """HfApi and hf_hub_download on a folder."""

    def __init__(self, token: str | None = None) -> None:
        Path("hub").mkdir(exist_ok=True)

    def create_repo(self, repo: str, exist_ok: bool, private: bool) -> None:
        pass

    def file_exists(self, repo_id: str, filename: str) -> bool:
        return Path("hub", filename).exists()

    def upload_file(self, path_or_fileobj: Any, path_in_repo: str, repo_id: str) -> str:
        if isinstance(path_or_fileobj, bytes):
            Path("hub", path_in_repo).write_bytes(path_or_fileobj)
        else:
            shutil.copy(path_or_fileobj, Path("hub", path_in_repo))
        return f"https://hub/{repo_id}/{path_in_repo}"


def tune(patch: pytest.MonkeyPatch) -> Names:
    patch.setattr(sk, "load", lambda name: blobs(4))
    few(patch, sk, "tune", samples=16, validation=16)
    patch.setattr(huggingface_hub, "HfApi", Hub)
    patch.setattr(huggingface_hub, "hf_hub_download", lambda repo, name: "plan.safetensors")
    config = stable_diffusion(diffusers.StableDiffusionPipeline).pipe.scheduler.config
    return {"SolverKitScheduler": sk.SolverKitScheduler, "config": config}


def levels(patch: pytest.MonkeyPatch) -> Names:
    return {"sk": sk, "denoiser": blobs(4)}


def teleportation(patch: pytest.MonkeyPatch) -> Names:
    return {**pair(patch), "denoiser": sk.load("mnist")}


def writing(patch: pytest.MonkeyPatch) -> Names:
    """The sampler of the page is that of the plugin template, which need not be installed."""
    from sys import path

    patch.setattr("sys.path", [str(TEMPLATE), *path])
    import solverkit_my_solver

    made = build_registry({**load_plugins()[0], "my_solver": solverkit_my_solver})
    patch.setattr(solverkit.registry.find, "registry", lambda: made)
    return {"my_corrector": sk.op(lambda x, denoised, noise, strength: x)}


class Network(torch.nn.Module):
    """Of two times or of one, with inputs or without."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.1))

    def forward(self, x: Any, *times: Any, **inputs: Any) -> Any:
        return self.weight * x


def rollouts(patch: pytest.MonkeyPatch) -> Names:
    net, pipe = Network(), Prompted()
    denoiser = sk.wrap(net, "flow_prediction", sk.Flow(), shape=(1, 4, 4))
    net.weight.requires_grad_(True)

    def network(x: Any, t: Any) -> Any:
        return pipe.unet(x, t, encoder_hidden_states=pipe.inputs["prompt_embeds"]).sample

    return {
        "sk": sk, "denoiser": denoiser, "new_denoiser": denoiser, "k": 0, "network": network, "pipe": pipe,
        "plan": sk.trace("flow-sde", sk.make_grid("flow", sk.Flow(), 3)), "SolverKitScheduler": sk.SolverKitScheduler,
        "classify": lambda x: x.flatten(1), "optimizer": torch.optim.Adam([net.weight]), "prompt": "a lighthouse",
        "generator": torch.Generator(),
    }  # fmt: skip


def students(patch: pytest.MonkeyPatch) -> Names:
    few(patch, sk, "sample", num_samples=2, nfe=6)
    count = 16 if FULL else 2
    small = torch.zeros(count, 1, 7, 7)
    return {"sk": sk, "net": Network(), "y": torch.zeros(count, 3, 8, 8), "small": small, "images_7x7": small}


PAGES: dict[str, Callable[[pytest.MonkeyPatch], Names]] = {
    "README.md": readme,
    "docs/benchmarks.md": benchmarks,
    "docs/coming-from.md": coming_from,
    "docs/diffusers.md": pipelines,
    "docs/guided.md": pair,
    "docs/images.md": pair,
    "docs/imputation.md": imputation,
    "docs/index.md": pair,
    "docs/inverse.md": inverse,
    "docs/lml.md": pair,
    "docs/model-statistics.md": model_statistics,
    "docs/rollouts.md": rollouts,
    "docs/score.md": score,
    "docs/serving.md": serving,
    "docs/students.md": students,
    "docs/systems.md": systems,
    "docs/teleportation.md": pair,
    "docs/tokens.md": tokens,
    "docs/tune.md": tune,
    "docs/writing-a-sampler.md": writing,
    "plugins/few_step/README.md": pair,
    "plugins/levels/README.md": levels,
    "plugins/reflection/README.md": pair,
    "plugins/teleportation/README.md": teleportation,
}
