"""sk.sample: run a sampler against a denoiser, by calling it with tensors (pull) or by driving its plan (constrain=)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import torch

from ..errors import DenoiserError, NonFiniteError, OptionError, TraceError
from ..grid.grid import Grid
from ..grid.named import is_count
from ..model.counting import counting, record, reporting
from ..model.denoiser import DenoiserLike, require_finite
from ..plan.plan import advance, begin
from ..plan.trace import trace
from ..process.level import Level
from ..process.schedule import Schedule
from ..registry.registry import SamplerCard, resolve
from .choose import choose_grid
from .noise import CONSTRAINT, PRIOR, Noise, SampleNoise, sample_seeds


class Evaluation(NamedTuple):
    """What a callback sees after each evaluation, to read and not to change; x in the model's own coordinates."""

    index: int  # type: ignore[assignment]  # shadows tuple.index
    level: Level
    x: torch.Tensor
    denoised: torch.Tensor


class Result(NamedTuple):
    """What a run made.

    Attributes:
        x: The samples, in the model's own coordinates.
        nfe: Network rows that were counted, divided by the number of samples.
        levels: The levels at which the network was called.
        trajectory: With return_trajectory=True: x at each evaluation and at the end, (evaluations + 1, B, ...).
        seconds: Wall time of the run.
        seconds_model: The part of it that was spent in the denoiser.
        reports: What the sampler said about the run, by name: the mean of the values that it gave.
    """

    x: torch.Tensor
    nfe: float
    levels: tuple[Level, ...]
    trajectory: torch.Tensor | None
    seconds: float
    seconds_model: float
    reports: dict[str, float]


def _start(
    denoiser: Any, first: Level, num_samples: int | None, shape: Sequence[int] | None, x: torch.Tensor | None,
    seed: int | Sequence[int], device: Any, dtype: torch.dtype | None,
) -> tuple[torch.Tensor, SampleNoise]:  # fmt: skip
    if sum(v is not None for v in (num_samples, shape, x)) != 1:
        raise OptionError("give exactly one of num_samples=, shape= (batch first) and x=.")
    if x is not None and not (isinstance(x, torch.Tensor) and x.is_floating_point() and x.ndim and len(x)):
        raise OptionError("x must be a floating-point tensor of shape (B, ...) with at least one sample.")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise OptionError(f"dtype must be torch.float32 or torch.float64, got {dtype!r}.")
    try:
        device = torch.device(device or (x.device if x is not None else getattr(denoiser, "device", "cpu")))
    except (RuntimeError, TypeError) as error:
        raise OptionError(f"device={device!r}: {error}") from None
    if dtype is None:
        dtype = x.dtype if x is not None and x.dtype == torch.float64 else torch.float32
    if x is not None:
        noise = SampleNoise(sample_seeds(seed, len(x)), x.shape[1:], dtype, device)
        return x.detach().to(device=device, dtype=dtype, copy=True), noise
    if num_samples is not None:
        if not is_count(num_samples):
            raise OptionError(f"num_samples must be a positive integer, got {num_samples!r}.")
        if getattr(denoiser, "shape", None) is None:
            raise OptionError("this denoiser does not know the shape of a sample; give shape=(batch, ...) or x=.")
        shape = (int(num_samples), *denoiser.shape)
    if not (isinstance(shape, (tuple, list)) and shape and all(is_count(n) for n in shape)):
        raise OptionError(f"shape must be the batch's, a tuple of positive integers (B, ...), got {shape!r}.")
    noise = SampleNoise(sample_seeds(seed, shape[0]), shape[1:], dtype, device)
    return noise(PRIOR) * denoiser.schedule.prior_std(first), noise


class _Run:
    """The model that a sampler asks during one run: checks, counts, times and reports each evaluation."""

    def __init__(self, denoiser: DenoiserLike, grid: Grid, report: Callable[[Evaluation], None] | None) -> None:
        self.denoiser, self.grid, self.report = denoiser, grid, report
        self.levels: list[Level] = []
        self.rows = 0
        self.seconds = 0.0

    def __call__(self, x: torch.Tensor, s: float) -> torch.Tensor:
        level = s if isinstance(s, Level) else self.grid.at(s)
        start = time.perf_counter()
        with counting() as count:
            denoised = self.denoiser(x, level)
        self.seconds += time.perf_counter() - start
        if count.rows == 0:  # a denoiser that is no network of ours: one pass
            record(len(x))
        self.rows += count.rows or len(x)
        if not isinstance(denoised, torch.Tensor) or denoised.shape != x.shape:
            got = tuple(denoised.shape) if isinstance(denoised, torch.Tensor) else type(denoised).__name__
            raise DenoiserError(f"the denoiser answered {got} to x of shape {tuple(x.shape)}; expected the same shape.")
        require_finite(denoised, len(self.levels), level)
        self.levels.append(level)
        if self.report is not None:
            self.report(Evaluation(len(self.levels) - 1, level, x * level.scale, denoised))
        return denoised


