"""Adaptive DPM-Solver-12 and -23: a pair of orders that shares its evaluations chooses the step in lam.

Pull-only: the steps depend on what the network answers. By default each sample chooses its own steps, so that a sample does
not depend on its batch; norm="batch" is the published rule, the largest error of the batch for all.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch

import solverkit as sk
from solverkit import Grid, Level
from solverkit.errors import BudgetError, OptionError
from solverkit.flow.precision import column
from solverkit.flow.rows import ask, takes_rows
from solverkit.flow.step_size import Control, LadderSteps, SharedSteps, Steps
from solverkit.process.level import from_log_snr
from solverkit.steps import exact_step, phi, step_length

from .singlestep import LU_2022

FINITE_START = 80.0  # sigma / alpha at which adaptive steps begin after the exact step from alpha = 0


class _Pair(NamedTuple):
    """The weights of a trial step from s to t: r1 = 1/2 (orders 1, 2), or r1 = 1/3 and r2 = 2/3 (orders 2, 3).

    With the slopes E_i = (y_i - alpha_i D_i) / s_i of the noise form, E_1 at `one` and E_2 at `two`,

        y_1 = one_x x - one_e E_0,   y_2 = two_x x - two_e E_0 - two_d (E_1 - E_0)
        first = x_x x - x_e E_0,   second = first - x_1 (E_1 - E_0),   third = first - x_2 (E_2 - E_0)
    """

    s: Level
    t: Level
    one: Level
    two: Level
    one_x: float
    one_e: float
    two_x: float
    two_e: float
    two_d: float
    x_x: float
    x_e: float
    x_1: float
    x_2: float


def _pair(s: Level, t: Level, order: int, grid: Grid) -> _Pair:
    h, r1, r2 = step_length(s, t), 0.5 if order == 2 else 1 / 3, 2 / 3
    one, two = _between(grid, s.lam + r1 * h), _between(grid, s.lam + r2 * h)
    return _Pair(
        s, t, one, two,
        one_x=one.alpha / s.alpha,
        one_e=one * math.expm1(r1 * h),
        two_x=two.alpha / s.alpha,
        two_e=two * math.expm1(r2 * h),
        two_d=two * (r2 / r1) * r2 * h * phi(2, r2 * h),
        x_x=t.alpha / s.alpha,
        x_e=t * math.expm1(h),
        x_1=t * math.expm1(h) / (2 * r1),
        x_2=t * h * phi(2, h) / r2,
    )  # fmt: skip


def _between(grid: Grid, lam: float) -> Level:
    """A level at lam; only the told time is rounded for a network that knows only integers, never lam itself."""
    return grid.schedule.at(from_log_snr(lam, grid.frame), snap=False)


def _epsilon(model: Any, y: torch.Tensor, levels: list[Level], rows: torch.Tensor) -> torch.Tensor:
    """E = (y - alpha D) / s of rows at levels of their own."""
    alpha, s = column([level.alpha for level in levels], y), column([float(level) for level in levels], y)
    return (y - alpha * ask(model, y, levels, rows)) / s


def _try(
    model: Any, x: torch.Tensor, e0: torch.Tensor, pairs: list[_Pair], order: int, rows: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(low, high) of one trial step of each row."""

    def w(name: str) -> torch.Tensor:
        return column([getattr(pair, name) for pair in pairs], x)

    e1 = _epsilon(model, w("one_x") * x - w("one_e") * e0, [pair.one for pair in pairs], rows)
    first = w("x_x") * x - w("x_e") * e0
    second = first - w("x_1") * (e1 - e0)
    if order == 2:
        return first, second
    y2 = w("two_x") * x - w("two_e") * e0 - w("two_d") * (e1 - e0)
    e2 = _epsilon(model, y2, [pair.two for pair in pairs], rows)
    return second, first - w("x_2") * (e2 - e0)


