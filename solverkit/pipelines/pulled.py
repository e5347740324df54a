"""Modular pipelines whose denoise loop belongs to the sampler: adaptive ones and those parallel in time run in them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.modular_pipelines import LoopSequentialPipelineBlocks, ModularPipelineBlocks
from diffusers.modular_pipelines.modular_pipeline_utils import InputParam, OutputParam

from ..errors import OptionError
from ..grid.grid import Grid
from ..model.answer import fit_channels
from ..model.counting import record
from ..model.denoiser import per_row
from ..model.inputs import cut, row_index
from ..process.level import Level
from ..run.result import Result
from ..run.sampling import sample
from .convention import Convention
from .scheduler import SolverKitScheduler

EDITS = {"mask", "image_latents"}  # what a scheduler's step block reads where it edits latents after the step
WHOLE = {"timesteps", "sigmas", "latents", "noise_pred", "txt_ids", "img_ids", "controlnet_keep"}  # no row a sample


class LoopDenoiser:
    """The blocks of a denoise loop, all but the scheduler's step, as a denoiser: guider, network and their inputs.

    Args:
        blocks: By name, in order; called as block(components, block_state, i=, t=), they leave `noise_pred`.
        components: Of the pipeline.
        state: The loop's block state; it is copied for each evaluation.
        convention: How latents and the network's output are to be read.
        told: The pipeline's timesteps: their dtype, and how far the run is (`i`) where a level is asked.

    Attributes:
        schedule: Of the network.
        takes_rows: It can be asked at one level a row: not where the guider or a network has a part of the run only.
    """

    shape = None

    def __init__(
        self, blocks: Mapping[str, Any], components: Any, state: Any, convention: Convention, told: torch.Tensor
    ) -> None:
        self.blocks, self.components, self.state, self.convention, self.told = blocks, components, state, convention, told
        self.schedule = convention.schedule
        self.device, self.dtype = state.latents.device, state.latents.dtype
        self.guider = guider = getattr(components, "guider", None)
        always = (getattr(guider, "_start", 0.0), getattr(guider, "_stop", 1.0)) == (0.0, 1.0)
        self.takes_rows = always and getattr(components, "transformer_2", None) is None
        self.falling = [float(t) for t in told]

    def __call__(self, x: torch.Tensor, level: Any) -> torch.Tensor:
        """E[x_0 | x] of x (B, ...) in the frame, at a level or at a tuple of them, one a row; dtype and shape of x."""
        read = self.convention
        levels = [self.schedule.at(s) for s in (level if isinstance(level, (tuple, list)) else [level])]
        scale, seen, w_x, w_out = (
            numbers[0] if len(levels) == 1 else per_row(numbers, x)
            for numbers in zip(*((read.scale(s), read.input_scale(s), *read.weights(s)) for s in levels))
        )
        latents = x * scale
        state = copy.copy(self.state)
        state.latents = latents.to(self.dtype)
        times = [read.told(s) for s in levels]
        t = torch.tensor(times if len(times) > 1 else times[0], dtype=self.told.dtype, device=self.told.device)
        i = max(sum(told >= max(times) for told in self.falling) - 1, 0)
        components = _Instead(self.components, scheduler=_Scaled(self.components.scheduler, seen))
        for block in self.blocks.values():
            block(components, state, i=i, t=t)
        for _ in range(getattr(self.guider, "num_conditions", 1)):
            record(len(x), x, level)
        output = fit_channels(state.noise_pred, x, "the network").to(x.dtype)
        return read.clipped(latents * w_x + output * w_out)

    def rows(self, start: int | Sequence[int], stop: int | None = None, total: int | None = None) -> LoopDenoiser:
        """The denoiser of some samples of a batch: what has one row a sample in the block state is cut to them."""
        index, n = row_index(start, stop, total)
        state = copy.copy(self.state)
        for name, value in vars(self.state).items():
            if name not in WHOLE:
                setattr(state, name, _cut(value, index, n))
        return LoopDenoiser(self.blocks, self.components, state, self.convention, self.told)


def _cut(value: Any, index: Any, total: int) -> Any:
    """As `inputs.cut`; of a list of shapes, one a sample, too."""
    if type(value) is list and len(value) == total and all(isinstance(one, (list, tuple)) for one in value):
        return value[index] if isinstance(index, slice) else [value[i] for i in index]
    return cut(value, index, total)


class _Instead:
    """An object with some attributes of its own in the place of another's."""

    def __init__(self, other: Any, **own: Any) -> None:
        self.__dict__.update(own, _other=other)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._other, name)


class _Scaled(_Instead):
    """A scheduler that scales the network's input for the levels that are asked, wherever its own run is."""

    def __init__(self, scheduler: Any, factor: Any) -> None:
        super().__init__(scheduler)
        self.__dict__["factor"] = factor

    def scale_model_input(self, sample: torch.Tensor, timestep: Any = None) -> torch.Tensor:
        return sample * self.factor


