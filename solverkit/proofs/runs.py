"""Two spellings agree, NFE is honest, samples are independent and finite, and nothing else is touched."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..errors import BudgetError
from ..grid.grid import Grid
from ..grid.named import make_grid
from ..model.counting import counting
from ..plan.plan import Plan, advance, begin
from ..process.level import Level
from ..process.variance_preserving import VP
from ..registry.registry import SamplerCard
from ..run.choose import default_grid, fit_grid
from ..run.noise import SampleNoise, sample_seeds
from ..run.sampling import sample
from ..targets.exact import mixture
from .driving import drive, framed, run, schedules, short_grids, start, traced
from .finding import at_most, holds

IN_PLACE = "an operation in place: x += ..., x.mul_(...), or out=; write x = x + ..."
GLOBAL = "torch.randn, randn_like, manual_seed or np.random in the sampler: draws come from noise(s, t) alone"


def check_spellings(card: SamplerCard, options: Mapping[str, Any]) -> None:
    """Pull = plan to 1e-12 in float64; a plan survives pickling, and a state survives it in the middle of a run."""
    if not card.traceable:
        return
    for target, grid in short_grids():
        with framed(target.schedule):
            x = start(grid, 3, 4)
            plan = pickle.loads(pickle.dumps(traced(card, grid, options)))
            pulled, pushed = run(card, target, x, grid, options), drive(plan, target, x)
            difference = float((pulled - pushed).abs().max())
            at_most(
                difference, 1e-12 * max(1.0, float(pulled.abs().max())), f"pull and plan differ by {difference:.2e}",
                "the sampler does one thing with tensors and another with symbols: an isinstance(x, torch.Tensor), or "
                "coefficients that are float32 tensors where Python floats would be exact",
            )  # fmt: skip
            draw = SampleNoise(sample_seeds(0, len(x)), x.shape[1:], x.dtype)
            y, state = begin(plan, x, draw)
            for j in range(plan.nfe):
                state = pickle.loads(pickle.dumps(state))
                denoised = plan.ask(j, target, y)
                advance(plan, state, y, 2 * denoised, draw)  # a step that is repeated must leave no trace
                y, state = advance(plan, state, y, denoised, draw)
            holds(
                torch.equal(y, pushed), "a pickled state, or a repeated step, changes the run",
                "an @sk.op remembers something between calls, or changes its input in place",
            )  # fmt: skip


def check_nfe(card: SamplerCard, options: Mapping[str, Any]) -> None:
    """Counted evaluations = the plan's = what the network saw; each of them reaches the result; a budget is a ceiling that
    is met as closely as the method allows.
    """
    for target, grid in short_grids():
        with framed(target.schedule):
            with counting() as count:
                result = sample(target, card, grid=grid, num_samples=3, **options)
            seen = count.rows / 3
            holds(
                result.nfe == seen,
                f"the run asked {result.nfe:g} evaluations of its model, the network made {seen:g} a sample: "
                f"{seen - result.nfe:g} went round the model that the sampler is given, and no count or callback sees them",
                "the sampler asks model.denoiser or a network of its own: ask model(x, s)",
            )
            if not card.traceable:
                holds(result.nfe >= 1, f"counted {result.nfe:g} evaluations", "the sampler never asks its model")
                continue
            plan = traced(card, grid, options)
            holds(
                result.nfe == plan.nfe, f"counted {result.nfe:g} evaluations, the plan says {plan.nfe}",
                "the number of evaluations depends on the values of a state: traceable=False says that there is no plan",
            )  # fmt: skip
            holds(
                len(plan.boundary) == plan.nfe and plan.boundary[0], "the first evaluation must start a step",
                "the loop does not go over grid.steps(): a wrapper calls grid.begin_step() where a step begins",
            )  # fmt: skip
            _nothing_wasted(plan, target)
            _budget_met(card, options, target)


def _nothing_wasted(plan: Plan, target: Any) -> None:
    """Row j of a batch of equal samples gets another answer at evaluation j: its end must be another one.

    At alpha = 0 the state is noise alone, and a step along the score needs no answer: that is the method's own.
    """
    x = start(plan.grid, 1, 4).repeat(plan.nfe + 1, 1)
    draw = SampleNoise(sample_seeds(0, 1) * len(x), x.shape[1:], x.dtype)
    x, state = begin(plan, x, draw)
    for j in range(plan.nfe):
        denoised = plan.ask(j, target, x)
        denoised[j] += 0.1
        x, state = advance(plan, state, x, denoised, draw)
    wasted = [j for j in range(plan.nfe) if plan.levels[j].alpha > 0 and torch.equal(x[j], x[-1])]
    first = f"evaluation {wasted[0]} (at {float(plan.levels[wasted[0]]):.4g})" if wasted else ""
    holds(
        not wasted, f"{len(wasted)} of {plan.nfe} evaluations are wasted: nothing uses the answer of {first}",
        "the answer of a corrector or of a last stage is thrown away: skip it, or keep it for the next step",
    )  # fmt: skip


def _budget_met(card: SamplerCard, options: Mapping[str, Any], target: Any) -> None:
    for nfe in (5, 8):
        try:
            fitted = fit_grid(card, default_grid(card, target.schedule), target.schedule, nfe, dict(options))
        except BudgetError:
            continue
        spent = traced(card, fitted, options).nfe
        finer = make_grid(default_grid(card, target.schedule), target.schedule, len(fitted))
        more = traced(card, finer, options).nfe
        holds(
            spent <= nfe and not spent < more <= nfe, f"asked for {nfe} evaluations, spent {spent}",
            "the number of evaluations does not grow with the number of steps, so that no budget can be fitted",
        )  # fmt: skip


def check_independence(card: SamplerCard, options: Mapping[str, Any]) -> None:
    """Sample i is the same alone or in a batch: its noise bit for bit, its result to 1e-10 in float64."""
    for target, grid in short_grids():
        with framed(target.schedule):
            together = sample(target, card, grid=grid, num_samples=5, seed=3, dtype=torch.float64, **options).x
            seeds = sample_seeds(3, 5)
            for i in (0, 4):
                alone = sample(target, card, grid=grid, num_samples=1, seed=[seeds[i]], dtype=torch.float64, **options).x
                difference = float((alone[0] - together[i]).abs().max())
                at_most(
                    difference, 1e-10, f"sample {i} differs by {difference:.2e} between batches of 1 and 5",
                    "a norm, mean or maximum is taken over the batch too: take it over x.flatten(1), one number a sample "
                    "(solverkit.steps.norm)",
                )  # fmt: skip


def check_finite(card: SamplerCard, options: Mapping[str, Any]) -> None:
    """No NaN from sigma_max, from alpha = 0, to 0, in one step, in float32."""
    for schedule in (*schedules(), VP(), VP(zero_terminal_snr=True), VP(integer_time=True)):
        target = mixture(dim=4, modes=3, schedule=schedule)
        name = "flow" if schedule.frame else "karras"
        for steps in (1, 2, 3, 6, 17):
            with framed(schedule):
                x = sample(target, card, steps=steps, grid=name, num_samples=2, **options).x
                holds(
                    bool(torch.isfinite(x).all()), f"{steps} steps: {x}",
                    "something divides by t, by alpha or by the length of a log-SNR step: at t = 0 and at alpha = 0 the "
                    "log-SNR is infinite (write e^{-h} as t * s.alpha / (t.alpha * s)); with one step there is no history",
                )  # fmt: skip


def check_input_untouched(card: SamplerCard, options: Mapping[str, Any]) -> None:
    """The caller's tensor, the states that the network saw, its answers and global randomness are left as they were."""
    for target, grid in short_grids():
        with framed(target.schedule):
            _untouched(card, options, target, grid)


def _untouched(card: SamplerCard, options: Mapping[str, Any], target: Any, grid: Grid) -> None:
    x = start(grid, 2, 4)
    before = x.clone()
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def model(y: torch.Tensor, s: float, **said: Any) -> torch.Tensor:
        denoised = target(y, s if isinstance(s, Level) else grid.at(s), **said)
        seen.extend([(y, y.clone()), (denoised, denoised.clone())])
        return denoised

    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index,union-attr]
    run(card, model, x, grid, options)
    holds(torch.equal(x, before), "the sampler changed x in place", IN_PLACE)
    same = all(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in seen)
    holds(same, "the sampler changed an evaluated state or an answer in place", IN_PLACE)
    holds(torch.equal(torch.get_rng_state(), torch_state), "the sampler used or set torch's global generator", GLOBAL)
    numpy_same = bool((np.random.get_state()[1] == numpy_state).all())  # type: ignore[index]
    holds(numpy_same, "the sampler used numpy's global generator", GLOBAL)
