"""All evaluations of a run: how many, at which levels, and what pipelines read of them.

A pipeline counts its steps and may start anywhere, so the run is laid out once for all evaluations (`lay_out`) and traced
again from the evaluation where a pipeline starts (`start_at`), or on levels that a pipeline changed (`followed`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch

from ..errors import GridError, OptionError, TraceError
from ..grid.grid import Grid, show
from ..plan.plan import Plan
from ..plan.trace import trace
from ..process.level import Level
from ..registry.registry import SamplerCard, resolve
from .convention import Convention
from .lay_out import first_order_until, with_lead
from .stepper import Stepper, rewrite


@dataclass(frozen=True)
class Timetable:
    """What `set_timesteps` worked out. Immutable: copies share it, and the next call with the same arguments keeps it.

    Attributes:
        convention: How the latents are to be read.
        sampler, options: The sampler by name.
        plan: From the first evaluation to the last, in the frame of the process.
        timesteps, sigmas: What the pipeline reads; sigmas has at least one more.
        order: Timesteps a step, as pipelines read it: 2 where each step has two evaluations (the last may have one).
        lead: How many first-order steps fill the beginning.
        idle: Timesteps behind the plan's last that change nothing.
        init_noise_sigma: What pipelines multiply unit noise by.
        learned: The kind of variance that the network answers and this sampler uses; None for others.
        key: What it was worked out for.
    """

    convention: Convention
    sampler: str
    options: Mapping[str, Any]
    plan: Plan
    timesteps: torch.Tensor
    sigmas: torch.Tensor
    order: int = 1
    lead: int = 0
    idle: int = 0
    init_noise_sigma: Any = 1.0
    learned: str | None = None
    key: tuple[Any, ...] = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> Timetable:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "whole"}

    @functools.cached_property
    def length(self) -> int:
        """How many timesteps the run has."""
        return self.plan.nfe + self.idle

    def level(self, index: int) -> Level:
        """The level of a timestep; that of the end behind the last."""
        return self.plan.levels[index] if index < self.plan.nfe else self.plan.grid[-1]

    @property
    def card(self) -> SamplerCard:
        """The sampler's card."""
        return resolve(self.sampler)

    @functools.cached_property
    def whole(self) -> Stepper:
        """The plan from the first timestep, rewritten for float32 latents."""
        return rewrite(self.plan, self.convention, 0)

    def stepper(self, index: int, dtype: torch.dtype) -> Stepper:
        """The plan from a timestep on, rewritten.

        Raises:
            TraceError: the sampler asks at other levels when it starts there.
        """
        if index == 0 and dtype is torch.float32:
            return self.whole
        return rewrite(start_at(self, index), self.convention, index, dtype)

    def on(self, levels: Sequence[float]) -> Timetable:
        """The same run on other levels (`followed`).

        Raises:
            GridError: levels that do not fall, or that the sampler would not ask at.
        """
        if list(levels) == self.sigmas.tolist():
            return self
        if len(levels) != len(self.sigmas):
            raise GridError(f"sigmas must stay of length {len(self.sigmas)}, got {len(levels)}.")
        ratios = [self.convention.from_sigma(s) for s in levels[: self.length + 1]]
        plan, idle = followed(self, ratios)
        with torch.inference_mode(False):
            return replace(self, plan=plan, idle=idle, sigmas=torch.tensor(levels, dtype=torch.float32, device="cpu"))

    def noisier(self, eta: float) -> Timetable:
        """The same run with a pipeline's eta, for a sampler of DDIM's kind whose own default is 0.

        Raises:
            OptionError: the run goes from data to noise.
        """
        if not eta or "eta" in self.options or self.card.defaults.get("eta") != 0:
            return self
        if self.plan.grid.rising:
            raise OptionError(f"a run from data to noise draws nothing, got eta={eta}; leave eta out.")
        options = {**self.options, "eta": eta}
        plan = with_lead(self.card, options, self.plan.grid, self.lead)
        return replace(self, options=options, plan=replace(plan, levels=self.plan.levels))


