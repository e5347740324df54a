"""Where a run ends, and the law that a stochastic sampler keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..grid.named import make_grid
from ..process.schedule import EDM, Flow, Schedule
from ..registry.registry import SamplerCard
from ..targets.exact import gaussian
from .driving import framed, in_one_run, run, short_grids, start, traced
from .finding import at_most, holds
from .order import order_grid


def check_ends(card: SamplerCard, options: Mapping[str, Any]) -> None:
    """A denoiser that always answers mu ends exactly at mu: at s = 0, from alpha = 0 and from sigma_max, in a few steps."""
    if card.informed:
        return
    for target, _ in short_grids():
        with framed(target.schedule):
            _constant(card, options, target)


def _constant(card: SamplerCard, options: Mapping[str, Any], target: Any) -> None:
    mu = torch.tensor([0.3, -1.0, 0.0, 2.0], dtype=torch.float64)
    for n in (1, 2, 5, 16):
        grid = make_grid("flow" if target.schedule.frame else "karras", target.schedule, n)
        out = run(card, lambda y, s, mu=mu, **said: mu.expand_as(y).clone(), start(grid, 2, 4), grid, options)  # type: ignore[misc]
        error = float((out - mu).abs().max())
        at_most(
            error, 1e-10, f"{n} steps: a constant prediction is missed by {error:.2e} at s = 0",
            "the step to t = 0 leaves noise in x (a plain Euler step of dx/ds = (x - D)/s ends at D there; a "
            "draw is skipped "
            "where t == 0), weights of predictions do not sum to 1, or alpha is forgotten: x = alpha x_0 + s eps",
        )  # fmt: skip


def check_law(card: SamplerCard, options: Mapping[str, Any]) -> None:
    """A stochastic sampler keeps the law: on a Gaussian its exact mean and variance converge to the marginal's.

    The run is linear in its start and its draws, so one run a draw with that draw alone set to 1 gives the variance without
    Monte Carlo. Two draws and two seeds must differ. (A sampler whose steps depend on norms is not linear: only the latter
    is checked here, and its law is its own tests' business.)
    """
    if not card.traceable:
        return
    if card.informed or card.student or not card.is_linear(options):
        _seeds_act(card, options)
        return
    for schedule in (EDM(), Flow()):
        with framed(schedule):
            _law(card, options, schedule)
    _seeds_act(card, options)


def _law(card: SamplerCard, options: Mapping[str, Any], schedule: Schedule) -> None:
    target, errors = gaussian(dim=1, schedule=schedule), []
    for n in (30, 120):
        grid, _ = order_grid(schedule, 1, n, high=8.0, low=0.2, jagged=False)
        plan, t = traced(card, grid, options), grid[-1]
        if plan.draws == 0:
            return
        mean, spread = (float(v) for v in in_one_run([plan], target))
        wanted = t.alpha**2 * float(target.target.eigenvalues) + t**2
        errors.append(max(abs(spread**2 / wanted - 1), abs(mean - t.alpha * float(target.target.means))))
    at_most(
        errors[1], min(max(0.02, 0.6 * errors[0]), 0.1),
        f"the law is off by {errors[0]:.1%} (30 steps) and {errors[1]:.1%} (120 steps): wrong noise or wrong mean",
        "the standard deviation of the noise does not match what the deterministic part leaves: with r = t alpha_s / "
        "(alpha_t s), going down to u and up again adds sqrt(t^2 - u^2 (alpha_t / alpha_u)^2); in the flow frame "
        "alpha changes too, so x is scaled on the way up; one draw is used twice",
    )  # fmt: skip


def _seeds_act(card: SamplerCard, options: Mapping[str, Any]) -> None:
    target, grid = short_grids()[0]
    with framed(target.schedule):
        if traced(card, grid, options).draws == 0:
            return
        x = start(grid, 2, 4)
        first, second = (run(card, target, x, grid, options, seed) for seed in (0, 1))
        holds(not torch.equal(first, second), "seeds do not act", "the draws of noise(s, t) never reach the state")
