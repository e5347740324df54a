"""From a sampler and the levels of a run to a plan that a pipeline can drive one network output at a time.

A pipeline counts its steps, may start anywhere, and hands over its own latents and the raw output of the network. So the
run is laid out once for all evaluations (`lay_out`), traced again from the evaluation where a pipeline starts (`start_at`),
and rewritten for what the pipeline hands over (`NativePlan`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch

from ..errors import BudgetError, GridError, TraceError
from ..grid.grid import Grid, show
from ..plan.plan import Plan
from ..plan.rescale import place, rescale
from ..plan.trace import trace
from ..process.level import Level
from ..registry.registry import SamplerCard
from .convention import Convention


def first_order_until(card: SamplerCard, options: dict[str, Any], path: Sequence[Level], left: int) -> Callable[..., Any]:
    """A sampler that follows `path` by first-order steps, then hands over to `card` for the grid's last `left` steps."""

    def sampler(model: Any, x: Any, grid: Grid, noise: Any) -> Any:
        for s, t in pairwise(path):
            grid.begin_step()
            denoised = model(x, s)
            if t != s:
                x = x + (t - s) * ((x - denoised) / s)
        return card.fn(model, x, grid.tail(len(grid) - 1 - left), noise, **options) if left else x

    return sampler


class Layout(NamedTuple):
    """All evaluations of a run.

    Attributes:
        plan: From the first evaluation to the last.
        order: 2 where each step has two evaluations (the last may have one), else 1.
        lead: How many first-order steps fill the beginning.
    """

    plan: Plan
    order: int
    lead: int = 0


@dataclass(frozen=True)
class Timetable:
    """What `set_timesteps` worked out, kept for the next call with the same arguments. Immutable: copies share it.

    Attributes:
        config: The settings that it holds for.
        asked: The arguments that it holds for.
        convention: How the latents are to be read.
        layout: All evaluations.
        native: The plan from the first timestep, rewritten.
    """

    config: dict[str, Any]
    asked: tuple[Any, ...]
    convention: Convention
    layout: Layout
    native: NativePlan

    def __deepcopy__(self, memo: dict[int, Any]) -> Timetable:
        return self


def lay_out(card: SamplerCard, options: dict[str, Any], make: Callable[[int], Grid], n: int) -> Layout:
    """A run of n steps, or of exactly n evaluations where a step has more than two of them.

    In the latter case as many whole steps as fit stand at the end, and first-order steps fill the beginning.

    Args:
        card, options: The sampler.
        make: The grid of any number of steps up to n.
        n: What the pipeline calls num_inference_steps.

    Raises:
        BudgetError: not one step of the sampler fits.
        SolverKitError: from the sampler or the grid.
    """
    plan = trace(card, make(n), **options)
    if plan.nfe <= n:
        return Layout(plan, 1)
    counts = _evaluations(plan.boundary)
    if set(counts[:-1]) <= {2} and counts[-1] in (1, 2):
        return Layout(plan, 2)
    most = n * len(counts) // plan.nfe + 2  # as if every step cost the mean
    for steps in range(min(n, most), 0, -1):
        needed = trace(card, make(steps), **options).nfe
        if needed <= n:
            plan = with_lead(card, options, make(steps + n - needed), n - needed)
            if plan.nfe == n:
                return Layout(plan, 1, n - needed)
    raise BudgetError(f"one step of {card.name!r} needs {needed} network evaluations; num_inference_steps={n} are fewer.")


def with_lead(card: SamplerCard, options: dict[str, Any], grid: Grid, lead: int) -> Plan:
    """The plan of `lead` first-order steps, then the sampler."""
    if lead == 0:
        return trace(card, grid, **options)
    return trace(first_order_until(card, options, grid.levels[: lead + 1], len(grid) - 1 - lead), grid)


def _evaluations(boundary: Sequence[bool]) -> list[int]:
    """How many evaluations each step has."""
    starts = [j for j, first in enumerate(boundary) if first]
    return [b - a for a, b in pairwise([*starts, len(boundary)])]


def start_at(plan: Plan, card: SamplerCard, options: dict[str, Any], index: int) -> Plan:
    """The plan of the run that begins at evaluation `index`, with the same levels as `plan` has from there on.

    A start inside a step takes first-order steps to the next boundary.

    Raises:
        TraceError: the sampler asks at other levels when it starts there.
    """
    if index == 0:
        return plan
    wanted = plan.levels[index:]
    for nodes in (plan.grid, _boundary_nodes(plan)):
        for found in _from(nodes, plan, card, options, index):
            if [float(s) for s in found.levels] == [float(s) for s in wanted]:
                return replace(found, levels=wanted)
    raise TraceError(
        f"{card.name!r} started at evaluation {index} of {plan.nfe} asks for other noise levels than the pipeline's "
        "timesteps have; start at the first one, or choose another sampler for a run that begins in the middle."
    )


def _boundary_nodes(plan: Plan) -> Grid:
    """A grid of the levels where steps begin, for samplers that lay out levels of their own."""
    nodes = [level for level, first in zip(plan.levels, plan.boundary) if first]
    return replace(plan.grid, levels=(*nodes, plan.grid[-1]), before=0)


