"""Weak-to-strong diffusion: reflect the state between two models before each step but the last."""

from __future__ import annotations

from typing import Any, Literal

import solverkit as sk
from solverkit import Grid, Level
from solverkit.errors import OptionError


def _epsilon(x: Any, denoised: Any, s: Level) -> Any:
    return (1 / s) * (x - s.alpha * denoised)


def _reflected(model: Any, x: Any, levels: tuple[Level, Level, Level], weak: str | None, at: str, released: bool) -> Any:
    """The state at s after a step of the model to t and one of the weak model back to s."""
    s, t, after = levels
    said = {} if weak is None else {"of": weak}
    denoised = model(x, s)
    epsilon = _epsilon(x, denoised, s)
    there = t.alpha * denoised + t * epsilon
    if at == "start":
        weak_epsilon = _epsilon(x, model(x, s, **said), s)
    else:
        told = Level(float(t), s.time, t.scale, t.frame) if released or at == "between" else t
        weak_epsilon = _epsilon(there, model(there, told, **said), t)
    if not released:
        return (s.alpha / t.alpha) * there + (s - s.alpha / t.alpha * t) * weak_epsilon
    ratio = t.alpha * t.scale / (after.alpha * after.scale)  # in the network's own coordinates, where the code works
    own = (ratio * t.scale) * there + (t * t.scale - ratio * after * after.scale) * weak_epsilon
    return (1 / s.scale) * own


@sk.sampler(
    "reflect",
    order=lambda options: 1 if options["solver"] in ("ddim", "euler") and not options["released"] else None,
    reference="arXiv 2502.00473, Algorithm 1",
    cite="bai2025",
    variants=({"weak": "weak", "at": "start"}, {"weak": "weak", "at": "between"}, {"weak": "weak", "solver": "dpmpp-2m"}),
    option_examples=({"solver": "heun"},),
    restarts=False,
)
def reflect(
    model: Any, x: Any, grid: Grid, noise: Any, solver: str = "ddim", weak: str | None = None,
    at: Literal["end", "start", "between"] = "end", released: bool = False,
) -> Any:  # fmt: skip
    """W2SD around a deterministic solver: x~ = x + (s - t)(eps_weak - eps_strong) before each step but the last.

    A DDIM step of the model from s to t, the inverse step of the weak model from t to s; then the solver's step from x~.
    With one evaluation a step of the solver a run of T steps costs 3T - 2: 2T - 1 of the model, T - 1 of the weak one.
    The formula is one in x / alpha. Z-sampling has the same network without guidance as its weak model, and the
    solver `ddim`.
    Source: arXiv 2502.00473, Algorithm 1.

    Args:
        solver: A traceable sampler that draws nothing, its options behind its name.
        weak: What the weak model is called in models=; None asks the run's own.
        at: Where the weak model is asked: "end" at the state at t; "start" at the state at s, where equal models reflect to
            the same state; "between" at the state at t, but told the time of s, as the paper has it.
        released: The inverse step of the released code: told as in "between", it takes the state at t for one at the level
            after t, and goes to t: the noise level of x~ is then off.
    """
    if at not in ("end", "start", "between"):
        raise OptionError(f"at must be 'end', 'start' or 'between', got {at!r}.")
    if released and at == "start":
        raise OptionError("the released code asks the weak model after the step: leave out at='start', or released=True.")
    if solver.partition(":")[0] == "reflect":
        raise OptionError("reflect cannot stand around itself; name a plain solver, solver='dpmpp-2m'.")
    plan = sk.trace(solver, grid)
    if plan.draws:
        raise OptionError(f"reflect needs a deterministic solver, and {solver!r} draws noise; take 'ddim' or 'dpmpp-2m'.")
    x, state = sk.begin(plan, x, noise.draw)
    boundaries = [j for j in range(plan.nfe) if plan.boundary[j]]
    ends = [plan.levels[j] for j in boundaries] + [grid[-1], grid[-1]]
    for j in range(plan.nfe):
        if plan.boundary[j]:
            grid.begin_step()
            i = boundaries.index(j)
            if i < len(boundaries) - 1:
                x = _reflected(model, x, (ends[i], ends[i + 1], ends[i + 2]), weak, at, released)
        x, state = sk.advance(plan, state, x, plan.ask(j, model, x), noise.draw)
    return x
