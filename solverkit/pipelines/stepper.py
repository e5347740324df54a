"""A plan for a pipeline's latents and the network's raw output: what `SolverKitScheduler.step` does with tensors.

A pipeline hands over its own latents and what the network said. So the plan is rewritten once: states are the latents,
stored predictions are in units of their own, and every conversion is a weight.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch

from ..errors import OptionError, TraceError
from ..plan.plan import Plan, State, advance, begin, combine
from ..plan.rescale import place, rescale
from ..process.level import Level
from ..process.schedule import Flow
from .convention import Convention

STEEP = 1e5  # a step over which noise grows more than so many times is beyond float32
Draw = Callable[[int, float, float], torch.Tensor]
SLOPE = -1  # in a history: (x - denoised) over the noise level, of some earlier evaluation


class Prediction(NamedTuple):
    """How to make the stored prediction of one evaluation: denoised = unit * stored.

    Attributes:
        from_output: stored = output + weight * latents; else stored = latents + weight * output.
        weight: See `from_output`.
        unit: What the stored prediction is multiplied by.
    """

    from_output: bool
    weight: float
    unit: float


def prediction(w_x: float, w_out: float) -> Prediction:
    """The cheaper half of denoised = w_x * latents + w_out * output: the larger weight becomes the unit."""
    from_output = abs(w_out) > abs(w_x)
    unit, other = (w_out, w_x) if from_output else (w_x, w_out)
    return Prediction(from_output, other / unit, unit)


@dataclass(frozen=True)
class Stepper:
    """From latents and network output to the next latents. Immutable: copies share it.

    A run from data to noise is calculated in float64 where the device has it: near data the weights of x and of the
    prediction are t / s and 1 - t / s, their sum is 1, and what counts is the small difference of the two.

    Attributes:
        convention: How the latents are to be read.
        plan: States are the latents, predictions are in units of their own; spelled for states of `dtype`.
        dtype: float32, or float64 for latents of that kind.
        start: The timestep where it begins.
        predictions: One for each evaluation; empty where the denoised prediction itself is stored (clipping).
        weights: (w_x, w_out) of each evaluation: denoised = w_x * latents + w_out * output.
        prelude: Something happens to the latents before the first evaluation.
        keeps_latents: For each evaluation: its latents are read again later.
        history: For each evaluation, what its state carries: the number of the evaluation whose prediction it is,
            `SLOPE`, or None.
        slopes: For each evaluation (w_x, w_stored) of the slope that is kept of it; None where none is.
        stochastic: The plan draws.
    """

    convention: Convention
    plan: Plan
    dtype: torch.dtype
    start: int
    predictions: tuple[Prediction, ...]
    weights: tuple[tuple[float, float], ...]
    prelude: bool
    keeps_latents: tuple[bool, ...]
    history: tuple[tuple[int | None, ...], ...]
    slopes: tuple[tuple[float, float] | None, ...]
    stochastic: bool

    @functools.cached_property
    def end(self) -> int:
        """The timestep behind its last."""
        return self.start + self.plan.nfe

    @functools.cached_property
    def rising(self) -> bool:
        """It runs from data to noise."""
        return self.plan.grid.rising

    def takes(self, index: int, x: torch.Tensor) -> bool:
        """It has that timestep, for latents of this dtype."""
        return index < self.end and self.dtype is x.dtype

    def __deepcopy__(self, memo: dict[int, Any]) -> Stepper:
        return self

    def placed(self, device: torch.device | str | None) -> Stepper:
        """The same with its constants on a device."""
        plan = place(self.plan, device)
        return self if plan is self.plan else replace(self, plan=plan)

    def enter(self, x: torch.Tensor) -> tuple[torch.Tensor, State]:
        """The latents that the first evaluation sees, and the plan's state there."""
        return begin(self.plan, x) if self.prelude else (x, State(0, ()))

    def precise(self, x: torch.Tensor) -> torch.Tensor:
        """x in float64, as a rising run needs it, where the device (the host, CUDA) has it.

        Raises:
            OptionError: float32 is too coarse for a run that starts at data itself.
        """
        if x.is_cuda or x.device.type == "cpu":
            return x.double()
        if self.plan.grid[0] * STEEP < self.plan.grid[1]:
            raise OptionError(
                f"a run from data itself (set_alpha_to_one=True) needs float64, which {x.device.type} does not have; pass "
                "set_alpha_to_one=False, which starts at the least noise of training."
            )
        return x

    def predict(
        self, j: int, x: torch.Tensor, output: torch.Tensor,
        given: torch.Tensor | None = None, per_token_timesteps: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, float]:  # fmt: skip
        """What is stored of evaluation j, and its unit: denoised = unit * stored.

        Args:
            j: The evaluation, counted from the start.
            x, output: The latents that the network saw and what it answered.
            given: The denoised prediction itself, in place of an output.
            per_token_timesteps: (B, tokens) of a flow model: the prediction of tokens at times of their own; the output
                has the opposite sign.

        Raises:
            OptionError: per-token timesteps on a model that is no flow; see `precise`.
        """
        if self.rising:
            x, output = self.precise(x), self.precise(output)
        if self.predictions and given is None and per_token_timesteps is None:
            from_output, weight, unit = self.predictions[j]
            if not from_output:
                return x.add(output, alpha=weight), unit
            return output.add(x, alpha=weight) if weight else output.to(x.dtype, copy=True), unit
        w_x, w_out = self.weights[j]
        if given is not None:
            denoised = given.to(x.dtype, copy=True)
        elif per_token_timesteps is not None:
            if not isinstance(self.convention.schedule, Flow):
                raise OptionError("per_token_timesteps= is for flow-matching models.")
            t = (per_token_timesteps / self.convention.schedule.time_scale)[..., None]
            denoised = x + t.to(x.dtype) * output
        else:
            denoised = x * w_x + output * w_out
        denoised, unit = self.convention.clipped(denoised), self.predictions[j].unit if self.predictions else 1.0
        return denoised / unit, unit

    def step(
        self, j: int, state: State, x: torch.Tensor, stored: torch.Tensor, draw: Draw | None = None
    ) -> tuple[torch.Tensor, State]:
        """The next latents and state; nothing that is kept is the pipeline's own tensor."""
        x = self.precise(x) if self.rising else x
        seen, segment = x.clone() if self.keeps_latents[j] else x, self.plan.segments[j + 1]
        if segment.instructions:
            return advance(self.plan, state, seen, stored, draw)
        values = (*state.values, seen, stored)
        return combine(segment.x, values), State(j + 1, tuple([values[slot] for slot in segment.carry]))

    def forgotten(
        self, j: int, state: State, same: torch.Tensor, stored: torch.Tensor, x: torch.Tensor | None = None
    ) -> State:
        """The state before evaluation j without its history, where the latents are not what the last step returned.

        There every older prediction becomes the newest, so that a jump of the latents is not taken for a slope, and every
        older slope becomes the newest, so that its jump is not taken for a curvature.

        Args:
            same: Of the latents' shape: True where nobody changed them.
            stored: The stored prediction of evaluation j.
            x: The latents; None where the slopes are to stay.
        """
        if not self.plan.boundary[j]:
            return state
        units = [p.unit for p in self.predictions] or [1.0] * self.plan.nfe
        slope = None
        if x is not None and (kept := self.slopes[j]) is not None:
            slope = x * kept[0] + stored * kept[1]
        values = []
        for k, value in zip(self.history[j], state.values):
            new = slope if k == SLOPE else None if k is None else stored * (units[j] / units[k])
            values.append(value if new is None or value.shape != new.shape else torch.where(same, value, new))
        return State(state.index, tuple(values))