def _from(nodes: Grid, plan: Plan, card: SamplerCard, options: dict[str, Any], index: int) -> Iterator[Plan]:
    """First-order steps from evaluation `index` to a boundary that is one of the nodes, then the sampler: nearest first."""
    place = {float(node): i for i, node in enumerate(nodes)}
    boundaries = [j for j in range(index, plan.nfe) if plan.boundary[j] and float(plan.levels[j]) in place]
    for boundary in (*boundaries, plan.nfe):
        end = place[float(plan.levels[boundary])] if boundary < plan.nfe else len(nodes) - 1
        with suppress(GridError):
            if boundary == index:
                yield trace(card, nodes.tail(end), **options)
                continue
            path = [*plan.levels[index:boundary], nodes[end]]
            if any(t > s for s, t in pairwise(path)):
                continue
            grid = replace(nodes, levels=(path[0], *nodes.levels[end:]))
            grid = replace(grid, before=nodes.run_steps - len(grid) + 1)
            yield trace(first_order_until(card, options, path, len(nodes) - 1 - end), grid)


def followed(
    card: SamplerCard, options: dict[str, Any], run_plan: Plan, lead: int, convention: Convention, length: int,
    ratios: Sequence[float],
) -> tuple[Plan, int, None]:  # fmt: skip
    """A run's plan on other levels: ratios[j] for evaluation j, the last for the end; `length` evaluations with idle ones.

    Returns:
        The plan, and how many evaluations at its end change nothing (levels that repeat the end); no rewritten plan yet.

    Raises:
        GridError: levels that do not fall, or that the sampler would not ask at.
    """
    first = {float(level): j for j, level in reversed(list(enumerate(run_plan.levels)))}
    before, end = run_plan.grid.levels[:-1], ratios[-1]
    nodes = [(ratios[first[float(node)]] if float(node) in first else node.ratio, node.time) for node in before]
    while len(nodes) > 1 and nodes[-1][0] == end:
        nodes.pop()
    if any(a <= b for (a, _), (b, _) in pairwise([*nodes, (end, 0.0)])):
        raise GridError(f"sigmas must fall (only the last may be repeated at the end), got {show(ratios)}.")
    grid = Grid((*(convention.level(*node) for node in nodes), convention.level(end)), convention.schedule)
    plan = with_lead(card, options, grid, lead)
    idle = length - plan.nfe
    wanted = [*ratios[: plan.nfe], *[end] * max(idle, 0)]
    if idle < 0 or any(
        abs(level.ratio - r) > 1e-5 * r for level, r in zip(plan.levels, ratios) if math.isfinite(r)
    ) or list(ratios[:-1]) != wanted:
        raise GridError(
            f"{card.name!r} chooses levels inside its steps and cannot follow sigmas that were changed after "
            "set_timesteps; pass them to set_timesteps(sigmas=...), or choose a sampler with one evaluation a step."
        )
    return plan, idle, None


class Prediction(NamedTuple):
    """How to make the stored prediction of one evaluation: denoised = unit * stored.

    Attributes:
        from_output: stored = output + weight * latents; else stored = latents + weight * output.
        weight: See `from_output`.
        unit: What the stored prediction is multiplied by.
        unit_tensor: The same as a float32 tensor without dimensions (a product with it is cheaper than with a number).
    """

    from_output: bool
    weight: float
    unit: float
    unit_tensor: torch.Tensor


def prediction(w_x: float, w_out: float) -> Prediction:
    """The cheaper half of denoised = w_x * latents + w_out * output: the larger weight becomes the unit."""
    from_output = abs(w_out) > abs(w_x)
    unit, other = (w_out, w_x) if from_output else (w_x, w_out)
    return Prediction(from_output, other / unit, unit, torch.tensor(unit, dtype=torch.float32, device="cpu"))


@dataclass(frozen=True)
class NativePlan:
    """A plan for a pipeline's latents and the network's raw output. Immutable: copies share it.

    Attributes:
        plan: Rewritten (`rescale`): states are the latents, predictions are in units of their own.
        quick: The same for float32: the first weight of each sum is a tensor without dimensions, since a product with a
            number costs more than one with such a tensor.
        start: The evaluation of the layout where it begins.
        predictions: One for each evaluation; empty where the denoised prediction itself is stored (clipping).
        weights: (w_x, w_out) of each evaluation.
        prelude: Something happens to the latents before the first evaluation.
        keeps_latents: For each evaluation: its latents are read again later.
        stochastic: The plan draws.
    """

    plan: Plan
    quick: Plan
    start: int
    predictions: tuple[Prediction, ...]
    weights: tuple[tuple[float, float], ...]
    prelude: bool
    keeps_latents: tuple[bool, ...]
    stochastic: bool

    def __deepcopy__(self, memo: dict[int, Any]) -> NativePlan:
        return self

    def placed(self, device: torch.device | str | None) -> NativePlan:
        """The same with its constants on a device."""
        plan = place(self.plan, device)
        return self if plan is self.plan else replace(self, plan=plan, quick=quickened(plan))


def quickened(plan: Plan) -> Plan:
    """See `NativePlan.quick`."""
    segments = []
    for segment in plan.segments:
        (slot, weight), *rest = segment.x or ((0, 0.0),)
        first: Any = torch.tensor(weight, dtype=torch.float32, device="cpu")
        segments.append(segment._replace(x=((slot, first), *rest)))
    return replace(plan, segments=tuple(segments))


def rewrite(plan: Plan, convention: Convention, start: int) -> NativePlan:
    """A traced plan for the pipelines of a native class.

    Raises:
        TraceError: something is drawn before the first evaluation.
        DenoiserError: the prediction says nothing about x_0 at one of the levels.
    """
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
    states = [convention.scale(level) for level in (*plan.levels, plan.grid[-1])]
    start_scale = convention.scale(plan.grid[0])
    rewritten = rescale(plan, start_scale, states, units)
    return NativePlan(
        rewritten,
        quickened(rewritten),
        start,
        predictions,
        weights,
        bool(first.instructions or first.carry) or first.x != ((0, 1.0),) or start_scale != states[0],
        tuple(len(before.carry) in after.carry for before, after in pairwise(plan.segments)),
        plan.draws > 0,
    )
