"""The run of a system: what `sk.sample` does with a joint denoiser."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from ..errors import DenoiserError, NonFiniteError, OptionError, UnknownNameError
from ..grid.named import is_count
from ..model.counting import counting, reporting
from ..model.placement import usable_device
from ..plan.clock import clocked, planning
from ..plan.plan import Plan
from ..registry.registry import SamplerCard, resolve
from ..run.noise import CONSTRAINT, PRIOR, Noise, sample_seeds
from ..steps import per_sample
from .draws import Draw, component_draws
from .grids import joint_grids
from .lockstep import drive, lockstep
from .model import JointDenoiser
from .result import JointEvaluation, JointResult

BATCH, NUMBERS = 512, 2**26
OUTSIDE = 1e-4  # relative: a start farther from its space than this is a mistake


def sample_joint(
    joint: JointDenoiser, sampler: Any, nfe: int | None, steps: int | None, *, num_samples: int | None = None,
    shape: Any = None, x: Any = None, seed: int | Sequence[int] = 0, grid: Any = None, levels: Any = None,
    constrain: Any = None, device: Any = None, dtype: torch.dtype | None = None, progress: bool = False,
    callback: Callable[[JointEvaluation], None] | None = None, return_trajectory: bool = False,
    batch_size: int | None = None, on_nonfinite: str = "raise", prior: Any = None, grad: bool = False,
    models: Any = None, options: dict[str, Any],
) -> JointResult:  # fmt: skip
    """Arguments as of `sk.sample`, with these differences.

    Args:
        x: {name: (B, *shape)}, the starting states in each component's own coordinates.
        grid, levels: Of the lead component; the others are at the same times. `levels` may be {name: levels}.
        constrain: {name: constraint}, each called as for one tensor; what it answers is projected.
        options: Of the sampler. An option may be {name: value}, the others then have its default. stages="time": inner
            stages are at the times of the lead's.

    Raises:
        SolverKitError: one of its children, saying what was given, what was expected, and what to do.
    """
    began = time.perf_counter()
    for label, value in (("shape", shape), ("prior", prior), ("models", models)):
        if value is not None:
            raise OptionError(f"sk.sample takes no {label}= with a system of components.")
    card, by_time = _card(sampler, options)
    of = _options(card, joint, options)
    edits = _constraints(joint, constrain)
    with ExitStack() as stack, clocked() as clock, reporting() as said, counting() as count, torch.set_grad_enabled(grad):
        seeds, given = _start(joint, num_samples, x, seed)
        dtype, place = _precision(dtype, given), usable_device(device or joint.device)
        joint = _with_masks(joint, seeds, place)
        with planning():
            grids = joint_grids(joint, card, nfe, steps, grid, levels, of[joint.lead])
            plans = lockstep(card, grids, of, joint.lead, by_time)
        parts, runs, batches = [], [], _batches(joint, len(seeds), batch_size)
        told = _watched(stack, card.name, plans[joint.lead].nfe * len(batches), callback) if progress else callback
        for a, b in batches:
            part = joint.rows(a, b, len(seeds))
            run = Run(part, plans, seeds[a:b], dtype, place, on_nonfinite, told, return_trajectory)
            own = {name: None if given is None else given[name][a:b] for name in plans}
            parts.append(run.done(own, {name: _rows(edit, a, b, len(seeds)) for name, edit in edits.items()}))
            runs.append(run)
    return JointResult(
        {name: torch.cat([part[name] for part in parts]) for name in plans}, count.rows / len(seeds),
        {name: plan.levels for name, plan in plans.items()}, _stacked(runs) if return_trajectory else None,
        time.perf_counter() - began, sum(run.seconds for run in runs), {n: v[-1] for n, v in said.items()}, clock.seconds,
        count.passes, _bad(runs), joint.mask if isinstance(joint.mask, Tensor) else None,
    )  # fmt: skip


class Run:
    """One batch of a run: its plans, its draws, and what was asked.

    Attributes:
        seconds: Spent in the network.
        marked: (B,) bool, samples whose prediction was not finite.
        states: Of each evaluation and the end, where they are kept.
    """

    def __init__(
        self, joint: JointDenoiser, plans: Mapping[str, Plan], seeds: Sequence[int], dtype: torch.dtype,
        device: torch.device, on_nonfinite: str, callback: Any, keep: bool,
    ) -> None:  # fmt: skip
        self.joint, self.plans, self.callback, self.keep = joint, plans, callback, keep
        self.dtype, self.device = dtype, device
        self.mask = joint.mask if isinstance(joint.mask, Tensor) else None
        self.mask = None if self.mask is None else self.mask.expand(len(seeds), -1)
        self.draws = component_draws(joint, seeds, self.mask, dtype, device)
        self.mark, self.seconds = on_nonfinite == "mark", 0.0
        self.marked = torch.zeros(len(seeds), dtype=torch.bool, device=device)
        self.states: list[dict[str, Tensor]] = []

    def done(self, given: Mapping[str, Tensor | None], edits: Mapping[str, Any]) -> dict[str, Tensor]:
        """The samples, in each component's own coordinates."""
        xs = {name: self._first(name, x) for name, x in given.items()}
        draws = {name: Noise(draw).draw for name, draw in self.draws.items()}
        for_edits = {name: Noise(_constraint_draw(self.draws[name])) for name in edits}

        def edit(j: int, now: dict[str, Any]) -> dict[str, Any]:
            return {**now, **{name: self._edited(name, fn, now[name], j, for_edits[name]) for name, fn in edits.items()}}

        out = drive(self.plans, self._ask, xs, draws, edit if edits else None)
        for name, fn in edits.items():
            if callable(getattr(fn, "finish", None)) and self.plans[name].grid[-1] == 0:
                out[name] = self._projected(name, fn.finish(out[name]))
        own = {name: self._projected(name, x) * self.plans[name].grid[-1].scale for name, x in out.items()}
        return self._finite(own)

    def _first(self, name: str, x: Tensor | None) -> Tensor:
        part, level = self.joint.components[name], self.plans[name].grid[0]
        if x is None:
            return self.draws[name](PRIOR, 0.0, 0.0) * (part.schedule.prior_std(level) / level.scale)
        x = x.to(device=self.device, dtype=self.dtype)
        inside = self._projected(name, x)
        if float((x - inside).abs().max()) > OUTSIDE * float(x.abs().max()):
            raise OptionError(
                f"the start of {name!r} does not lie in its space ({type(part.space).__name__}"
                f"{', masked' if self.mask is not None else ''}): project it first."
            )
        return inside / level.scale

    def _projected(self, name: str, x: Tensor) -> Tensor:
        return self.joint.components[name].space.project(x, self.mask)

    def _edited(self, name: str, fn: Any, x: Tensor, j: int, draw: Noise) -> Tensor:
        edited = fn(x, self.plans[name].levels[j], draw)
        if not isinstance(edited, Tensor) or edited.shape != x.shape:
            raise OptionError(f"constrain[{name!r}] must return the edited state of shape {tuple(x.shape)}.")
        return self._projected(name, edited.to(x.dtype))

    def _ask(self, j: int, xs: dict[str, Tensor]) -> Mapping[str, Tensor]:
        levels = {name: plan.levels[j] for name, plan in self.plans.items()}
        start = time.perf_counter()
        denoised = self.joint(xs, levels)
        self.seconds += time.perf_counter() - start
        bad = ~torch.stack([torch.isfinite(d).flatten(1).all(1) for d in denoised.values()]).all(0)
        if bool(bad.any()):
            if not self.mark:
                which = [name for name, d in denoised.items() if not bool(torch.isfinite(d).all())]
                raise NonFiniteError(f"evaluation {j}: the prediction of {', '.join(map(repr, which))} is NaN or inf.")
            self.marked |= bad
            denoised = {n: torch.where(per_sample(bad, d), 0.0, d) for n, d in denoised.items()}
        if self.keep or self.callback is not None:
            own = {name: x * levels[name].scale for name, x in xs.items()}
            if self.keep:
                self.states.append(own)
            if self.callback is not None:
                self.callback(JointEvaluation(j, levels, {n: x.clone() for n, x in own.items()}, dict(denoised)))
        return denoised

    def _finite(self, own: dict[str, Tensor]) -> dict[str, Tensor]:
        for name, x in own.items():
            bad = ~torch.isfinite(x).flatten(1).all(1)
            if bool(bad.any()) and not self.mark:
                raise NonFiniteError(f"NaN or inf came of {name!r} out of finite predictions; take other levels.")
            self.marked |= bad
        if bool(self.marked.any()):
            own = {n: torch.where(per_sample(self.marked, x), torch.nan, x) for n, x in own.items()}
        if self.keep:
            self.states.append(own)
        return own


