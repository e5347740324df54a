"""SolverKitScheduler in modular pipelines, which are built from blocks and take their components later."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import diffusers
import numpy as np
import pytest
import torch
from tiny_pipe import randn
from tiny_pipelines import PIPELINES

import solverkit as sk
from solverkit import SolverKitScheduler
from solverkit.errors import OptionError

STEPS = 5


class Family(NamedTuple):
    tiny: str  # the plain pipeline whose networks and inputs it takes
    blocks: str  # the class of diffusers
    workflow: str  # the block under "denoise" that makes an image of a text, "" where there is only one
    sampler: str  # ours that is the shipped solver
    options: dict[str, Any]
    run: dict[str, Any]  # levels that the pipeline passes on


SIGMAS = {"sigmas": np.linspace(1.0, 0.2, STEPS)}
FAMILIES = {
    "sdxl": Family("sdxl", "StableDiffusionXLAutoBlocks", "", "euler", {}, {"timesteps": [951, 701, 501, 251, 1]}),
    "sd3": Family("sd3", "StableDiffusion3AutoBlocks", "text2image", "euler", {}, SIGMAS),
    "flux": Family("flux", "FluxAutoBlocks", "", "euler", {}, SIGMAS),
    "qwen-image": Family("qwen-image", "QwenImageAutoBlocks", "text2image", "euler", {}, SIGMAS),
    "z-image": Family("z-image", "ZImageAutoBlocks", "text2image", "euler", {}, SIGMAS),
    "wan": Family("wan", "WanBlocks", "", "unipc", {"order": 2}, SIGMAS),
}


def blocks(name: str) -> Any:
    """The part of the family's blocks between the encoders and the decoder."""
    family = FAMILIES[name]
    denoise = getattr(diffusers, family.blocks)().sub_blocks["denoise"]
    return denoise.sub_blocks[family.workflow] if family.workflow else denoise


def modular(name: str, own: Any = None) -> tuple[Any, dict[str, Any]]:
    """A modular pipeline with the tiny components of the plain one, and its inputs; of blocks of its own, where given."""
    plain = PIPELINES[FAMILIES[name].tiny]()
    pipe = (blocks(name) if own is None else own).init_pipeline()
    wanted = ("unet", "transformer", "vae", "scheduler")
    given = {part: getattr(plain.pipe, part, None) for part in wanted if part in pipe.component_names}
    pipe.update_components(**{part: module for part, module in given.items() if module is not None})
    names = {parameter.name for parameter in pipe.blocks.inputs}
    inputs = {key: value for key, value in plain.inputs.items() if key in names}
    if name == "sdxl":
        inputs |= {"height": 8, "width": 8}
    if name in ("sd3", "flux"):
        inputs |= {"height": 64, "width": 64}  # no VAE among the components: its scale is taken to be 8
    if name == "wan":
        inputs["latents"] = randn(*plain.shape)  # without a VAE it would draw 16 channels
    return pipe, inputs