def _spelled(plan: Plan, dtype: torch.dtype) -> Plan:
    """In float32 the first weight of each sum as a tensor without dimensions: a product with a number costs more."""
    if dtype is not torch.float32 or plan.grid.rising:
        return plan
    segments = []
    for segment in plan.segments:
        (slot, weight), *rest = segment.x or ((0, 0.0),)
        first: Any = torch.tensor(weight, dtype=dtype, device="cpu")
        segments.append(segment._replace(x=((slot, first), *rest)))
    return replace(plan, segments=tuple(segments))


def _history(plan: Plan) -> Iterator[tuple[int | None, ...]]:
    """See `Stepper.history`."""
    carried: list[int | None] = []
    for j, segment in enumerate(plan.segments[:-1]):
        made = [SLOPE if i.kind == "keep" else None for i in segment.instructions]
        slots = [*carried, None, *([j - 1] if j else []), *made]
        carried = [slots[slot] for slot in segment.carry]
        yield tuple(carried)


def _slopes(plan: Plan) -> Iterator[tuple[float, float] | None]:
    """See `Stepper.slopes`: what the segment behind an evaluation keeps of its latents and its prediction."""
    for before, after in pairwise(plan.segments):
        kept = [dict(i.payload[0]) for i in after.instructions if i.kind == "keep"]
        x = len(before.carry)
        yield (kept[0][x], kept[0][x + 1]) if len(kept) == 1 and set(kept[0]) == {x, x + 1} else None


def rewrite(plan: Plan, convention: Convention, start: int, dtype: torch.dtype = torch.float32) -> Stepper:
    """A traced plan for the pipelines of a native class.

    Raises:
        TraceError: something is drawn before the first evaluation.
        DenoiserError: the prediction says nothing about x_0 at one of the levels.
    """
    if plan.of:
        raise TraceError(
            f"this sampler asks a second model, {next(filter(None, plan.of))!r}, and a pipeline has one network. Use "
            "sk.sample with models=."
        )
    first = plan.segments[0]
    if any(i.kind == "draw" for i in first.instructions):
        raise TraceError(
            "this sampler draws noise before its first evaluation, which a scheduler cannot do: what happens there must be "
            "deterministic. Use sk.sample, or start at the largest noise level."
        )
    weights = tuple(convention.weights(level) for level in plan.levels)
    clipped = convention.clip is not None or convention.threshold is not None
    predictions = () if clipped else tuple(prediction(*pair) for pair in weights)
    units = [p.unit for p in predictions] or [1.0] * plan.nfe
    states = [*(convention.scale(level) for level in plan.levels), convention.end_scale(plan.grid[-1])]
    start_scale = convention.scale(plan.grid[0])
    rescaled = rescale(plan, start_scale, states, units)
    return Stepper(
        convention,
        _spelled(rescaled, dtype),
        dtype,
        start,
        predictions,
        weights,
        bool(first.instructions or first.carry) or first.x != ((0, 1.0),) or start_scale != states[0],
        tuple(len(before.carry) in after.carry for before, after in pairwise(plan.segments)),
        tuple(_history(plan)),
        tuple(_slopes(rescaled)),
        plan.draws > 0,
    )


def on_level(per_token_timesteps: torch.Tensor, level: Level) -> torch.Tensor:
    """Which tokens are at the level of the run."""
    return (per_token_timesteps - level.time).abs() <= 1e-3 * max(abs(level.time), 1.0)
