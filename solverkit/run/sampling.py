"""sk.sample: run a sampler against a denoiser, by calling it with tensors (pull) or by driving its plan (constrain=)."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import torch

from ..errors import NonFiniteError, OptionError, TraceError
from ..grid.grid import Grid
from ..model.counting import reporting
from ..model.denoiser import DenoiserLike, Prior
from ..model.several import with_models
from ..model.towards import shift_of
from ..plan.clock import clocked, planning
from ..plan.plan import advance, begin
from ..plan.trace import trace
from ..process.schedule import Schedule
from ..registry.registry import DecoderCard, SamplerCard, resolve
from .asked import Asked, Nonfinite
from .choose import choose_grid
from .noise import CONSTRAINT, Noise, SampleNoise
from .result import Evaluation, Result
from .start import Start
from .trajectory import Trajectory

BATCH = 512  # samples that a run evaluates at once where nothing is said
NUMBERS = 2**26  # and at most so many numbers
EXPLODED = 100.0  # times as large as the first predictions: a run has left the data

HINTS = {
    "labels": "labels belong to the denoiser: sk.load(name, labels=...), or denoiser.with_inputs(class_labels=...)",
    "class_labels": "labels belong to the denoiser: sk.load(name, labels=...), or denoiser.with_inputs(class_labels=...)",
    "guidance": "guidance belongs to the denoiser: sk.load(name, guidance=...), or solverkit.guidance.classifier_free(...)",
    "guidance_scale": "guidance belongs to the denoiser: solverkit.guidance.classifier_free(..., scale=...)",
    "generator": "draws are keyed by seed: pass seed=, an int or one a sample, in the place of a generator",
    "num_inference_steps": "say nfe= (network evaluations) or steps= (grid steps)",
}


def sample(
    denoiser: DenoiserLike,
    sampler: str | SamplerCard | DecoderCard | Callable[..., Any],
    nfe: int | None = None,
    steps: int | None = None,
    *,
    num_samples: int | None = None,
    shape: Sequence[int] | None = None,
    x: torch.Tensor | None = None,
    seed: int | Sequence[int] = 0,
    grid: str | Grid | None = None,
    levels: Sequence[float] | None = None,
    constrain: Callable[..., torch.Tensor] | None = None,
    device: Any = None,
    dtype: torch.dtype | None = None,
    progress: bool = False,
    callback: Callable[[Evaluation], None] | None = None,
    return_trajectory: bool = False,
    batch_size: int | None = None,
    on_nonfinite: Nonfinite = "raise",
    prior: Prior | None = None,
    grad: bool = False,
    models: Mapping[str, DenoiserLike] | None = None,
    **options: Any,
) -> Result:
    """Sample a pretrained network.

    Args:
        denoiser: From `sk.wrap`, `sk.load`, `solverkit.problems` or `solverkit.guidance`; or a token model.
        sampler: A registered name, its options behind it if you like ("unipc:order=2"), or a function
            (model, x, grid, noise, **options) -> x.
        nfe: Ceiling on network evaluations; the largest step count that fits is used.
        steps: Number of grid steps.
        num_samples: How many samples, where the denoiser knows their shape.
        shape: Shape of the whole batch, (B, ...).
        x: The starting state in the model's own coordinates at the first level (unit normal for VP), (B, ...).
        seed: 0 to 2^63 - 1, or one key a sample (`solverkit.run.noise.sample_seeds`). Sample i depends on its own key
            alone, never on the batch; draws belong to intervals, so a run in parts draws what the whole run draws.
        grid: A grid's name or a `Grid`. Default: "flow" where the model starts at alpha = 0, "trailing" on discrete
            timesteps, else "karras"; or the sampler's own choice.
        levels: Explicit falling levels, sigma / alpha (sigma in [0, 1] for flow), run exactly as given.
        constrain: constrain(x, level, draw) -> x edits the state (in the frame: x = alpha x_0 + s eps) before each
            evaluation that starts a step; draw(s, t) gives noise. If it has a method finish(x) -> x, that edits the end of
            a run to noise level 0. Needs a traceable sampler. `solverkit.constraints` has some.
        device, dtype: Of the state, float32 or float64; default the denoiser's device and float32 (float64 if x is).
        progress: Show a progress bar.
        callback: Called with an `Evaluation` after each one.
        return_trajectory: Keep every evaluated state.
        batch_size: Samples that are run at once; default at most 512, fewer where samples are large. The samples are the
            same whatever it is, unless a sampler's rule is one of the whole batch.
        on_nonfinite: What NaN or inf in a prediction does: "raise", or "mark" the sample (it is NaN at the end, named in
            `Result.nonfinite`) and go on with the others.
        prior: A source that is not Gaussian, as a function of unit normal noise (B, ...) -> x; deterministic samplers only.
        grad: Keep gradients, of x and of the network's parameters. They cost the memory of all evaluations.
        models: Other models that the sampler asks beside the denoiser, by name: {"weak": other}. The names are the
            sampler's to say; evaluations are counted for each (`Result.nfe_of`).
        options: Options of the sampler.

    Raises:
        SolverKitError: one of its children, saying what was given, what was expected, and what to do.
    """
    if callable(decode := getattr(denoiser, "sampled_by", None)):  # tokens: nothing below is for them
        return decode(  # type: ignore[no-any-return]
            sampler, nfe, steps, num_samples=num_samples, shape=shape, x=x, seed=seed, grid=grid, levels=levels,
            constrain=constrain, device=device, dtype=dtype, progress=progress, callback=callback,
            return_trajectory=return_trajectory, batch_size=batch_size, on_nonfinite=on_nonfinite, prior=prior, grad=grad,
            models=models, options=options,
        )  # fmt: skip
    began = time.perf_counter()
    with clocked() as clock, reporting() as said:
        denoiser = denoiser if models is None else with_models(denoiser, **models)
        card = _card(denoiser, sampler, options, callback, constrain)
        start = Start(denoiser, num_samples, shape, x, seed, device, dtype, prior, grad)
        with planning():
            options = card.prepared(denoiser, options, start.shape)
            run_grid = choose_grid(card, denoiser.schedule, nfe, steps, grid, levels, options)
        _require_gaussian(card, run_grid, options, start, constrain)
        batches = _batches(start.shape, batch_size, _divisible(denoiser) and (constrain is None or _divisible(constrain)))
        kept = Trajectory(start, batches) if return_trajectory else None
        with torch.set_grad_enabled(grad), ExitStack() as stack:
            tick = _progress(stack, card, run_grid, options, len(batches)) if progress else None
            parts, asked = [], []
            for a, b in batches:
                report = _reporter(kept, tick, callback)
                part = denoiser if (a, b) == (0, len(start.noise.seeds)) else _rows(denoiser, a, b, len(start.noise.seeds))
                model = Asked(part, run_grid, b - a, on_nonfinite, report)
                out = _run(card, model, start, a, b, constrain, options)
                if kept is not None:
                    kept.close(out, card.name)
                parts.append(out)
                asked.append(model)
    out = parts[0] if len(parts) == 1 else torch.cat(parts)
    nonfinite = _checked(card, out, parts, asked, run_grid)
    rows, passes = sum(model.rows for model in asked), sum(model.passes for model in asked)
    return Result(
        out, rows / len(out), tuple(asked[0].levels), None if kept is None else kept.states,
        time.perf_counter() - began, sum(model.seconds for model in asked),
        {name: _said(values) for name, values in said.items()}, clock.seconds, passes, nonfinite,
        sum(model.asked for model in asked) / len(out), sum(model.products for model in asked),
        {name: sum(model.rows_of.get(name, 0) for model in asked) / len(out) for name in asked[0].rows_of},
    )  # fmt: skip


def _card(denoiser: Any, sampler: Any, options: dict[str, Any], callback: Any, constrain: Any) -> SamplerCard:
    """The sampler's card, after all that can be refused before a run was refused."""
    card = resolve(sampler)
    for name, hint in HINTS.items():
        if name in options and name not in card.options:
            raise OptionError(f"sk.sample takes no {name}=: {hint}.")
    if not isinstance(getattr(denoiser, "schedule", None), Schedule) or not callable(denoiser):
        raise OptionError(f"denoiser must come from sk.load or sk.wrap, got {type(denoiser).__name__}: {denoiser!r:.60}.")
    for label, hook in (("callback", callback), ("constrain", constrain)):
        if hook is not None and not callable(hook):
            raise OptionError(f"{label} must be a function, got {type(hook).__name__}.")
    if constrain is not None and not card.traceable:
        raise OptionError(f"constrain= drives a plan, and {card.name!r} has none (pull-only); choose another sampler.")
    card.check(options, partial=True)
    return card