def _card(sampler: Any, options: dict[str, Any]) -> tuple[SamplerCard, bool]:
    card = resolve(sampler)
    if not card.traceable:
        raise OptionError(f"{card.name!r} has no plan (pull-only), and systems run by plans in lockstep; choose another.")
    if card.prepare is not None:
        raise OptionError(f"{card.name!r} is fitted to networks of one tensor, and this is a system; choose another.")
    stages = options.pop("stages", None) if "stages" not in card.options else None
    if stages not in (None, "time"):
        raise OptionError(f"stages must be 'time' or left out, got {stages!r}.")
    return card, stages == "time"


def _options(card: SamplerCard, joint: JointDenoiser, options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The sampler's options for each component: an option that is a dict is one a component."""
    of: dict[str, dict[str, Any]] = {name: {} for name in joint.components}
    for key, value in options.items():
        if isinstance(value, Mapping):
            for name in value:
                if name not in joint.components:
                    raise UnknownNameError(f"component in the option {key}=", name, joint.components)
        for name in of:
            if not isinstance(value, Mapping):
                of[name][key] = value
            elif name in value:
                of[name][key] = value[name]
    return {name: card.check(own) for name, own in of.items()}


def _constraints(joint: JointDenoiser, constrain: Any) -> dict[str, Any]:
    if constrain is None:
        return {}
    if not isinstance(constrain, Mapping):
        raise OptionError(f"constrain must be {{component: constraint}} for a system, got {type(constrain).__name__}.")
    for name, fn in constrain.items():
        if name not in joint.components:
            raise UnknownNameError("component in constrain=", name, joint.components)
        if not callable(fn):
            raise OptionError(f"constrain[{name!r}] must be a function, got {type(fn).__name__}.")
    return dict(constrain)


def _start(joint: JointDenoiser, num_samples: Any, x: Any, seed: Any) -> tuple[list[int], dict[str, Tensor] | None]:
    if (num_samples is None) == (x is None):
        raise OptionError("give exactly one of num_samples= and x= ({component: starting states}).")
    if x is None:
        if not is_count(num_samples):
            raise OptionError(f"num_samples must be a positive integer, got {num_samples!r}.")
        return sample_seeds(seed, int(num_samples)), None
    if not isinstance(x, Mapping) or set(x) != set(joint.components):
        raise OptionError(f"x must be {{component: starting states}} for {list(joint.components)}.")
    for name, value in x.items():
        part = joint.components[name]
        if not isinstance(value, Tensor) or not value.is_floating_point() or tuple(value.shape[1:]) != part.shape:
            raise OptionError(f"x[{name!r}] must be a floating-point tensor (B, {', '.join(map(str, part.shape))}).")
    counts = {len(value) for value in x.values()}
    if len(counts) != 1 or not (n := counts.pop()):
        raise OptionError("all components of x must have as many samples, at least one.")
    return sample_seeds(seed, n), dict(x)


def _precision(dtype: torch.dtype | None, given: Mapping[str, Tensor] | None) -> torch.dtype:
    if dtype not in (None, torch.float32, torch.float64):
        raise OptionError(f"dtype is that of the states, torch.float32 or torch.float64, got {dtype!r}.")
    double = given is not None and any(x.dtype == torch.float64 for x in given.values())
    return dtype or (torch.float64 if double else torch.float32)


def _with_masks(joint: JointDenoiser, seeds: Sequence[int], device: torch.device) -> JointDenoiser:
    """The denoiser of this run: with the masks of its samples, where they are drawn with them.

    Raises:
        DenoiserError: masks or keys that are not one, or one a sample.
    """
    if callable(joint.mask) and not isinstance(joint.mask, Tensor):
        joint = joint.with_nodes(joint.mask(list(seeds)), joint.keys)
    for label, rows in (("mask", joint.mask), ("keys", joint.keys)):
        if isinstance(rows, Tensor) and len(rows) not in (1, len(seeds)):
            raise DenoiserError(f"{label} has {len(rows)} rows for {len(seeds)} samples; one, or one a sample.")
    if isinstance(joint.mask, Tensor):
        return joint.with_nodes(joint.mask.to(device), joint.keys)
    return joint


def _batches(joint: JointDenoiser, n: int, batch_size: Any) -> list[tuple[int, int]]:
    if batch_size is None:
        one = sum(torch.Size(part.shape).numel() for part in joint.components.values())
        batch_size = max(min(BATCH, NUMBERS // one), 1)
    if not is_count(batch_size):
        raise OptionError(f"batch_size must be a positive integer, got {batch_size!r}.")
    return [(a, min(a + batch_size, n)) for a in range(0, n, batch_size)]


def _rows(edit: Any, a: int, b: int, total: int) -> Any:
    rows = getattr(edit, "rows", None)
    return rows(a, b, total) if callable(rows) and (a, b) != (0, total) else edit


def _constraint_draw(draw: Draw) -> Draw:
    return lambda ordinal, s, t: draw(CONSTRAINT + ordinal, s, t)


def _stacked(runs: Sequence[Run]) -> dict[str, Tensor]:
    names = runs[0].plans
    return {n: torch.cat([torch.stack([xs[n] for xs in run.states]) for run in runs], dim=1) for n in names}


def _bad(runs: Sequence[Run]) -> tuple[int, ...]:
    return tuple(torch.cat([run.marked for run in runs]).nonzero().flatten().tolist())


def _watched(stack: ExitStack, name: str, total: int, callback: Any) -> Callable[[JointEvaluation], None]:
    """The callback, with a bar of evaluations."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TextColumn("evaluations"))
    bar = stack.enter_context(Progress(*columns, console=Console(stderr=True)))
    task = bar.add_task(name, total=total)

    def told(evaluation: JointEvaluation) -> None:
        bar.advance(task)
        if callback is not None:
            callback(evaluation)

    return told