def run(pipe: Any, inputs: dict[str, Any], **arguments: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return pipe(**inputs, **{"num_inference_steps": STEPS, "generator": generator, **arguments}, output="latents")


def ours(pipe: Any, sampler: str, options: dict[str, Any] | None = None) -> SolverKitScheduler:
    return SolverKitScheduler.from_config(pipe.scheduler.config, sampler=sampler, sampler_options=options or {})


def compared(name: str, native: Any, sampler: str, options: dict[str, Any], **arguments: Any) -> float:
    """How far the latents of a run with ours are from those of the same run with the native scheduler."""
    pipe, inputs = modular(name)
    pipe.update_components(scheduler=native)
    expected = run(pipe, inputs, **arguments)
    pipe.update_components(scheduler=ours(pipe, sampler, options))
    result = run(pipe, inputs, **arguments)
    assert expected.shape == result.shape and pipe.scheduler.nfe == STEPS
    return float((result - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", FAMILIES)
def test_euler_on_given_levels_is_that_of_the_native_class(name):
    native = modular(name)[0].scheduler
    if name == "wan":  # UniPC, as shipped, rounds the times that it tells the network
        native = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    assert compared(name, native, "euler", {}, **FAMILIES[name].run) < 1e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_a_plain_run_is_that_of_the_shipped_scheduler(name):
    family = FAMILIES[name]
    assert compared(name, modular(name)[0].scheduler, family.sampler, family.options) < 1e-5


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("sampler", ["dpmpp-2m", "heun", "rk4", "euler-ancestral", "unipc"])
def test_every_kind_of_sampler_runs(name, sampler):
    pipe, inputs = modular(name)
    pipe.update_components(scheduler=ours(pipe, sampler))
    calls: list[torch.Tensor] = []
    step = pipe.scheduler.step

    def counted(model_output, *arguments, **options):
        calls.append(model_output)
        return step(model_output, *arguments, **options)

    pipe.scheduler.step = counted
    assert torch.isfinite(run(pipe, inputs)).all()
    assert len(calls) == pipe.scheduler.nfe


def test_the_class_is_named_in_the_pipeline():
    pipe, _ = modular("sd3")
    scheduler = ours(pipe, "unipc")
    pipe.update_components(scheduler=scheduler)
    assert pipe.scheduler is scheduler and pipe.components["scheduler"] is scheduler
    assert pipe.config["scheduler"][:2] == ("solverkit", "SolverKitScheduler")
    assert pipe.get_component_spec("scheduler").type_hint is SolverKitScheduler


def test_a_saved_folder_loads_our_scheduler(tmp_path):
    """The index names solverkit, and the scheduler's folder is beside it."""
    pipe, inputs = modular("flux")
    pipe.update_components(scheduler=ours(pipe, "unipc", {"order": 3}))
    expected = run(pipe, inputs)
    pipe.save_pretrained(str(tmp_path), overwrite_modular_index=True)
    index = json.loads((tmp_path / "modular_model_index.json").read_text())
    assert index["scheduler"][:2] == ["solverkit", "SolverKitScheduler"]

    loaded = blocks("flux").init_pipeline(str(tmp_path))
    loaded.load_components(torch_dtype=torch.float32)
    assert isinstance(loaded.scheduler, SolverKitScheduler)
    configs = [{k: v for k, v in p.scheduler.config.items() if k[0] != "_"} for p in (loaded, pipe)]
    assert configs[0] == configs[1] and configs[0]["sampler_options"] == {"order": 3}
    difference = run(loaded, inputs) - expected  # loaded weights lie elsewhere in memory: sums are rounded otherwise
    assert float(difference.norm() / expected.norm()) < 1e-6


def pulled(name: str, sampler: str) -> tuple[Any, dict[str, Any]]:
    """A modular pipeline whose loop belongs to the sampler; the scheduler lays out the levels of a plain run."""
    pipe, inputs = modular(name, sk.pulled(blocks(name), sampler))
    pipe.update_components(scheduler=ours(pipe, "euler"))
    return pipe, inputs


def told(pipe: Any, inputs: dict[str, Any], **arguments: Any) -> sk.Result:
    """What a pulled run says of itself."""
    generator = torch.Generator().manual_seed(0)
    return pipe(**inputs, **{"num_inference_steps": STEPS, "generator": generator, **arguments}, output="sampling")


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_pulled_loop_is_the_run_through_the_scheduler(name):
    pipe, inputs = modular(name)
    pipe.update_components(scheduler=ours(pipe, "dpmpp-2m"))
    expected = run(pipe, inputs)
    own, inputs = pulled(name, "euler")
    own.update_components(scheduler=pipe.scheduler)
    options = pipe.scheduler._timetable.options
    assert apart(run(own, inputs, sampler="dpmpp-2m", sampler_options=dict(options)), expected) < 5e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_pull_only_samplers_run_in_a_pulled_loop(name):
    pipe, inputs = pulled(name, "parallel:solver=dpmpp-2m,tolerance=0")
    alone = run(pipe, inputs, sampler="parallel:solver=dpmpp-2m,window=1")
    assert apart(run(pipe, inputs), alone) < 5e-5
    sweeps = told(pipe, inputs)
    guided = sweeps.passes // sweeps.reports["sweeps"]  # calls of the network an evaluation, as the guider makes them
    assert guided in (1, 2) and sweeps.passes == guided * sweeps.reports["sweeps"] and sweeps.nfe > guided * STEPS
    adaptive = told(pipe, inputs, sampler="rk45", sampler_options={"rtol": 0.5, "atol": 0.5})
    assert torch.isfinite(adaptive.x).all() and adaptive.nfe > guided * 6


@pytest.mark.parametrize("name", ["sdxl", "qwen-image", "flux"])
def test_rows_of_a_sweep_keep_the_inputs_of_their_sample(name):
    pipe, inputs = pulled(name, "parallel:solver=euler,tolerance=0")
    pairs = {
        key: torch.cat([value, value.flip(1) if key.endswith("embeds") else value])
        for key, value in inputs.items()
        if isinstance(value, torch.Tensor) and len(value) == 1
    }
    both = {**inputs, **pairs}
    assert both.keys() & {"prompt_embeds"}
    swept, alone = run(pipe, both), run(pipe, both, sampler="parallel:solver=euler,window=1")
    assert len(swept) == 2 and apart(swept, alone) < 5e-5 and apart(swept[:1], swept[1:]) > 1e-3


def test_draws_of_a_pulled_loop_are_keyed_from_the_generator():
    pipe, inputs = pulled("sd3", "pc")
    first, again = run(pipe, inputs), run(pipe, inputs)
    start = randn(*told(pipe, inputs, sampler="euler").x.shape)
    same, other = (run(pipe, inputs, latents=start, generator=torch.Generator().manual_seed(k)) for k in (0, 3))
    assert torch.equal(first, again) and torch.isfinite(first).all() and not torch.equal(same, other)


def test_what_a_pulled_loop_refuses():
    pipe, inputs = pulled("sd3", "rk45")
    with pytest.raises(OptionError, match="blocks of a modular pipeline"):
        sk.pulled(pipe, "rk45")
    with pytest.raises(OptionError, match="no denoise loop"):
        sk.pulled(diffusers.FluxAutoBlocks().sub_blocks["decode"], "rk45")
    with pytest.raises(sk.errors.UnknownNameError, match="nosuch"):
        run(pipe, inputs, sampler="nosuch")
    pipe.update_components(scheduler=diffusers.FlowMatchEulerDiscreteScheduler())
    with pytest.raises(OptionError, match="SolverKitScheduler"):
        run(pipe, inputs)
    from diffusers.modular_pipelines.stable_diffusion_xl.denoise import StableDiffusionXLInpaintDenoiseStep

    with pytest.raises(OptionError, match="edits the latents"):
        sk.pulled(StableDiffusionXLInpaintDenoiseStep(), "rk45")(None, None)
