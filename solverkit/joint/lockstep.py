"""Plans in lockstep: the sampler is traced once for each component's grid, and one joint evaluation advances all plans.

Between two evaluations a component's update reads its own past alone. That is the Jacobi order of GDSS: the scores of all
components are asked at the same states, and then all of them move.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import TraceError
from ..grid.grid import Grid
from ..plan.plan import Plan, advance, begin
from ..plan.trace import trace
from ..process.level import Level
from ..registry.registry import SamplerCard
from .clock import level_at, place
from .grids import Grids

Draws = Mapping[str, Callable[[int, float, float], Any]]
Ask = Callable[[int, dict[str, Any]], Mapping[str, Any]]
TOGETHER = 1e-6  # of u: evaluations nearer than this are at one time


@dataclass
class Stages:
    """Times of the levels that the lead's trace asked for between its nodes, and which of them comes next."""

    times: list[float | None] = field(default_factory=list)
    leading: bool = True
    turn: int = 0


@dataclass(frozen=True)
class StagedGrid(Grid):
    """A grid whose levels between nodes are at the times of the lead's: the lead writes them down, the others follow."""

    stages: Stages = field(default_factory=Stages, compare=False, repr=False)

    def at(self, s: float) -> Level:
        if isinstance(s, Level):
            return s
        if self.stages.leading:
            level = super().at(s)
            self.stages.times.append(place(self.schedule, level))
            return level
        if self.stages.turn >= len(self.stages.times):
            raise TraceError("a component asks for more stages than the lead: they cannot share its times.")
        u = self.stages.times[self.stages.turn]
        self.stages.turn += 1
        return level_at(self.schedule, u)


def lockstep(
    card: SamplerCard, grids: Grids, options: Mapping[str, Mapping[str, Any]], lead: str, by_time: bool = False
) -> dict[str, Plan]:
    """The plan of each component.

    Args:
        card: The sampler.
        grids: As many nodes each.
        options: Of the sampler, for each component.
        lead: Whose stages the others follow with by_time.
        by_time: Stages of the other components are at the times of the lead's.

    Raises:
        TraceError: no plan, plans that do not evaluate together, or that ask more than E[x_0 | x].
    """
    plans: dict[str, Plan] = {}
    stages = Stages()
    if by_time and not _at_one_time(grids):
        raise TraceError("stages='time' needs grids that are at the same times; these levels were given otherwise.")
    for name in (lead, *(n for n in grids if n != lead)):
        grid = grids[name]
        if by_time:
            stages.leading, stages.turn = name == lead, 0
            grid = StagedGrid(grid.levels, grid.schedule, grid.on_step, grid.before, grid.rising, stages)
        plans[name] = trace(card, grid, **options[name])
        if plans[name].of or plans[name].to:
            raise TraceError(f"{card.name!r} asks a second model or level, and a system is asked for E[x_0 | x] alone.")
    for name in grids:
        if name != lead:
            _require_together(card.name, lead, plans[lead], name, plans[name], by_time)
    return {name: plans[name] for name in grids}


def _at_one_time(grids: Grids) -> bool:
    times = [[place(grid.schedule, level) for level in grid] for grid in grids.values()]
    return all(u == v or (u is not None and v is not None and _near(u, v)) for us in times for u, v in zip(us, times[0]))


def _require_together(sampler: str, lead: str, ours: Plan, name: str, theirs: Plan, by_time: bool) -> None:
    if ours.nfe != theirs.nfe:
        raise TraceError(
            f"{sampler!r} evaluates {lead!r} {ours.nfe} times and {name!r} {theirs.nfe} times: in lockstep all are "
            "evaluated together. Give both the same options that say how often it asks."
        )
    for j, (s, t) in enumerate(zip(ours.levels, theirs.levels)):
        u, v = place(ours.grid.schedule, s), place(theirs.grid.schedule, t)
        node = _node(ours.grid, s)
        together = node is not None and node == _node(theirs.grid, t)  # levels may be given at times of their own
        if ours.boundary[j] != theirs.boundary[j] or not (together or (u is not None and v is not None and _near(u, v))):
            where = ", ".join("noise level 0" if w is None else f"time {w:.6g}" for w in (u, v))
            way = (
                "It sets them itself, so stages='time' does not move them (a churn that raises levels does that): take"
                if by_time
                else f"Pass stages='time' (the stages of the other components are then at the times of {lead!r}'s), or take"
            )
            raise TraceError(
                f"the inner stages of {sampler!r} fall on different times: evaluation {j} of {lead!r} and {name!r} would "
                f"be at {where}, and the network is asked for both at once. {way} a sampler that evaluates at the "
                "grid's nodes alone: 'dpmpp-2m', 'unipc', 'deis', 'heun', 'pndm'."
            )


def _node(grid: Grid, level: Level) -> int | None:
    return next((i for i, node in enumerate(grid) if math.isclose(node, level, rel_tol=1e-12)), None)


def _near(u: float, v: float) -> bool:
    return math.isclose(u, v, rel_tol=TOGETHER, abs_tol=TOGETHER)


def drive(
    plans: Mapping[str, Plan], ask: Ask, xs: Mapping[str, Any], draws: Draws | None = None,
    edit: Callable[[int, dict[str, Any]], dict[str, Any]] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The states at the end of plans in lockstep.

    Args:
        plans: From `lockstep`.
        ask: ask(j, xs) -> denoised predictions by name, of evaluation j.
        xs: Starting states by name, in the frames of the plans (anything that `begin` takes).
        draws: draw(ordinal, s, t) of each component; needed by stochastic plans only.
        edit: edit(j, xs) -> xs before each evaluation that starts a step.
    """
    draw = {name: None if draws is None else draws[name] for name in plans}
    begun = {name: begin(plan, xs[name], draw[name]) for name, plan in plans.items()}
    now = {name: x for name, (x, _) in begun.items()}
    states = {name: state for name, (_, state) in begun.items()}
    first = next(iter(plans.values()))
    for j, boundary in enumerate(first.boundary):
        if boundary and edit is not None:
            now = edit(j, now)
        denoised = ask(j, now)
        moved = {name: advance(plan, states[name], now[name], denoised[name], draw[name]) for name, plan in plans.items()}
        now = {name: x for name, (x, _) in moved.items()}
        states = {name: state for name, (_, state) in moved.items()}
    return now
