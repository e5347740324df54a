"""Pipelines of vLLM-Omni with a sampler of solverkit; read in vllm-omni 0.30.0.

A pipeline there makes its scheduler in its own code (diffusion/models/qwen_image/pipeline_qwen_image.py, line 313, and so
on in each): there is no registry of schedulers and no argument that names one. What is public is the registry of
pipelines, `register_diffusion_model` (diffusion/registry.py, line 758), called by plugins of the entry-point group
`vllm_omni.general_plugins` (plugins/__init__.py, line 14) in every process. So this plugin puts in the place of some
pipelines the same pipelines with another scheduler. In the pyproject.toml of a package that has this module:

    [project.entry-points."vllm_omni.general_plugins"]
    solverkit = "vllm_omni_plugin:register"

    SOLVERKIT_SAMPLER=unipc:order=3 vllm serve Qwen/Qwen-Image --omni

Requests share a pipeline and step one after the other; each has a deep copy of its scheduler, made behind `set_timesteps`
(pipeline_qwen_image.py, line 810): copies share the plan and nothing that a step changes. Pipelines that make a new
scheduler for a request (`sample_solver=` of Wan, pipeline_wan2_2.py, line 819) keep their own, so they are not in the
list.
"""

from __future__ import annotations

import functools
import importlib
import os
from typing import Any

from solverkit import SolverKitScheduler

SAMPLER = "SOLVERKIT_SAMPLER"  # environment: a traceable sampler, its options behind its name
PIPELINES = {
    "FluxPipeline": "flux.pipeline_flux",
    "QwenImagePipeline": "qwen_image.pipeline_qwen_image",
    "StableDiffusion3Pipeline": "sd3.pipeline_sd3",
    "ZImagePipeline": "z_image.pipeline_z_image",
}  # what their checkpoints say -> where they are; the class has the same name


def sampled_by(pipeline: type, sampler: str) -> type:
    """The pipeline class with SolverKitScheduler, made from the config of the scheduler that it has."""

    class Sampled(pipeline):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.scheduler = SolverKitScheduler.from_config(self.scheduler.config, sampler=sampler)

    Sampled.__name__ = Sampled.__qualname__ = pipeline.__name__
    return Sampled


def register() -> None:
    """Put this module's classes in the place of vLLM-Omni's, under their own names."""
    from vllm_omni.diffusion.registry import register_diffusion_model

    for name in PIPELINES:
        register_diffusion_model(name, __name__, name)


@functools.cache
def __getattr__(name: str) -> Any:
    """The classes, and what else vLLM-Omni looks for beside them (pre- and post-processing), which is theirs."""
    if name.startswith("__"):
        raise AttributeError(name)
    modules = {own: f"vllm_omni.diffusion.models.{path}" for own, path in PIPELINES.items()}
    if name in modules:
        pipeline = getattr(importlib.import_module(modules[name]), name)
        return sampled_by(pipeline, os.environ.get(SAMPLER, "dpmpp-2m"))
    for path in modules.values():
        if hasattr(module := importlib.import_module(path), name):
            return getattr(module, name)
    raise AttributeError(f"no pipeline module of vllm-omni has {name!r}")
