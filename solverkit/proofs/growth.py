"""Growing steps: a multistep method must not do worse for its history, on any layout of the levels and for any number.

Past steps that are short beside the next one make a polynomial through them extrapolate far: the error of a method of high
order then exceeds Euler's. Layouts that are even in the network's time end with such steps in log-SNR.

A deterministic method is measured on the bundled mixture, from the exact trajectory at the first level to its end; a
stochastic one by the exact law that it gives a Gaussian, since its run is linear in the start and the draws.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch

from ..errors import GridError
from ..grid.grid import Grid
from ..grid.named import make_grid
from ..process.schedule import EDM, Flow, Schedule
from ..process.variance_preserving import VP
from ..registry.registry import SamplerCard, resolve
from ..targets.exact import ExactDenoiser, mixture
from ..targets.gaussian_mixture import GaussianMixture
from .driving import framed, in_one_run, remembers, run, start, traced
from .finding import at_most

FULL = "SOLVERKIT_PROOFS"  # =full: every number of steps, grid and schedule
SOME_STEPS = (5, 6, 14, 15, 20, 21)
STEPS = range(5, 51)
AGAINST_LOWER = 1.5
AGAINST_FEWER = 1.3
RESOLVED = 1e-5  # the reference's own error is below it
BOTTOM = 1e-3  # sigma / alpha where the reference jumps to 0
TOP = 80.0

SCHEDULES: dict[str, Schedule] = {
    "VP": VP("scaled_linear", 0.00085, 0.012),
    "EDM": EDM(),
    "Flow": Flow(),
    "zero-terminal-SNR VP": VP("scaled_linear", 0.00085, 0.012, zero_terminal_snr=True),
}
SOME_GRIDS = (
    ("VP", "leading"), ("VP", "linspace"), ("VP", "trailing"), ("VP", "karras"), ("EDM", "karras"), ("EDM", "log-snr"),
    ("EDM", "time-uniform"), ("Flow", "flow"), ("Flow", "log-snr"), ("Flow", "time-uniform"),
)  # fmt: skip
GRIDS = tuple(
    (schedule, grid)
    for schedule in SCHEDULES
    for grid in ("leading", "linspace", "trailing", "karras", "log-snr", "time-uniform", "flow")
)


def euler(model: Any, x: Any, grid: Grid, noise: Any) -> Any:
    """What every deterministic method is measured against."""
    for s, t in grid.steps():
        x = x + (t - s) * ((x - model(x, s)) / s)
    return x


def reverse_sde(model: Any, x: Any, grid: Grid, noise: Any) -> Any:
    """What every stochastic method is measured against: the reverse SDE solved exactly for a frozen D."""
    for s, t in grid.steps():
        denoised, r = model(x, s), t * s.alpha / (t.alpha * s)
        x = (t / s * r) * x + (t.alpha * (1 - r * r)) * denoised
        if t > 0:
            x = x + (t * math.sqrt(1 - r * r)) * noise(s, t)
    return x


EULER = SamplerCard("Euler", euler, skip=4)
REVERSE_SDE = SamplerCard("the exponential step of the reverse SDE", reverse_sde, skip=4)


class Trajectory:
    """The exact probability flow of 16 samples of the bundled mixture, from the largest level to 0."""

    def __init__(self, schedule: Schedule) -> None:
        self.target = mixture(schedule=schedule)
        high = min(schedule.ratio_max, TOP)
        ratios = [high * (BOTTOM / high) ** (i / 400) for i in range(401)]
        if schedule.ratio_max > high:
            ratios = [schedule.ratio_max, *ratios]
        self.grid = Grid.from_ratios(schedule, ratios)
        self.states = [start(self.grid, 16, self.target.target.dim)]
        for s, t in pairwise(self.grid):
            self.states.append(self._step(self.states[-1], s, t))
        self.end = self.target(self.states[-1], self.grid[-1])

    def _step(self, x: torch.Tensor, s: Any, t: Any) -> torch.Tensor:
        """The classical Runge-Kutta step of dx/ds = (x - D) / s."""
        h, m = t - s, self.grid.at((s + t) / 2)
        d1 = (x - self.target(x, s)) / s
        y = x + (m - s) * d1
        d2 = (y - self.target(y, m)) / m
        y = x + (m - s) * d2
        d3 = (y - self.target(y, m)) / m
        y = x + h * d3
        return x + h / 6 * (d1 + 2 * d2 + 2 * d3 + (y - self.target(y, t)) / t)

    def at(self, level: Any) -> torch.Tensor:
        """The state at a level."""
        i = max((j for j, s in enumerate(self.grid) if s >= level), default=0)
        near = abs(self.grid[i] - level) <= 1e-12 * level
        return self.states[i] if near else self._step(self.states[i], self.grid[i], level)


@functools.lru_cache(maxsize=len(SCHEDULES))
def trajectory(schedule: str) -> Trajectory:
    return Trajectory(SCHEDULES[schedule])


def diagonal(schedule: Schedule) -> ExactDenoiser:
    """A Gaussian of six variances from 1 to 0.01 along the axes: its directions run side by side."""
    means = torch.tensor([[0.5, -0.2, 0.8, 0.0, -0.6, 0.3]], dtype=torch.float64)
    basis, variances = torch.eye(6, dtype=torch.float64)[None], torch.logspace(0, -2, 6, dtype=torch.float64)[None]
    return ExactDenoiser(GaussianMixture(torch.ones(1), means, basis, variances), schedule)


def path_error(card: SamplerCard, options: Mapping[str, Any], schedule: str, grid: Grid) -> float:
    """RMS to the exact end of the trajectory."""
    exact = trajectory(schedule)
    got = run(card, exact.target, exact.at(grid[0]), grid, options)
    return float((got - exact.end).square().mean().sqrt())


def law_error(card: SamplerCard, options: Mapping[str, Any], schedule: str, grid: Grid) -> float:
    """Wasserstein-2 distance, per dimension, between the law of the end and the Gaussian."""
    target = diagonal(SCHEDULES[schedule])
    mean, spread = in_one_run([traced(card, grid, options)], target)
    wanted = target.target.eigenvalues[0].sqrt()
    return float(((mean - target.target.means[0]).square() + (spread - wanted).square()).mean().sqrt())


@functools.lru_cache(maxsize=4096)
def _bound(
    measure: Callable[..., float], method: Callable[..., Any], options: tuple[tuple[str, Any], ...], schedule: str,
    name: str, n: int,
) -> float:  # fmt: skip
    """The error of a simpler method, measured once."""
    return measure(resolve(method), dict(options), schedule, make_grid(name, SCHEDULES[schedule], n))


def next_lower(card: SamplerCard, options: Mapping[str, Any]) -> tuple[SamplerCard, dict[str, Any]] | None:
    """The family's next lower order; None where that is the first, which stands for itself."""
    if "order" in card.options:
        order, declared = {**card.defaults, **options}["order"], card.order_of(options)
        for k in range(order - 1, 0, -1):  # an option may add evaluations and no order (iPNDM)
            below = card.order_of({**options, "order": k})
            if declared is None or below is None or below < declared:
                return card, {**options, "order": k}
        return None
    lower = getattr(card, "lower", None)
    if lower is None:
        return None
    other = resolve(lower[0])
    return other, {**{k: v for k, v in options.items() if k in other.options}, **lower[1]}


