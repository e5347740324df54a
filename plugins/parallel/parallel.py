"""Parallel in time: a plan whose evaluations are asked many at once and refined until they agree."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

import solverkit as sk
from solverkit import Grid
from solverkit.errors import OptionError
from solverkit.model.counting import report
from solverkit.plan.trace import trace
from solverkit.registry.registry import SamplerCard, resolve
from solverkit.steps import parse_options

from .sweeps import Sweeps


def of_solver(options: dict[str, Any]) -> tuple[SamplerCard, dict[str, Any]]:
    """The sampler whose plan is run, and its options: what a budget counts."""
    name, own = parse_options(options["solver"])
    return resolve(name), own


@sk.sampler(
    "parallel",
    traceable=False,
    paced=of_solver,
    reference="Shih et al. 2023, arXiv 2305.16317, Algorithm 1",
    cite="shih2023",
    variants=({"solver": "dpmpp-2m", "window": 4, "tolerance": 0.0}, {"solver": "euler-ancestral"}),
)
def parallel(
    model: Any, x: Any, grid: Grid, noise: Any, solver: str = "ddim", window: int = 16, tolerance: float = 0.001
) -> Any:
    """Parallel in time: any plan by Picard sweeps over a sliding window of its evaluations.

    A sweep asks the network once, for all evaluations of the window, each at its own x_j^k and level, and follows the
    plan's rows with the answers, x_{j+1}^{k+1} = row_j(x_j^{k+1}, D(x_j^k), ...), from the first evaluation whose state is
    final. The window moves on to the first j, each sample's own, with

        1/d |x_j^{k+1} - x_j^k|^2 > tolerance^2 sigma_j^2

    d numbers a sample, sigma_j that of the posterior of the step that evaluation j belongs to, in the frame. A sweep
    settles at least one evaluation: there are never more sweeps than evaluations. With tolerance 0 the end is that of the
    plan driven one evaluation at a time, to the last bit where a row of the network does not depend on its batch.

    nfe= and steps= lay out the plan, and more rows are asked. `Result.passes` and `Result.reports["sweeps"]` are what is
    sequential, `Result.nfe` the rows, `Result.reports["sequential"]` the plan's evaluations.
    Source: Shih et al. 2023, Algorithm 1. There a window is updated by a sum of drifts, and new nodes copy the last state;
    here both are rows of the plan, a new node's with the last answer of the window in the place of its own.

    Args:
        solver: Any traceable sampler of the run's own model, its options behind its name. Draws are made once and kept.
        window: Evaluations that are asked at once, for each sample.
        tolerance: See above; 0 for the sequential run. The paper takes 0.001 for DDIM and 0.5 for DDPM.

    Raises:
        OptionError: a window below 1, a negative tolerance, a plan that asks another model or a flow map, or gradients.
        TraceError: a pull-only solver.
    """
    if isinstance(window, bool) or window < 1 or not 0 <= tolerance < math.inf:
        raise OptionError(f"parallel needs window >= 1 and tolerance >= 0; got window={window}, tolerance={tolerance}.")
    name, options = parse_options(solver)
    plan = trace(name, replace(grid, on_step=None), **options)
    if plan.of or plan.to:
        raise OptionError(f"'parallel' asks the run's own model at one level; {solver!r} asks another, or a flow map.")
    sweeps = Sweeps(plan, model, x, noise.draw, window, tolerance)
    while not sweeps.done:
        sweeps.sweep()
        if any(answer.requires_grad for answer in sweeps.answers.values()) and torch.is_grad_enabled():
            raise OptionError("'parallel' keeps no gradients: sample without grad=True, or take its solver alone.")
    report("sweeps", sweeps.count)
    report("sequential", plan.nfe)
    return sweeps.nodes[plan.nfe]
