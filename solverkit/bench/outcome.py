"""What a cell makes, and what it cost: all of its samples or a block, by our samplers, decoders, or another library's.

Sample i depends on its own seed alone, and blocks end where batches end, so that blocks which were made by any number of
workers are together what one process makes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from ..plan.trace import trace
from ..registry.registry import registry
from ..run.choose import choose_grid, default_grid
from ..run.noise import sample_seeds
from ..run.sampling import sample
from .accounting import watching
from .caching import cached
from .named import find_sampler, is_peer
from .peers import default_peer_grid, run_peer
from .subject import Subject
from .suite import NO_CACHE, Cell
from .untraceable import Drawn, can_be_traced, fitted_steps


class Outcome(NamedTuple):
    """Samples start .. stop - 1 of a cell.

    Attributes:
        x: The samples, on the host.
        start: The first one's index.
        rows, asked: What the network evaluated, and what the sampler asked for, in rows.
        passes, products: Calls of the network, and products with its Jacobian.
        seconds, seconds_model, seconds_plan: Wall time from the call to the samples, and its parts.
        deterministic: Whether no noise was drawn.
        blocks: Share of the network's blocks that was run; None where it has none.
        reports: What the sampler said.
    """

    x: torch.Tensor
    start: int
    rows: float
    asked: float
    passes: int
    products: int
    seconds: float
    seconds_model: float
    seconds_plan: float
    deterministic: bool
    blocks: float | None
    reports: dict[str, float | str]


def grid_of(cell: Cell, subject: Subject, given: Mapping[str, Any]) -> str:
    """The grid that a cell runs on: what the suite says, or the sampler's own."""
    if cell.grid is not None:
        return cell.grid
    if is_peer(cell.sampler):
        return default_peer_grid(cell.sampler, subject.denoiser.schedule)
    return default_grid(find_sampler(cell.sampler, given), subject.denoiser.schedule)


def blocks_of(cell: Cell, subject: Subject, batches: int | None = None) -> list[tuple[int, int]]:
    """(start, stop) of the blocks of a cell: so many batches each, or all of them together."""
    n = cell.model.num_samples
    size = n if batches is None else batches * subject.batch_size
    return [(a, min(a + size, n)) for a in range(0, n, size)]


def make_block(
    cell: Cell, subject: Subject, given: Mapping[str, Any], start: int = 0, stop: int | None = None
) -> Outcome:
    """Samples start .. stop - 1 of a cell; the wall time is that of a user's call.

    Args:
        cell: Which.
        subject: Its model.
        given: Objects behind names (`Suite.given`).
        start, stop: Where the block begins and ends; default all samples.
    """
    n = cell.model.num_samples
    stop = n if stop is None else stop
    denoiser = subject.denoiser
    if (start, stop) != (0, n) and callable(rows := getattr(denoiser, "rows", None)):
        denoiser = rows(start, stop, n)
    if cell.cache != NO_CACHE:
        denoiser = cached(denoiser, cell.cache)
    grid, seeds = grid_of(cell, subject, given), sample_seeds(cell.seed, n)[start:stop]
    make = _decoded if subject.of_tokens else _peer if is_peer(cell.sampler) else _own
    return make(cell, denoiser, grid, seeds, subject.batch_size, given)._replace(start=start)


def joined(outcomes: Sequence[Outcome], seconds: float | None = None) -> Outcome:
    """Blocks as one outcome; their seconds are added up, or are the wall time that is given."""
    parts = sorted(outcomes, key=lambda part: part.start)
    if len(parts) == 1:
        return parts[0]
    n = sum(len(part.x) for part in parts)
    passes = sum(part.passes for part in parts)
    work = [part.blocks * part.passes for part in parts if part.blocks is not None]
    reports: dict[str, float | str] = {}
    for name in parts[0].reports:
        said = [(part.reports.get(name), len(part.x)) for part in parts]
        numbers = [(value, size) for value, size in said if isinstance(value, float)]
        reports[name] = sum(v * size for v, size in numbers) / n if len(numbers) == len(parts) else str(said[-1][0])
    return Outcome(
        torch.cat([part.x for part in parts]), 0, sum(part.rows for part in parts), sum(part.asked for part in parts),
        passes, sum(part.products for part in parts), sum(part.seconds for part in parts) if seconds is None else seconds,
        sum(part.seconds_model for part in parts), sum(part.seconds_plan for part in parts),
        all(part.deterministic for part in parts), sum(work) / passes if work else None, reports,
    )  # fmt: skip