def check_growth(card: SamplerCard, options: Mapping[str, Any]) -> None:
    """On every layout, a multistep method errs at most 1.5 times as much as Euler and as its family's next lower order,
    and with one step more at most 1.3 times as much. For a stochastic one the error is that of its law, and where the law
    of the lower order happens to be right, half the first order's error stands for it.
    """
    failures = faults(card, options)
    more = f"; and {len(failures) - 4} more" if len(failures) > 4 else ""
    at_most(
        len(failures), 0, "; ".join(failures[:4]) + more,
        "a polynomial through past steps that are short beside the next one extrapolates far: use the history "
        "only where the "
        "next step is not much longer than the last (solverkit.steps.usable_orders says which order it bears), "
        "and lower the order in the step to 0",
    )  # fmt: skip


def faults(card: SamplerCard, options: Mapping[str, Any]) -> list[str]:
    """Every layout and number of steps where the proof fails, with the figures."""
    if not card.traceable or card.informed or not card.restarts or not remembers(card, options):
        return []
    if options.get("released"):  # published arithmetic, kept with its faults
        return []
    full = os.environ.get(FULL) == "full"
    found: list[str] = []
    for schedule, name in GRIDS if full else SOME_GRIDS:
        with framed(SCHEDULES[schedule]):
            found += _on_layout(card, options, schedule, name, tuple(STEPS) if full else SOME_STEPS)
    return found


def _on_layout(
    card: SamplerCard, options: Mapping[str, Any], schedule: str, name: str, steps: tuple[int, ...]
) -> list[str]:
    found: list[str] = []
    lower, errors = next_lower(card, options), dict[int, float]()
    for n in steps:
        try:
            grid = make_grid(name, SCHEDULES[schedule], n)
        except GridError:  # this schedule has no such layout
            break
        random = traced(card, grid, options).draws > 0
        if random and not card.is_linear(options):
            break  # the law of a run that depends on norms is its own tests' business
        measure, first = (law_error, REVERSE_SDE) if random else (path_error, EULER)
        errors[n] = error = measure(card, options, schedule, grid)
        base = _bound(measure, first.fn, (), schedule, name, n)
        limits = {first.name: base}
        if lower is not None:
            bound = _bound(measure, lower[0].fn, tuple(sorted(lower[1].items())), schedule, name, n)
            limits[f"{lower[0].name} {lower[1] or ''}".strip()] = max(bound, base / 2) if random else bound
        where = f"{schedule}, {name}, {n} steps: error {error:.3g}"
        for other, limit in limits.items():
            if not error <= max(AGAINST_LOWER * limit, RESOLVED):
                found.append(f"{where}, {error / limit:.2f} times that of {other}")
        before = errors.get(n - 1)
        if before is not None and not error <= max(AGAINST_FEWER * (max(before, base) if random else before), RESOLVED):
            found.append(f"{where}, {error / before:.2f} times that of {n - 1} steps")
    return found