def sample(
    denoiser: DenoiserLike,
    sampler: str | SamplerCard | Callable[..., Any],
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
    **options: Any,
) -> Result:
    """Sample a pretrained network.

    Args:
        denoiser: From `sk.wrap`, `sk.load`, `solverkit.problems` or `solverkit.guidance`.
        sampler: A registered name or a function (model, x, grid, noise, **options) -> x.
        nfe: Ceiling on network evaluations; the largest step count that fits is used.
        steps: Number of grid steps.
        num_samples: How many samples, where the denoiser knows their shape.
        shape: Shape of the whole batch, (B, ...).
        x: The starting state in the model's own coordinates at the first level (unit normal for VP), (B, ...).
        seed: An int, or one a sample. Sample i depends on its own seed alone, never on the batch.
        grid: A grid's name or a `Grid`. Default: "flow" where the model starts at alpha = 0, "trailing" on discrete
            timesteps, else "karras"; or the sampler's own choice.
        levels: Explicit falling levels, sigma / alpha (sigma in [0, 1] for flow), run exactly as given.
        constrain: constrain(x, level, draw) -> x edits the state (in the frame: x = alpha x_0 + s eps) before each
            evaluation that starts a step; draw(s, t) gives noise. If it has a method finish(x) -> x, that edits the end of
            a run to noise level 0. Needs a traceable sampler. `solverkit.constraints` has some.
        device, dtype: Of the state; default the denoiser's device and float32 (float64 if x is).
        progress: Show a progress bar.
        callback: Called with an `Evaluation` after each one.
        return_trajectory: Keep every evaluated state.
        options: Options of the sampler.

    Raises:
        SolverKitError: one of its children, saying what was given, what was expected, and what to do.
    """
    card = resolve(sampler)
    options = card.check(options)
    if not isinstance(getattr(denoiser, "schedule", None), Schedule) or not callable(denoiser):
        raise OptionError(f"denoiser must come from sk.load or sk.wrap, got {type(denoiser).__name__}: {denoiser!r:.60}.")
    for label, hook in (("callback", callback), ("constrain", constrain)):
        if hook is not None and not callable(hook):
            raise OptionError(f"{label} must be a function, got {type(hook).__name__}.")
    if constrain is not None and not card.traceable:
        raise OptionError(f"constrain= drives a plan, and {card.name!r} has none (pull-only); choose another sampler.")
    run_grid = choose_grid(card, denoiser.schedule, nfe, steps, grid, levels, options)
    first, last = run_grid[0], run_grid[-1]
    state, draw = _start(denoiser, first, num_samples, shape, x, seed, device, dtype)
    states: list[torch.Tensor] = []

    with torch.no_grad(), ExitStack() as stack, reporting() as said:
        tick = _progress(stack, card, run_grid, options) if progress else None

        def report(evaluation: Evaluation) -> None:
            if return_trajectory:
                states.append(evaluation.x if callback is None else evaluation.x.clone())
            if tick is not None:
                tick()
            if callback is not None:
                callback(evaluation)

        watched = return_trajectory or progress or callback is not None
        model = _Run(denoiser, run_grid, report if watched else None)
        start = time.perf_counter()
        state = state / first.scale
        if constrain is None:
            state = card.fn(model, state, run_grid, Noise(draw), **options)
        else:
            state = _push(card, model, state, run_grid, draw, constrain, options)
        if not isinstance(state, torch.Tensor):
            raise OptionError(f"{card.name!r} returned {type(state).__name__}, expected the final state.")
        out = state * last.scale
        seconds = time.perf_counter() - start
    if not bool(torch.isfinite(out).all()):
        raise NonFiniteError(f"{card.name!r} made NaN or inf out of finite predictions; fewer or other levels may help.")
    if return_trajectory and any(s.shape != out.shape for s in states):
        raise OptionError(f"{card.name!r} steps through its samples one by one; return_trajectory needs a single sample.")
    trajectory = torch.stack([*states, out]) if return_trajectory else None
    reports = {name: sum(values) / len(values) for name, values in said.items()}
    return Result(out, model.rows / len(out), tuple(model.levels), trajectory, seconds, model.seconds, reports)


def _push(
    card: SamplerCard, model: _Run, x: torch.Tensor, grid: Grid, draw: SampleNoise,
    constrain: Callable[..., torch.Tensor], options: dict[str, Any],
) -> torch.Tensor:  # fmt: skip
    plan = trace(card, grid, **options)
    edits = Noise(lambda ordinal, s, t: draw(CONSTRAINT + ordinal, s, t))
    x, state = begin(plan, x, draw)
    for level, boundary in zip(plan.levels, plan.boundary):
        if boundary:
            edited = constrain(x, level, edits)
            if not isinstance(edited, torch.Tensor) or edited.shape != x.shape:
                raise OptionError(f"constrain must return the edited state of shape {tuple(x.shape)}.")
            x = edited.to(x.dtype)
        x, state = advance(plan, state, x, model(x, level), draw)
    finish = getattr(constrain, "finish", None)
    return finish(x) if finish is not None and plan.grid[-1] == 0 else x


def _progress(stack: ExitStack, card: SamplerCard, grid: Grid, options: dict[str, Any]) -> Callable[[], None]:
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    total = None  # unknown for a solver that decides itself
    if card.traceable:
        with suppress(TraceError):
            total = trace(card, grid, **options).nfe
    bar = stack.enter_context(
        Progress(
            *Progress.get_default_columns()[:2], MofNCompleteColumn(), TextColumn("evaluations"), TimeRemainingColumn()
        )
    )
    task = bar.add_task(card.name, total=total)
    return lambda: bar.advance(task)