class PulledLoop(ModularPipelineBlocks):  # type: ignore[misc]  # diffusers has no types
    """The place of a stock denoise loop: the sampler asks for evaluations, the stock blocks make them.

    Beside the inputs of the stock loop: `sampler` (and `sampler_options`) of one call, and `generator`, from which draws
    are keyed. Beside its outputs: `sampling`, the run's `Result`. Built by `pulled`.
    """

    def __init__(self, loop: Any, sampler: str, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.loop, self.sampler, self.options = loop, sampler, dict(options)

    model_name = property(lambda self: self.loop.model_name)
    expected_components = property(lambda self: self.loop.expected_components)
    expected_configs = property(lambda self: self.loop.expected_configs)

    @property
    def description(self) -> str:
        """One line for the pipeline's documentation."""
        return f"{type(self.loop).__name__} whose evaluations are asked by a sampler of solverkit ({self.sampler})"

    @property
    def inputs(self) -> list[Any]:
        """Those of the stock loop, and the sampler's."""
        own = [
            InputParam("sampler", type_hint=str, default=self.sampler, description="A sampler of solverkit"),
            InputParam("sampler_options", type_hint=dict, description="Its options"),
            InputParam("generator", description="From which the sampler's draws are keyed"),
        ]
        known = {given.name for given in self.loop.inputs}
        return [*self.loop.inputs, *(given for given in own if given.name not in known)]

    @property
    def intermediate_outputs(self) -> list[Any]:
        """Those of the stock loop, and the run's `Result`."""
        return [*self.loop.intermediate_outputs, OutputParam("sampling", type_hint=Result, description="Of the run")]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        """Run the stock loop, with the sampler's run in the place of its first step and nothing in that of the others.

        Raises:
            OptionError: another scheduler, or a loop that edits latents between its steps.
        """
        edits = {given.name for given in [*self.loop.sub_blocks.values()][-1].inputs} & EDITS
        if edits:
            raise OptionError(
                f"{type(self.loop).__name__} edits the latents between its steps (by {', '.join(sorted(edits))}), and a "
                "pulled loop has none: inpaint with the stock loop and SolverKitScheduler."
            )
        wanted: Any = self.get_block_state(state)  # type: ignore[attr-defined]  # diffusers has no types
        options = self.options if wanted.sampler == self.sampler else {}
        options, made = {**options, **(wanted.sampler_options or {})}, []
        loop = copy.copy(self.loop)

        def loop_step(components: Any, block_state: Any, i: int, t: Any) -> tuple[Any, Any]:
            if i == 0:
                made.append(_sampled(loop.sub_blocks, components, block_state, wanted.sampler, options, wanted.generator))
            return components, block_state

        loop.loop_step = loop_step
        loop(components, state)
        state.set("sampling", made[0])
        return components, state


def _sampled(
    sub_blocks: Mapping[str, Any], components: Any, state: Any, sampler: str, options: Mapping[str, Any], generator: Any
) -> Result:
    """The run; `latents` of the block state are then its end, in the pipeline's coordinates and dtype."""
    scheduler, latents = components.scheduler, state.latents
    if not isinstance(scheduler, SolverKitScheduler):
        raise OptionError(
            f"a pulled loop reads the levels and the latents by SolverKitScheduler, and the pipeline has "
            f"{type(scheduler).__name__}: pipe.update_components(scheduler=SolverKitScheduler.from_config("
            "pipe.scheduler.config, sampler='euler'))."
        )
    run = scheduler._begun()
    table, first = run.table, run.find(state.timesteps[0])
    read, levels = table.convention, [table.level(j) for j in range(first, table.plan.nfe + 1)]
    grid = Grid(_falling(levels), read.schedule)
    *before, _ = sub_blocks
    denoiser = LoopDenoiser({name: sub_blocks[name] for name in before}, components, state, read, state.timesteps)
    own = latents.to(torch.promote_types(latents.dtype, torch.float32)) * (grid[0].scale / read.scale(grid[0]))
    result = sample(denoiser, sampler, grid=grid, x=own, seed=_keys(generator, len(latents)), **options)
    state.latents = (result.x * (read.end_scale(grid[-1]) / grid[-1].scale)).to(latents.dtype)
    return result


def _falling(levels: Sequence[Level]) -> tuple[Level, ...]:
    """The levels, those left out that a sampler of several evaluations a step asks again."""
    kept: list[Level] = []
    for level in levels:
        if not kept or level < kept[-1]:
            kept.append(level)
    return tuple(kept)


def _keys(generator: Any, count: int) -> list[int]:
    """A key for each sample's draws, from the pipeline's generator or its list of them, one a sample."""
    given = generator if isinstance(generator, list) else [generator] * count
    return [int(torch.randint(2**62, (), generator=g, device=g.device if g is not None else "cpu")) for g in given]


def pulled(blocks: Any, sampler: str, **options: Any) -> Any:
    """A copy of modular blocks in which every denoise loop belongs to a sampler.

        blocks = sk.pulled(StableDiffusionXLAutoBlocks(), "parallel:solver=dpmpp-2m,window=16")
        pipe = blocks.init_pipeline(repo)
        pipe.update_components(scheduler=sk.SolverKitScheduler.from_config(pipe.scheduler.config, sampler="euler"))
        pipe(prompt=prompt, num_inference_steps=50)

    Args:
        blocks: Of any family whose loop is made of blocks, the last of them the scheduler's step.
        sampler: A registered sampler, pull-only ones included; `pipe(..., sampler=)` takes another one.
        options: Of the sampler.

    Raises:
        OptionError: blocks without a loop. A loop that edits latents between its steps (inpainting by a mask) raises it
            when it is called.
    """
    if not isinstance(blocks, ModularPipelineBlocks):
        raise OptionError(f"pulled takes the blocks of a modular pipeline, got {type(blocks).__name__}.")
    if isinstance(blocks, LoopSequentialPipelineBlocks):
        return PulledLoop(copy.deepcopy(blocks), sampler, options)
    made = copy.deepcopy(blocks)
    if not _replaced(made, sampler, options):
        raise OptionError(f"{type(blocks).__name__} has no denoise loop that is made of blocks.")
    return made


def _replaced(blocks: Any, sampler: str, options: Mapping[str, Any]) -> int:
    """How many loops under these blocks became the sampler's."""
    found = 0
    for name, block in list(blocks.sub_blocks.items()):
        if isinstance(block, LoopSequentialPipelineBlocks):
            blocks.sub_blocks[name] = PulledLoop(block, sampler, options)
            found += 1
        else:
            found += _replaced(block, sampler, options)
    return found
