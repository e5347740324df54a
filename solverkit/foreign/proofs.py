"""What released code proves of itself: order, law, evaluations, independence, edits, finite ends. Each with its figure."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from ..grid.grid import Grid
from ..grid.named import make_grid
from ..process.level import FLOW_FRAME
from ..proofs.driving import place_of
from ..proofs.finding import at_least, at_most, holds
from ..proofs.order import ORDER_SLACK, ORDER_STEPS, order_grid
from ..run.noise import Noise, SampleNoise, sample_seeds
from ..targets.exact import gaussian, mixture
from .named import Foreign

DELTA = 0.1
STEPS = 10
ENDS = 0.01  # some classes round to float32, from sigma = 80, or end just above 0


def _noise(batch: int, dim: int, seed: int = 0) -> Noise:
    return Noise(SampleNoise(sample_seeds(seed, batch), (dim,), torch.float64))


def _start(grid: Grid, batch: int, dim: int) -> torch.Tensor:
    return float(grid[0]) * torch.randn(batch, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _grid(sampler: Foreign, steps: int) -> Grid:
    if sampler.schedule.frame == FLOW_FRAME:
        return make_grid("flow", sampler.schedule, steps)
    return make_grid("karras", sampler.schedule, steps)


def check_order(sampler: Foreign) -> str:
    """Error against the exact ODE map of a Gaussian falls with the order that is said, less 0.25."""
    order = sampler.claim.order({**sampler.defaults, **sampler.options})
    if order is None:
        return "none is said"
    slope, errors = measured_order(sampler, order)
    figure = f"order {order} is said ({sampler.claim.says}), {slope:.2f} is measured"
    shown = ", ".join(f"{e:.1e}" for e in errors)
    text = f"{figure} (errors {shown} at {', '.join(map(str, ORDER_STEPS))} steps)"
    at_least(slope, order - ORDER_SLACK, text, sampler.claim.cause("order"))
    return figure


def measured_order(sampler: Foreign, order: int) -> tuple[float, list[float]]:
    """Slope of log error against log h on grids that serve an order, as for our own samplers, and the errors."""
    target, errors, lengths = gaussian(dim=6, condition=100.0, schedule=sampler.schedule), [], []
    smooth = sampler.claim.smooth
    for n in ORDER_STEPS:
        grid, h = order_grid(sampler.schedule, 1 if smooth else order, n, jagged=not smooth)
        x = _start(grid, 4, 6)
        end = sampler.run(target, x, grid, _noise(4, 6), **sampler.claim.order_options)
        errors.append(float((end - target.transport(x, grid[0], grid[-1])).square().mean().sqrt()))
        lengths.append(h)
    return float(np.polyfit(np.log(lengths[1:]), np.log(np.maximum(errors[1:], 1e-300)), 1)[0]), errors


def check_law(sampler: Foreign) -> str:
    """A stochastic run keeps the law: its exact mean and variance on a Gaussian approach the marginal's.

    The run is affine in its start and its draws, so one run with a row for each draw gives both without Monte Carlo.
    """
    target, errors = gaussian(dim=1, schedule=sampler.schedule), []
    for n in (30, 120):
        grid, _ = order_grid(sampler.schedule, 1, n, high=8.0, low=0.2, jagged=False)
        try:
            found = exact_law(sampler, target, grid)
        except KeyError:
            return "its steps depend on the state, so its law is not affine and is not proven here"
        if found is None:
            return "it draws nothing"
        mean, variance = found
        t = grid[-1]
        wanted = t.alpha**2 * float(target.target.eigenvalues) + t**2
        errors.append(max(abs(variance / wanted - 1), abs(mean - t.alpha * float(target.target.means))))
    figure = f"the law is off by {errors[0]:.1%} (30 steps) and {errors[1]:.1%} (120 steps)"
    at_most(errors[1], min(max(0.02, 0.6 * errors[0]), 0.1), figure, sampler.claim.cause("law"))
    return figure


def exact_law(sampler: Foreign, target: Any, grid: Grid) -> tuple[float, float] | None:
    """Mean and variance of a run on a Gaussian of one dimension; None where it draws nothing.

    Raises:
        KeyError: what it draws depends on its state.
    """
    places: list[tuple[int, int, int]] = []

    def note(ordinal: int, s: float, t: float) -> torch.Tensor:
        places.append(place_of(ordinal, s, t))
        return torch.zeros(2, 1, dtype=torch.float64)

    s, mean, variance = grid[0], target.target.means[0], target.target.eigenvalues[0]
    sampler.run(target, torch.zeros(2, 1, dtype=torch.float64), grid, Noise(note))
    if not places:
        return None
    rows, row = len(places) + 2, {place: 2 + i for i, place in enumerate(places)}

    def unit(ordinal: int, s: float, t: float) -> torch.Tensor:
        z = torch.zeros(rows, 1, dtype=torch.float64)
        z[row[place_of(ordinal, s, t)]] = 1.0
        return z

    x = (s.alpha * mean).repeat(rows, 1).double()
    x[1] += (s.alpha**2 * variance + float(s) ** 2).sqrt()
    end = sampler.run(target, x, grid, Noise(unit))
    return float(end[0]), float((end[1:] - end[0]).square().sum())


def check_nfe(sampler: Foreign) -> str:
    """Evaluations are what it says, and each of them reaches the result."""
    said, grid = sampler.said(STEPS), _grid(sampler, STEPS)
    target = mixture(dim=4, modes=3, schedule=sampler.schedule)
    asked = [0]

    def counted(x: torch.Tensor, level: Any) -> torch.Tensor:
        asked[0] += 1
        return target(x, level)

    sampler.run(counted, _start(grid, 1, 4), grid, _noise(1, 4))
    figure = f"{asked[0]} evaluations for {STEPS} steps" if said is None else said.words
    wasted = _wasted(sampler, grid, target, asked[0])
    if wasted:
        figure = f"{figure}; {len(wasted)} of {asked[0]} do not reach the result, the first is number {wasted[0] + 1}"
    holds(not wasted, figure, sampler.claim.cause("nfe"))
    if said is not None:
        at_most(said.counted, said.told, figure, sampler.claim.cause("nfe"))
    return figure


def _wasted(sampler: Foreign, grid: Grid, target: Any, count: int) -> list[int]:
    """Row j of a batch of equal samples gets another answer at evaluation j: its end must be another one."""
    asked = [0]

    def nudged(x: torch.Tensor, level: Any) -> torch.Tensor:
        denoised = target(x, level)
        denoised[asked[0] : asked[0] + 1] += 0.1
        asked[0] += 1
        return denoised

    x = _start(grid, 1, 4).repeat(count + 1, 1)
    end = sampler.run(nudged, x, grid, _alike(x))
    return [j for j in range(count) if torch.equal(end[j], end[-1])]


def check_independence(sampler: Foreign) -> str:
    """With noise of its own and one seed a sample, a sample is the same alone or among four others."""
    target, grid = mixture(dim=4, modes=3, schedule=sampler.schedule), _grid(sampler, STEPS)
    x = _start(grid, 5, 4)
    together = sampler.run(target, x.clone(), grid, None, seeds=[11, 12, 13, 14, 15])
    worst = 0.0
    for i, seed in ((0, 11), (4, 15)):
        alone = sampler.run(target, x[i : i + 1].clone(), grid, None, seeds=[seed])
        worst = max(worst, float((alone[0] - together[i]).abs().max()))
    figure = f"a sample differs by {worst:.1e} between batches of 1 and 5"
    at_most(worst, 1e-5, figure, sampler.claim.cause("independence"))  # some classes round to float32
    return figure


def check_edits(sampler: Foreign) -> str:
    """An edit of the state at the start of a step acts as if the run had been started there with the edited state."""
    if sampler.own_levels:
        return "it lays out its own levels: no step of it can be begun anew"
    target, errors = gaussian(dim=4, condition=10.0, schedule=sampler.schedule), []
    for n in (40, 80):
        grid, _ = order_grid(sampler.schedule, 1, n, high=8.0, low=0.3, jagged=False)
        errors.append(_missed(sampler, target, grid))
    figure = f"of an edit {errors[0]:.1%} (40 steps) and {errors[1]:.1%} (80 steps) are missed"
    at_most(errors[1], max(0.02, 0.75 * min(errors[0], 0.25)), figure, sampler.claim.cause("edits"))
    return figure


def _missed(sampler: Foreign, target: Any, grid: Grid) -> float:
    n = len(grid) - 1
    nodes = sampler.starts(grid)[n // 8 : -2 : n // 8 + 1]
    x = _start(grid, 2, 4)

    def edit(node: int, y: torch.Tensor) -> torch.Tensor:
        if node in nodes:
            y = y.clone()
            k = nodes.index(node)
            y[2 * k : 2 * k + 2] += DELTA
        return y

    batch = x.repeat(len(nodes) + 1, 1)
    ends = sampler.run(target, batch, grid, _alike(batch), edit=edit).split(2)
    worst = 0.0
    for node, edited in zip(nodes, ends):
        rest = torch.cat([torch.full_like(x, DELTA), torch.zeros_like(x)])
        with_edit, without = sampler.run(target, rest, grid.tail(node), _alike(rest)).chunk(2)
        wanted = with_edit - without
        worst = max(worst, float((edited - ends[-1] - wanted).norm() / wanted.norm()))
    return worst


def _alike(x: torch.Tensor) -> Noise:
    """One draw for all rows, so that in differences of rows the noise drops out."""
    one = SampleNoise(sample_seeds(0, 1), x.shape[1:], x.dtype)
    return Noise(lambda ordinal, s, t: one(ordinal, s, t).expand(x.shape).clone())


def check_finite(sampler: Foreign) -> str:
    """A run to 0 is finite and meets a constant prediction, in 1, 2, 5 and 16 steps."""
    mu = torch.tensor([0.3, -1.0, 0.0, 2.0], dtype=torch.float64)
    worst, failed = 0.0, []
    for n in (1, 2, 5, 16):
        grid = _grid(sampler, n)
        try:
            end = sampler.run(lambda y, s: mu.expand_as(y).clone(), _start(grid, 2, 4), grid, _noise(2, 4))
        except Exception as error:
            failed.append(f"{n} steps: {type(error).__name__}: {error}")
            continue
        miss = float((end - mu).abs().max())
        if not math.isfinite(miss):
            failed.append(f"{n} steps end at NaN or inf")
        worst = max(worst, miss)
    holds(not failed, "; ".join(failed), sampler.claim.cause("finite"))
    figure = f"a constant prediction is missed by {worst:.1e} at 0"
    at_most(worst, ENDS, figure, sampler.claim.cause("finite"))
    return figure


PROOFS = (check_order, check_law, check_nfe, check_independence, check_edits, check_finite)