def nearest(told: Sequence[float], timestep: Any, plan: Plan | None) -> int:
    """The index of the nearest of the told timesteps; of equal ones the first that starts a step."""
    value = float(timestep.flatten()[0] if isinstance(timestep, torch.Tensor) else timestep)
    distance = min(abs(t - value) for t in told)
    found = [i for i, t in enumerate(told) if abs(t - value) == distance]
    starts = [i for i in found if plan is None or i >= plan.nfe or plan.boundary[i]]
    return (starts or found)[0]


def start_at(table: Timetable, index: int) -> Plan:
    """The plan of the run that begins at evaluation `index`, with the same levels as the whole has from there on.

    A start inside a step takes first-order steps to the next boundary.

    Raises:
        TraceError: the sampler asks at other levels when it starts there.
    """
    plan = table.plan
    if index == 0:
        return plan
    wanted = plan.levels[index:]
    for nodes in (plan.grid, _boundary_nodes(plan)):
        for found in _from(nodes, table, index):
            if [float(s) for s in found.levels] == [float(s) for s in wanted]:
                return replace(found, levels=wanted)
    raise TraceError(
        f"{table.card.name!r} started at evaluation {index} of {plan.nfe} asks for other noise levels than the pipeline's "
        "timesteps have; start at the first one, or choose another sampler for a run that begins in the middle."
    )


def _boundary_nodes(plan: Plan) -> Grid:
    """A grid of the levels where steps begin, for samplers that lay out levels of their own."""
    nodes = [level for level, first in zip(plan.levels, plan.boundary) if first]
    return replace(plan.grid, levels=(*nodes, plan.grid[-1]), before=0)


def _from(nodes: Grid, table: Timetable, index: int) -> Iterator[Plan]:
    """First-order steps from evaluation `index` to a boundary that is one of the nodes, then the sampler: nearest first."""
    plan, card, options = table.plan, table.card, table.options
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


def followed(table: Timetable, ratios: Sequence[float]) -> tuple[Plan, int]:
    """A run's plan on other levels: ratios[j] for evaluation j, the last for the end.

    Returns:
        The plan, and how many evaluations at its end change nothing (levels that repeat the end).

    Raises:
        GridError: levels that do not fall, or that the sampler would not ask at.
    """
    card, convention = table.card, table.convention
    if table.plan.grid.rising:
        raise GridError("the sigmas of a run from data to noise cannot be changed; call set_timesteps for other levels.")
    first = {float(level): j for j, level in reversed(list(enumerate(table.plan.levels)))}
    before, end = table.plan.grid.levels[:-1], ratios[-1]
    nodes = [(ratios[first[float(node)]] if float(node) in first else node.ratio, node.time) for node in before]
    while len(nodes) > 1 and nodes[-1][0] == end:
        nodes.pop()
    if any(a <= b for (a, _), (b, _) in pairwise([*nodes, (end, 0.0)])):
        raise GridError(f"sigmas must fall (only the last may be repeated at the end), got {show(ratios)}.")
    grid = Grid((*(convention.level(*node) for node in nodes), convention.level(end)), convention.schedule)
    plan = with_lead(card, table.options, grid, table.lead)
    idle = table.length - plan.nfe
    wanted = [*ratios[: plan.nfe], *[end] * max(idle, 0)]
    if (
        idle < 0
        or any(abs(level.ratio - r) > 1e-5 * r for level, r in zip(plan.levels, ratios) if math.isfinite(r))
        or list(ratios[:-1]) != wanted
    ):
        raise GridError(
            f"{card.name!r} chooses levels inside its steps and cannot follow sigmas that were changed after "
            "set_timesteps; pass them to set_timesteps(sigmas=...), or choose a sampler with one evaluation a step."
        )
    return plan, idle