def _batches(shape: tuple[int, ...], batch_size: int | None, divisible: bool) -> list[tuple[int, int]]:
    """(start, stop) of the samples that are run together; all where nobody said how their inputs could be divided."""
    if batch_size is None and not divisible:
        batch_size = shape[0]
    elif batch_size is None:
        one = max(int(torch.Size(shape[1:]).numel()), 1)
        batch_size = max(min(BATCH, NUMBERS // one), 1)
    elif isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise OptionError(f"batch_size must be a positive integer, got {batch_size!r}.")
    return [(a, min(a + batch_size, shape[0])) for a in range(0, shape[0], batch_size)]


def _divisible(part: Any) -> bool:
    """Whether it says how its inputs are divided among the batches of a run."""
    return callable(getattr(part, "rows", None))


def _rows(denoiser: Any, start: int, stop: int, total: int) -> Any:
    """The denoiser with the inputs of samples start .. stop - 1; itself where it has none of its own for each sample."""
    rows = getattr(denoiser, "rows", None)
    return rows(start, stop, total) if callable(rows) else denoiser


def _reporter(
    kept: Trajectory | None, tick: Callable[[], None] | None, callback: Callable[[Evaluation], None] | None
) -> Callable[[Evaluation], None] | None:
    if kept is None and tick is None and callback is None:
        return None

    def report(evaluation: Evaluation) -> None:
        if kept is not None:
            kept.add(evaluation.x if callback is None else evaluation.x.clone())
        if tick is not None:
            tick()
        if callback is not None:
            callback(evaluation)

    return report


def _run(
    card: SamplerCard, model: Asked, start: Start, a: int, b: int, constrain: Callable[..., torch.Tensor] | None,
    options: dict[str, Any],
) -> torch.Tensor:  # fmt: skip
    """Samples a .. b - 1 at the end of the run, in the model's own coordinates."""
    grid = model.grid
    state, draw = start.rows(grid[0], a, b)
    shift = shift_of(model.denoiser)
    if shift is not None and start.x is not None:
        state = state - shift.to(state)
    state = state / grid[0].scale
    if constrain is None:
        state = card.fn(model, state, grid, Noise(draw), **options)
    else:
        state = _push(card, model, state, draw, constrain, options, (a, b, start.shape[0]))
    if not isinstance(state, torch.Tensor):
        raise OptionError(f"{card.name!r} returned {type(state).__name__}, expected the final state.")
    own = state * grid[-1].scale
    return own if shift is None else own + shift.to(own)


def _push(
    card: SamplerCard, model: Asked, x: torch.Tensor, draw: SampleNoise, constrain: Callable[..., torch.Tensor],
    options: dict[str, Any], batch: tuple[int, int, int],
) -> torch.Tensor:  # fmt: skip
    if batch[:2] != (0, batch[2]):
        constrain = _rows(constrain, *batch)
    plan = trace(card, model.grid, **options)
    edits = Noise(lambda ordinal, s, t: draw(CONSTRAINT + ordinal, s, t))
    x, state = begin(plan, x, draw)
    for j, (level, boundary) in enumerate(zip(plan.levels, plan.boundary)):
        if boundary:
            edited = constrain(x, level, edits)
            if not isinstance(edited, torch.Tensor) or edited.shape != x.shape:
                raise OptionError(f"constrain must return the edited state of shape {tuple(x.shape)}.")
            x = edited.to(x.dtype)
        x, state = advance(plan, state, x, plan.ask(j, model, x), draw)
    finish = getattr(constrain, "finish", None)
    return finish(x) if finish is not None and plan.grid[-1] == 0 else x


def _require_gaussian(card: SamplerCard, grid: Grid, options: dict[str, Any], start: Start, constrain: Any) -> None:
    """Noise of a run is that of a Gaussian path: another source allows none.

    Raises:
        OptionError: a sampler or a constraint that draws, on a source that is not Gaussian.
    """
    if start.prior is None:
        return
    if constrain is not None or not card.traceable or trace(card, grid, **options).draws:
        what = "constrain= adds Gaussian noise" if constrain is not None else f"{card.name!r} may add Gaussian noise"
        raise OptionError(
            f"{what}, and this run starts from a source that is not Gaussian (prior=): take a deterministic, traceable "
            "sampler such as 'heun' or 'dpmpp-2m'."
        )


def _checked(
    card: SamplerCard, out: torch.Tensor, parts: list[torch.Tensor], models: list[Asked], grid: Grid
) -> tuple[int, ...]:
    """Mark what is not finite, or refuse it; warn of samples that exploded."""
    marked = [
        torch.zeros(len(part), dtype=torch.bool, device=part.device) if model.marked is None else model.marked
        for part, model in zip(parts, models)
    ]
    bad = torch.cat(marked)
    finite = torch.isfinite(out.detach()).flatten(1).all(1)
    if models[0].on_nonfinite == "mark":
        bad = bad | ~finite
        if bool(bad.any()):
            with torch.no_grad():
                out[bad] = torch.nan
    elif not bool(finite.all()):
        raise NonFiniteError(f"{card.name!r} made NaN or inf out of finite predictions; fewer or other levels may help.")
    size = float(out.detach()[~bad].abs().max()) if not bool(bad.all()) else 0.0
    if grid[-1] == 0 and size > EXPLODED * max(1.0, *(model.largest for model in models)):
        warnings.warn(
            f"the samples reach {size:.3g}, more than {EXPLODED:g} times what the network predicted first: it has left "
            "the data. Keep predictions in their range (solverkit.guidance.clip or dynamic_threshold, a smaller guidance "
            "scale), or take more steps or a sampler of lower order.",
            stacklevel=3,
        )
    return tuple(bad.nonzero().flatten().tolist())


def _said(values: list[float | str]) -> float | str:
    """The mean of what was said in numbers, or the last word."""
    numbers = [value for value in values if not isinstance(value, str)]
    return sum(numbers) / len(numbers) if len(numbers) == len(values) else str(values[-1])


def _progress(
    stack: ExitStack, card: SamplerCard, grid: Grid, options: dict[str, Any], batches: int
) -> Callable[[], None]:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    total = None  # unknown for a solver that decides itself
    if card.takes_budget:
        with suppress(TraceError):
            paced, own = card.pace(options)
            total = trace(paced, grid, **own).nfe * batches
    bar = stack.enter_context(
        Progress(
            *Progress.get_default_columns()[:2], MofNCompleteColumn(), TextColumn("evaluations"), TimeRemainingColumn(),
            console=Console(stderr=True),
        )
    )
    task = bar.add_task(card.name, total=total)
    return lambda: bar.advance(task)