def _own(
    cell: Cell, denoiser: Any, grid: str, seeds: list[int], batch_size: int, given: Mapping[str, Any]
) -> Outcome:
    card = find_sampler(cell.sampler, given)
    nfe: int | None = cell.nfe
    steps, drawn = None, Drawn(card)
    if untraceable := card.name not in registry().cards["samplers"] and not can_be_traced(card, denoiser, cell, grid):
        nfe, steps, card = None, fitted_steps(card, denoiser, cell, grid), drawn.card
    with watching(denoiser) as work:
        made = sample(
            denoiser, card, nfe, steps, num_samples=len(seeds), seed=seeds, grid=grid, batch_size=batch_size,
            **cell.options,
        )  # fmt: skip
    deterministic = not drawn.any if untraceable else draws_nothing(cell, denoiser, grid, given)
    return Outcome(
        made.x.cpu(), 0, made.nfe * len(seeds), made.asked * len(seeds), made.passes, made.products, work.seconds,
        made.seconds_model, made.seconds_plan, deterministic, work.blocks.share,
        {name: value if isinstance(value, str) else speakable(value) for name, value in made.reports.items()},
    )  # fmt: skip


def _decoded(
    cell: Cell, model: Any, grid: str, seeds: list[int], batch_size: int, given: Mapping[str, Any]
) -> Outcome:
    card = find_sampler(cell.sampler, given)
    # who sets its own pace gets a step for each token; the budget is the ceiling
    nfe, steps = (None, model.length) if getattr(card, "own_pace", False) else (cell.nfe, None)
    with watching(model) as work:
        made = sample(
            model, card, nfe, steps, num_samples=len(seeds), seed=seeds, grid=grid, batch_size=batch_size, **cell.options
        )
    reports = {name: value for name, value in made.reports.items() if isinstance(value, (float, str))}
    return Outcome(
        made.x.cpu(), 0, made.nfe * len(seeds), made.asked * len(seeds), made.passes, 0, work.seconds, made.seconds_model,
        made.seconds_plan, False, work.blocks.share, reports,
    )  # fmt: skip


def _peer(
    cell: Cell, denoiser: Any, grid: str, seeds: list[int], size: int, given: Mapping[str, Any]
) -> Outcome:
    with watching(denoiser) as work:
        parts = [
            run_peer(denoiser, cell.sampler, cell.nfe, seed=seeds[a : a + size], grid=grid, options=cell.options)
            for a in range(0, len(seeds), size)
        ]
    rows = sum(part.nfe * len(part.x) for part in parts)
    return Outcome(
        torch.cat([part.x.cpu() for part in parts]), 0, rows, sum(part.asked for part in parts),
        sum(part.passes for part in parts), 0, work.seconds, sum(part.seconds_model for part in parts),
        sum(part.seconds_plan for part in parts), all(part.deterministic for part in parts), work.blocks.share, {},
    )  # fmt: skip


def draws_nothing(cell: Cell, denoiser: Any, grid: str, given: Mapping[str, Any]) -> bool:
    """Whether the sampler draws no noise on this grid; told by its plan."""
    card = find_sampler(cell.sampler, given)
    if not card.takes_budget:
        return card.order is not None  # stochastic methods declare none
    card, options = card.pace(card.prepared(denoiser, cell.options, (cell.model.num_samples, *denoiser.shape)))
    return trace(card, choose_grid(card, denoiser.schedule, cell.nfe, None, grid, None, options), **options).draws == 0


def speakable(value: float) -> float | str:
    """JSON has no NaN."""
    return value if abs(value) < float("inf") else str(value)
