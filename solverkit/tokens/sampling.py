"""A token run: what `sk.sample` does with a token model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from ..errors import BudgetError, OptionError
from ..grid.grid import Grid
from ..grid.named import make_grid
from ..model.counting import counting
from ..plan.clock import clocked, planning
from ..process.level import FLOW_FRAME, Level
from ..registry.decoders import resolve_decoder
from ..registry.registry import DecoderCard
from ..run.noise import sample_seeds
from ..run.result import Result
from .asked import AskedTokens
from .model import FREE
from .noise import START, TokenNoise

BATCH = 64


def sample_tokens(
    model: Any, sampler: Any, nfe: int | None, steps: int | None, *, num_samples: int | None = None,
    x: Tensor | None = None, seed: int | Sequence[int] = 0, grid: str | Grid | None = None,
    levels: Sequence[float] | None = None, device: Any = None, progress: bool = False,
    callback: Callable[..., None] | None = None, return_trajectory: bool = False, batch_size: int | None = None,
    options: dict[str, Any], **continuous: Any,
) -> Result:  # fmt: skip
    """Arguments as of `sk.sample`; x holds ids (B, L), the mask or -1 where nothing is given.

    `Result.reports` has, a sequence: `rows asked` and `rows evaluated` (without those answered from memory), `tokens per
    evaluation`, and `revealed`, (B, L): the number of the evaluation that revealed each token, -1 where it was given.
    """
    began = time.perf_counter()
    for name, value in continuous.items():
        if value is not None and value is not False and value != "raise":
            raise OptionError(f"sk.sample takes no {name}= with a token model: it belongs to continuous models.")
    card = resolve_decoder(sampler, model)
    options = card.check(options)
    with clocked() as clock:
        start, free, seeds = _start(model, num_samples, x, seed, device)
        with planning():
            run_grid = choose_grid(card, model.process, nfe, steps, grid, levels, options, int(free.sum(dim=1).max()))
        parts: list[Tensor] = []
        models: list[AskedTokens] = []
        states: list[list[Tensor]] = []
        size = BATCH if batch_size is None else batch_size
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise OptionError(f"batch_size must be a positive integer, got {batch_size!r}.")
        batches = [(a, min(a + size, len(start))) for a in range(0, len(start), size)]
        with ExitStack() as stack, counting() as count:
            tick = _progress(stack, card, run_grid, len(batches)) if progress else None
            for a, b in batches:
                states.append([])
                report = _report(states[-1] if return_trajectory else None, callback, tick)
                asked = AskedTokens(_rows(model, a, b, len(start)), start[a:b], free[a:b], report)
                noise = TokenNoise(seeds[a:b], start.shape[1], start.device)
                parts.append(run_decoder(card, asked, start[a:b], run_grid, noise, options))
                asked.watch(parts[-1])
                models.append(asked)
    out = torch.cat(parts)
    rows = count.rows
    made = int(free.sum())
    reports: dict[str, Any] = {
        "rows asked": sum(asked.asked for asked in models) / len(out),
        "rows evaluated": rows / len(out),
        "tokens per evaluation": made / max(rows, 1),
        "revealed": torch.cat([asked.revealed for asked in models]),
    }
    levels_asked = tuple(_level(level) for level in models[0].levels)
    return Result(
        out,
        rows / len(out),
        levels_asked,
        _stacked(states, parts) if return_trajectory else None,
        time.perf_counter() - began,
        sum(asked.seconds for asked in models),
        reports,
        clock.seconds,
        count.passes,
        asked=reports["rows asked"],
    )


def _level(level: float | Tensor) -> Level:
    """A level as it was asked for; the mean of one a sample."""
    return level if isinstance(level, Level) else Level(float(torch.as_tensor(level).double().mean()), frame=FLOW_FRAME)


def run_decoder(card: DecoderCard, model: Any, x: Tensor, grid: Grid, noise: Any, options: dict[str, Any]) -> Tensor:
    """The final ids of a decoder, after what it must not do was refused.

    Raises:
        OptionError: it changed a token that was given, or made ids that the model does not have.
    """
    out = card.fn(model, x.clone(), grid, noise, **options)
    if not isinstance(out, Tensor) or out.shape != x.shape or out.dtype != torch.long:
        raise OptionError(f"{card.name!r} must return ids of shape {tuple(x.shape)}, got {type(out).__name__}.")
    if bool(((out != x) & ~model.free).any()):
        raise OptionError(f"{card.name!r} changed tokens that were given: it may write only where model.free is true.")
    if grid[-1] == 0 and model.mask is not None and bool(((out == model.mask) & model.free).any()):
        raise OptionError(f"{card.name!r} left masks at noise level 0.")
    return out


def choose_grid(
    card: DecoderCard, process: Any, nfe: int | None, steps: int | None, grid: str | Grid | None,
    levels: Sequence[float] | None, options: dict[str, Any], free: int,
) -> Grid:  # fmt: skip
    """The levels of a run: given ones, or as many steps as `steps` says or `nfe` pays for.

    Without any of them a decoder that sets its own pace gets a step for each free token.

    Raises:
        OptionError: arguments that contradict each other.
        BudgetError: fewer evaluations than the decoder needs.
    """
    if levels is not None or isinstance(grid, Grid):
        if nfe is not None or steps is not None or (levels is not None and grid is not None):
            raise OptionError("levels are given, so nfe=, steps= and grid= must not be.")
        return grid if isinstance(grid, Grid) else Grid(tuple(process.at(float(m)) for m in levels or ()), process)
    if nfe is not None and steps is not None:
        raise OptionError("give nfe= or steps=, not both.")
    if nfe is None and steps is None:
        if not card.own_pace:
            raise OptionError(f"{card.name!r} needs nfe= or steps=.")
        steps = max(free, 1)
    elif nfe is not None:
        if isinstance(nfe, bool) or not isinstance(nfe, int) or nfe < 1:
            raise OptionError(f"nfe must be a positive integer, got {nfe!r}.")
        if card.exact == "always" and nfe < free:
            raise BudgetError(f"{card.name!r} takes one evaluation for each of {free} free tokens, got nfe={nfe}.")
        steps = card.steps_for(nfe, options)
    assert steps is not None
    return make_grid(grid or "uniform", process, steps)


def _start(
    model: Any, num_samples: int | None, x: Tensor | None, seed: Any, device: Any
) -> tuple[Tensor, Tensor, list[int]]:
    """Starting ids, which of them are free, and the keys of the samples.

    Raises:
        OptionError: no number of samples, no length, ids that the model does not have.
    """
    where = torch.device(device) if device is not None else model.device
    if (num_samples is None) == (x is None):
        raise OptionError("give exactly one of num_samples= and x= (ids, the mask or -1 where nothing is given).")
    if x is None:
        if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 1:
            raise OptionError(f"num_samples must be a positive integer, got {num_samples!r}.")
        if model.length is None:
            raise OptionError(
                "this model has no length of its own: wrap_tokens(..., length=), with_prompt(..., length=), or x=."
            )
        prompt = model.prompt if model.prompt is not None else torch.full((model.length,), FREE)
        x = prompt.expand(num_samples, model.length) if prompt.ndim == 1 else prompt
        if len(x) != num_samples:
            raise OptionError(f"the model has {len(x)} prompts, and num_samples={num_samples}.")
    if not isinstance(x, Tensor) or x.dtype != torch.long or x.ndim != 2 or not x.numel():
        raise OptionError("x must be ids (B, L) of dtype torch.long: a token model has no real-valued state.")
    x = x.to(where)
    free = x == FREE if model.mask is None else (x == FREE) | (x == model.mask)
    wrong = x[~free]
    if bool(((wrong < 0) | (wrong >= model.vocabulary)).any()) or bool(
        torch.isin(wrong, torch.tensor(model.never, device=where)).any()
    ):
        raise OptionError(
            f"x holds ids that are neither the model's (0 to {model.vocabulary - 1}) nor its mask ({model.mask})."
        )
    seeds = sample_seeds(seed, len(x))
    if model.mask is not None:
        return torch.where(free, model.mask, x), free, seeds
    flat = torch.zeros(*x.shape, model.vocabulary, device=where)
    return torch.where(free, TokenNoise(seeds, x.shape[1], where).token(flat, START, free), x), free, seeds


def _rows(model: Any, a: int, b: int, total: int) -> Any:
    """The model with the prompts of samples a .. b - 1."""
    prompt = model.prompt
    if prompt is None or prompt.ndim == 1 or (a, b) == (0, total):
        return model
    return model.with_prompt(prompt[a:b])


def _progress(stack: ExitStack, card: DecoderCard, grid: Grid, batches: int) -> Callable[[], None]:
    """A bar of evaluations; how many there will be is not known where a decoder sets its own pace."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TextColumn("evaluations"))
    bar = stack.enter_context(Progress(*columns, console=Console(stderr=True)))
    known = not card.own_pace and card.evaluations is None
    task = bar.add_task(card.name, total=(len(grid) - 1) * batches if known else None)
    return lambda: bar.advance(task)


def _report(
    kept: list[Tensor] | None, callback: Callable[..., None] | None, tick: Callable[[], None] | None
) -> Callable[..., None] | None:
    if kept is None and callback is None and tick is None:
        return None

    def report(evaluation: Any) -> None:
        if tick is not None:
            tick()
        if kept is not None:
            kept.append(evaluation.x.clone())
        if callback is not None:
            callback(evaluation._replace(x=evaluation.x.clone()))

    return report


def _stacked(states: list[list[Tensor]], parts: list[Tensor]) -> Tensor:
    """(evaluations + 1, B, L): every evaluated state and the end; a batch that ended sooner stays at its end."""
    longest = max(len(kept) for kept in states)
    return torch.cat([torch.stack([*kept, *[out] * (longest + 1 - len(kept))]) for kept, out in zip(states, parts)], dim=1)
