"""How the proofs run a sampler: pulled, or as a plan; on small exact targets in every frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import TraceError
from ..grid.grid import Grid
from ..grid.named import make_grid
from ..plan.plan import Plan, advance, begin
from ..plan.trace import trace
from ..process.places import level_bits
from ..process.schedule import EDM, Flow, Schedule
from ..process.variance_preserving import VP
from ..registry.registry import SamplerCard
from ..run.noise import Noise, SampleNoise, sample_seeds
from ..targets.exact import ExactDenoiser, mixture
from .branching import branch
from .finding import CheckError


def schedules() -> list[Schedule]:
    return [EDM(), VP(continuous=True), Flow()]


@contextmanager
def framed(schedule: Schedule) -> Iterator[None]:
    """Name the process in whatever fails inside the block: the figures of a check begin with it, an error notes it."""
    name = "VP" if type(schedule).__name__.endswith("VP") else type(schedule).__name__
    try:
        yield
    except CheckError as error:
        raise error.on(name) from error.__cause__
    except Exception as error:
        error.__notes__ = [*getattr(error, "__notes__", []), f"on {name}"]  # type: ignore[attr-defined]
        raise


def traced(card: SamplerCard, grid: Grid, options: Mapping[str, Any]) -> Plan:
    """The sampler's plan. Where there is none because it branches on values, the error says so, whatever the symbol said.

    Raises:
        TraceError: the sampler has no plan.
    """
    try:
        return trace(card, grid, **options)
    except TraceError as error:
        target = mixture(dim=4, modes=3, schedule=grid.schedule)
        line = branch(lambda model, x: run(card, model, x, grid, options), target, start(grid, 2, 4))
        if line is None:
            raise
        raise TraceError(
            f"{card.name!r} branches on the value of a state ({line}) and has no plan: it is pull-only. Register it with "
            "traceable=False; it then runs in sk.sample."
        ) from error


def remembers(card: SamplerCard, options: Mapping[str, Any]) -> bool:
    """Whether a step uses what an earlier step evaluated: a multistep method, by its plan."""
    if getattr(card, "multistep", False):
        return True
    plan = traced(card, short_grids()[0][1], options)
    return any(plan.segments[j].carry for j in range(1, plan.nfe) if plan.boundary[j])


def run(
    card: SamplerCard, model: Any, x: torch.Tensor, grid: Grid, options: Mapping[str, Any], seed: int = 0
) -> torch.Tensor:
    draw = SampleNoise(sample_seeds(seed, len(x)), x.shape[1:], x.dtype)
    return card.fn(model, x, grid, Noise(draw), **options)


def drive(
    plan: Plan,
    model: Any,
    x: torch.Tensor,
    seed: int | Sequence[int] = 0,
    edit: Callable[[int, torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    draw = SampleNoise(sample_seeds(seed, len(x)), x.shape[1:], x.dtype)
    x, state = begin(plan, x, draw)
    for j in range(plan.nfe):
        if edit is not None:
            x = edit(j, x)
        x, state = advance(plan, state, x, plan.ask(j, model, x), draw)
    return x


def short_grids(steps: int = 7) -> list[tuple[Any, Grid]]:
    return [
        (mixture(dim=4, modes=3, schedule=schedule), make_grid("flow" if schedule.frame else "karras", schedule, steps))
        for schedule in schedules()
    ]


def start(grid: Grid, batch: int, dim: int, seed: int = 1) -> torch.Tensor:
    draw = SampleNoise(sample_seeds(seed, batch), (dim,), torch.float64)
    return draw(0) * float(grid[0])


def in_one_run(plans: Sequence[Plan], target: ExactDenoiser) -> tuple[torch.Tensor, torch.Tensor]:
    """Exact mean and standard deviation, (D,) each, of a run on a Gaussian along the axes, in as many parts as plans.

    A run is linear in its start and its draws, so a row a draw, with that draw alone set to 1, gives them without Monte
    Carlo. A draw belongs to its place: two parts that ask for the same place see the same draw.
    """
    mean, variances = target.target.means[0], target.target.eigenvalues[0]
    places = list(dict.fromkeys(place for plan in plans for place in draws_of(plan)))
    s, rows = plans[0].grid[0], len(places) + 2
    x = (s.alpha * mean).repeat(rows, 1)
    x[1] += (s.alpha**2 * variances + float(s) ** 2).sqrt()

    def draw(ordinal: int, s: float, t: float) -> torch.Tensor:
        z = torch.zeros(rows, len(mean), dtype=torch.float64)
        z[2 + places.index(place_of(ordinal, s, t))] = 1.0
        return z

    for plan in plans:
        x, state = begin(plan, x, draw)
        for j in range(plan.nfe):
            x, state = advance(plan, state, x, plan.ask(j, target, x), draw)
    return x[0], (x[1:] - x[0]).square().sum(dim=0).sqrt()


def place_of(ordinal: int, s: float, t: float) -> tuple[int, int, int]:
    """The place that a draw belongs to, as `SampleNoise` sees it."""
    return ordinal, level_bits(s), level_bits(t)


def draws_of(plan: Plan) -> list[tuple[int, int, int]]:
    """The places of a plan's draws, in order."""
    return [place_of(*i.payload) for segment in plan.segments for i in segment.instructions if i.kind == "draw"]