def _integrate(
    model: Any, x: torch.Tensor, grid: Grid, order: int, atol: float, rtol: float, h_init: float, safety: float,
    shared: bool, max_nfe: int,
) -> torch.Tensor:  # fmt: skip
    s, end, spent = grid[0], grid[-1], torch.zeros(len(x), dtype=torch.long)
    every = torch.arange(len(x))
    if not math.isfinite(s.lam):
        t = end if end.ratio >= FINITE_START else grid.schedule.level(FINITE_START, grid.frame)
        x, s, spent = exact_step(x, ask(model, x, [s] * len(x)), s, t), t, spent + 1
    last = end if end > 0 else grid.schedule.level(min(grid.schedule.ratio_min, s.ratio), grid.frame)
    if last.lam - s.lam <= 1e-5:
        last = s
    control = Control(order, safety, least=0.0, most=math.inf)
    steps: Steps = (
        SharedSteps(len(x), s.lam, last.lam, h_init, control)
        if shared
        else LadderSteps(len(x), s.lam, last.lam, h_init, control, takes_rows(model))
    )
    x, previous, e0 = x.clone(), x * s.scale, torch.empty_like(x)
    known = torch.zeros(len(x), dtype=torch.bool)
    ends = {s.lam: s, last.lam: last}
    while len(rows := steps.rows()):
        u, v = (lams.tolist() for lams in steps.ends(rows))
        levels = {lam: ends[lam] if lam in ends else _between(grid, lam) for lam in {*u, *v}}
        weights = {(a, b): _pair(levels[a], levels[b], order, grid) for a, b in {*zip(u, v)}}
        pairs = [weights[place] for place in zip(u, v)]
        fresh = ~known[rows]
        if bool(fresh.any()):
            new = rows[fresh]
            there = new.to(x.device)
            e0[there] = _epsilon(model, x[there], [levels[a] for a, k in zip(u, fresh) if k], new)
            known[new] = True
            spent[new] += 1
        there = rows.to(x.device)
        low, high = _try(model, x[there], e0[there], pairs, order, rows)
        spent[rows] += order - 1
        scale = column([pair.t.scale for pair in pairs], x)
        own_low, own_high = low * scale, high * scale
        delta = torch.clamp(rtol * torch.maximum(own_low.abs(), previous[there].abs()), min=atol)
        ratio = ((own_high - own_low) / delta).flatten(1).square().mean(1).sqrt().cpu()
        good = steps.judge(rows, ratio)
        done = rows[good]
        kept, known[done] = good.to(x.device), False
        x[there[kept]], previous[there[kept]] = high[kept], own_low[kept]
        if int(spent.max()) > max_nfe:
            worst = int(spent[rows].argmax())
            raise BudgetError(
                f"more than max_nfe={max_nfe} evaluations at s = {float(levels[u[worst]]):.4g}; raise atol and rtol, or "
                "max_nfe."
            )
    return exact_step(x, ask(model, x, [last] * len(x), every), last, end) if end == 0 else x


def _adaptive(
    model: Any, x: torch.Tensor, grid: Grid, order: int, atol: float, rtol: float, h_init: float, safety: float,
    norm: str, max_nfe: int,
) -> torch.Tensor:  # fmt: skip
    if atol <= 0 or rtol < 0 or h_init <= 0 or not 0 < safety < 1:
        raise OptionError(f"need atol > 0, rtol >= 0, h_init > 0, 0 < safety < 1; got {atol}, {rtol}, {h_init}, {safety}.")
    return _integrate(model, x, grid, order, atol, rtol, h_init, safety, norm == "batch", max_nfe)


@sk.sampler(
    "dpm-solver-12", traceable=False,
    reference=LU_2022, cite="lu2022dpmsolver",
    option_examples=({"norm": "batch"},),
)
def dpm_solver_12(
    model: Any,
    x: Any,
    grid: Grid,
    noise: Any,
    atol: float = 0.0078,
    rtol: float = 0.05,
    h_init: float = 0.05,
    safety: float = 0.9,
    norm: Literal["sample", "batch"] = "sample",
    max_nfe: int = 10000,
) -> Any:
    """Adaptive DPM-Solver-12: orders 1 and 2 (r1 = 1/2), the second goes on.

    Only the ends of the grid matter. A trial costs 2 evaluations (1 after a rejection: E_0 is kept). A step is accepted
    where E = RMS((high - low) / max(atol, rtol max(|low|, |previous low|))) <= 1; h <- safety h E^(-1/2), in lam. Steps of
    their own are powers of two times h_init, so that samples meet at common levels and share calls there.
    Source: Lu et al. 2022 (DPM-Solver), appendix C and Algorithm 3.

    Args:
        atol, rtol: Tolerances in the model's own coordinates (0.0078 = 2/256 for data in [-1, 1]).
        h_init: First step in lam.
        safety: Factor on the next step of norm="batch"; own steps are rounded down to a power of two, which is enough.
        norm: "sample": own steps for each; "batch": the largest error of the batch decides, as published.
        max_nfe: Give up beyond this many evaluations of one sample.

    Raises:
        BudgetError: more than max_nfe evaluations, or a step that underflows.
        NonFiniteError: NaN or inf in an answer of the network.
    """
    return _adaptive(model, x, grid, 2, atol, rtol, h_init, safety, norm, max_nfe)


@sk.sampler(
    "dpm-solver-23", traceable=False,
    reference=LU_2022, cite="lu2022dpmsolver",
    option_examples=({"norm": "batch"},),
)
def dpm_solver_23(
    model: Any,
    x: Any,
    grid: Grid,
    noise: Any,
    atol: float = 0.0078,
    rtol: float = 0.05,
    h_init: float = 0.05,
    safety: float = 0.9,
    norm: Literal["sample", "batch"] = "sample",
    max_nfe: int = 10000,
) -> Any:
    """Adaptive DPM-Solver-23: orders 2 (r1 = 1/3) and 3 (r1 = 1/3, r2 = 2/3), the third goes on.

    As `dpm-solver-12` with 3 evaluations a trial and h <- safety h E^(-1/3).
    Source: Lu et al. 2022 (DPM-Solver), appendix C and Algorithm 3.

    Args:
        atol, rtol, h_init, safety, norm, max_nfe: As in `dpm-solver-12`.

    Raises:
        BudgetError: more than max_nfe evaluations, or a step that underflows.
        NonFiniteError: NaN or inf in an answer of the network.
    """
    return _adaptive(model, x, grid, 3, atol, rtol, h_init, safety, norm, max_nfe)
