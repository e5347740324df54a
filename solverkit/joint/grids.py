"""The levels of a system's run: one grid a component, node by node at the same time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from ..errors import GridError
from ..grid.grid import Grid
from ..process.schedule import Schedule
from ..registry.registry import SamplerCard
from ..run.choose import choose_grid
from .clock import earliest, level_at, place
from .model import JointDenoiser

Grids = Mapping[str, Grid]


def joint_grids(
    joint: JointDenoiser, card: SamplerCard, nfe: int | None, steps: int | None, grid: Any,
    levels: Any, options: Mapping[str, Any],
) -> dict[str, Grid]:  # fmt: skip
    """The grid of each component. A name, a budget, a `Grid` or levels are the lead's; the others follow its clock.

    Args:
        joint: The system.
        card, options: The sampler, and its options for the lead.
        nfe, steps, grid, levels: As of `sk.sample`; `levels` may be {name: levels} for all components.

    Raises:
        GridError: levels that are missing for a component, not as many, or that merge on one of the schedules.
    """
    if isinstance(levels, Mapping):
        return _given(joint, card, levels, nfe, steps, grid)
    lead = choose_grid(card, joint.lead_schedule, nfe, steps, grid, levels, dict(options))
    places = _within(joint, [place(joint.lead_schedule, level) for level in lead])
    return {name: _grid(name, part.schedule, places) for name, part in joint.components.items()}


def _within(joint: JointDenoiser, places: Sequence[float | None]) -> list[float | None]:
    """The times of a run, none earlier than all components were trained on; equal ones merged."""
    first = max(earliest(part.schedule) for part in joint.components.values())
    kept: list[float | None] = []
    for u in places:
        u = None if u is None else min(max(u, first), 1.0)
        if not kept or u is None or kept[-1] is None or u < kept[-1] * (1 - 1e-9):
            kept.append(u)
    return kept


def _grid(name: str, schedule: Schedule, places: Sequence[float | None]) -> Grid:
    levels = tuple(level_at(schedule, u) for u in places)
    made = Grid(levels, schedule) if all(s > t for s, t in pairwise(levels)) else None
    if made is None or len(made) != len(places):
        raise GridError(
            f"{len(places) - 1} steps fall on fewer levels of {name!r} ({type(schedule).__name__}): take fewer steps, or "
            " wrap it with integer_time=False if its network takes times in between."
        )
    return made


def _given(
    joint: JointDenoiser, card: SamplerCard, levels: Mapping[str, Sequence[float]], nfe: Any, steps: Any, grid: Any
) -> dict[str, Grid]:
    if set(levels) != set(joint.components):
        raise GridError(f"levels are given for {sorted(levels)}; the components are {sorted(joint.components)}.")
    grids = {
        name: choose_grid(card, part.schedule, nfe, steps, grid, levels[name], {})
        for name, part in joint.components.items()
    }
    if len({len(g) for g in grids.values()}) != 1:
        raise GridError(f"components need as many levels: {({n: len(g) for n, g in grids.items()})} (equal ones merge).")
    return grids
