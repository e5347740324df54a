"""solverkit in ComfyUI: its samplers as a SAMPLER, its grids as SIGMAS, for SamplerCustom and SamplerCustomAdvanced.

Copy this folder to custom_nodes/ and install solverkit beside ComfyUI. Written for ComfyUI 0.38.1 (nodes of the V3 schema).
"""

from __future__ import annotations

import math
from typing import Any

import comfy.model_sampling
import comfy.samplers
import torch
from comfy_api.latest import ComfyExtension, io

import solverkit as sk
from solverkit.registry.spelled import parse_options

OPTIONS = "Options of it: eta=0.5, order=3"
NEEDS_MORE = ("measurement", "stats", "plan", "choice")  # options that only sk.sample can find


def is_flow(model_sampling: Any) -> bool:
    """Whether sigmas are those of a flow, x = (1 - sigma) x_0 + sigma eps."""
    return isinstance(model_sampling, comfy.model_sampling.CONST)


def schedule_of(model_sampling: Any) -> sk.Schedule:
    """What a model was trained on: a flow, a table of timesteps, or a range of sigma."""
    if is_flow(model_sampling):
        shift = float(getattr(model_sampling, "shift", 1.0))
        flux = isinstance(model_sampling, comfy.model_sampling.ModelSamplingFlux)  # its shift is mu
        return sk.Flow(shift=math.exp(shift) if flux else shift)
    if isinstance(model_sampling, comfy.model_sampling.ModelSamplingDiscrete):
        return sk.VP(alphas_cumprod=1 / (1 + model_sampling.sigmas.double() ** 2))
    return sk.EDM(float(model_sampling.sigma_min), float(model_sampling.sigma_max))


class SolverKitSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        names = [name for name, card in sk.samplers().items() if not set(NEEDS_MORE) & set(card.required)]
        return io.Schema(
            node_id="SolverKitSampler",
            category="sampling/samplers",
            inputs=[io.Combo.Input("sampler", options=names), io.String.Input("options", default="", tooltip=OPTIONS)],
            outputs=[io.Sampler.Output()],
        )

    @classmethod
    def execute(cls, sampler: str, options: str) -> io.NodeOutput:
        name = f"{sampler}:{options.replace(' ', '')}" if options.strip() else sampler
        functions = {flow: sk.as_k_diffusion(name, flow=flow) for flow in (False, True)}  # a wrong option is told here

        def sample(model: Any, x: torch.Tensor, sigmas: torch.Tensor, **arguments: Any) -> torch.Tensor:
            flow = is_flow(model.inner_model.inner_model.model_sampling)
            return functions[flow](model, x, sigmas, **arguments)

        sample.__name__ = f"sample_{sampler}"
        return io.NodeOutput(comfy.samplers.KSAMPLER(sample))


class SolverKitSigmas(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SolverKitSigmas",
            category="sampling/schedulers",
            inputs=[
                io.Model.Input("model"),
                io.Combo.Input("grid", options=list(sk.grids())),
                io.Int.Input("steps", default=20, min=1, max=10000),
                io.Float.Input("denoise", default=1.0, min=0.0, max=1.0, step=0.01),
                io.String.Input("options", default="", tooltip="Options of it: rho=5"),
            ],
            outputs=[io.Sigmas.Output()],
        )

    @classmethod
    def execute(cls, model: Any, grid: str, steps: int, denoise: float, options: str) -> io.NodeOutput:
        if denoise <= 0:
            return io.NodeOutput(torch.FloatTensor([]))
        schedule = schedule_of(model.get_model_object("model_sampling"))
        levels = sk.make_grid(grid, schedule, int(steps / denoise), **parse_options(f":{options.replace(' ', '')}")[1])
        return io.NodeOutput(torch.tensor([float(level) for level in levels], dtype=torch.float32)[-(steps + 1) :])


class SolverKitExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [SolverKitSampler, SolverKitSigmas]


async def comfy_entrypoint() -> SolverKitExtension:
    return SolverKitExtension()
