"""Teleportation: the first part of a trajectory in closed form, then any solver."""

from __future__ import annotations

import functools
import math
from typing import Any, Literal

import torch

import solverkit as sk
from solverkit import GaussianStats, Grid, Level
from solverkit.errors import OptionError, StatsError
from solverkit.model.counting import report
from solverkit.plan.plan import follow
from solverkit.plan.trace import trace

from .allocation import Allocation, Chosen, chosen, fixed, solver_options
from .layouts import lowest

Jump = Literal["gaussian", "isotropic", "noise"]
FAR = 3.0  # RMS distance of the network's answer from the Gaussian's, in standard deviations, that nothing explains


@sk.op
def jump_to(x: torch.Tensor, stats: GaussianStats, start: Level, end: Level) -> torch.Tensor:
    """The Gaussian's probability flow, in closed form (`GaussianStats.transport`)."""
    return stats.transport(x, start, end)


@functools.lru_cache(maxsize=16)
def described(stats: GaussianStats, rank: int | None, jump: str) -> GaussianStats:
    """The Gaussian of the jump: of lower rank, isotropic (mean and mean variance), or a point (plain noise, scaled)."""
    if jump == "noise":
        return GaussianStats.isotropic(0.0)
    if jump == "isotropic":
        return stats.truncated(0) if stats.dim else stats
    return stats if rank is None else stats.truncated(rank)


def prepare(denoiser: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Options with the statistics of the model where none were given; refuses statistics that cannot be the model's."""
    stats = options.get("stats")
    found = GaussianStats.of(denoiser) if stats is None else GaussianStats.load(stats)
    found.require_match(denoiser)
    return {**options, "stats": found} if stats is None else options


WANG_2024 = "Wang and Vastola 2024, arXiv 2412.09726"
UNIT = {"stats": "isotropic:variance=0.8"}  # in any dimension: what the proofs run on


@sk.sampler(
    "teleport",
    reference=WANG_2024,
    cite="wang2024gaussian",
    restarts=False,
    informed=True,
    prepare=prepare,
    option_examples=({"stats": "mixture", "skip_to": 4.0, "rank": 8},),
    variants=(
        {**UNIT, "skip_to": 4.0},
        {**UNIT, "skip_to": 4.0, "solver": "heun", "allocation": "keep"},
        {**UNIT, "skip_to": "30%", "solver": "ddpm", "tail": "log-snr", "jump": "noise"},
    ),
)
def teleport(
    model: Any,
    x: Any,
    grid: Grid,
    noise: Any,
    stats: str | GaussianStats | None,
    solver: str = "dpmpp-2m",
    skip_to: float | str = "auto",
    allocation: Allocation = "spend",
    tail: str = "auto",
    rank: int | None = None,
    jump: Jump = "gaussian",
) -> Any:
    """A jump along the probability flow of the data's Gaussian, without an evaluation, then any solver.

    x_t = alpha_t mu + sum_k (v_k(t) / v_k(s))^(1/2) u_k u_k^T (x_s - alpha_s mu) with v_k(s) = alpha_s^2 l_k + s^2, and the
    same with the floor off the basis. Exact where the data are Gaussian; elsewhere it costs what the network differs from
    its Gaussian above the level. With zero covariance it is one DDIM step of a model that always predicts the mean.
    Source: Wang and Vastola 2024, arXiv 2412.09726, section 5; "keep" is their fixed grid, "spend" their fixed budget.

    Args:
        stats: `GaussianStats`, or a bundled name ("mnist"), a file, a hub id, or "isotropic:variance=V". `sk.sample`
            finds those that are bundled with the model or saved beside it where none are given (or None), and refuses those
            of another data range.
        solver: Any traceable sampler after the jump, its options behind its name ("unipc:order=2").
        skip_to: Where to jump to: sigma / alpha of a level; "25%" of the grid's steps; or "auto", the level that loses
            least, found by running the solver on the surrogate of the network that was measured with the statistics. It
            may be the grid's first: then only the levels are laid anew, where it gains. "none" does that alone: a control.
            `Result.reports` says what ran: jump (sigma / alpha where the run starts), layout, last (sigma / alpha of the
            last evaluation).
        allocation: "spend" lays as many steps as the grid has below the jump; "keep" takes the grid without its head, so
            that the NFE falls.
        tail: The grid of "spend": a name of `sk.grids()` with ratio_max and ratio_min, or "auto": with skip_to="auto" the
            one of karras (rho 3, 5, 7, 12), log-snr, time-uniform, trailing and flow (shift 3 too) that loses least, else
            karras. With skip_to="auto" the last level above 0 is chosen too. iPNDM, whose weights suit even steps, is
            laid in trailing and flow alone.
        rank: Use only so many directions.
        jump: "isotropic" knows the mean and the mean variance alone, "noise" nothing (plain noise, scaled to the lower
            level): controls.

    Raises:
        OptionError: "auto" without a measured profile, or a skip_to that is none of the above.
        StatsError: statistics of another shape, or (in sk.sample) far from what the network predicts.
    """
    full = statistics(stats, model)
    levels = levels_after(full, grid, solver, skip_to, allocation, tail)
    inner = levels.grid
    if inner[0] < grid[0]:
        gaussian = described(full, rank, jump)
        x = jump_to(x, gaussian, grid[0], inner[0])
        if jump == "gaussian" and isinstance(x, torch.Tensor):
            model = _checked(model, full)
    if isinstance(x, torch.Tensor):
        say(levels)
    name, options = solver_options(solver, full)
    return follow(trace(name, inner, **options), model, x, grid, noise)


def statistics(stats: str | GaussianStats | None, model: Any) -> GaussianStats:
    """The statistics that were named, or those of the model that is sampled.

    Raises:
        OptionError: none were named, and what is sampled is not known here.
        StatsError: the model has none.
    """
    if stats is not None:
        return GaussianStats.load(stats)
    denoiser = getattr(model, "denoiser", None)
    if denoiser is None:
        raise OptionError(
            "without a model no statistics can be found: give stats= (GaussianStats, a bundled name, a file, a hub id). "
            "Only sk.sample finds those of the model that it samples."
        )
    return GaussianStats.of(denoiser)


def say(levels: Chosen) -> None:
    """What ran, in `Result.reports`."""
    report("jump", levels.grid[0].ratio)
    report("layout", levels.layout)
    report("last", lowest(levels.grid))


def levels_after(
    stats: GaussianStats, grid: Grid, solver: str, skip_to: float | str, allocation: Allocation, tail: str
) -> Chosen:
    """The levels of the solver's run; they start below the grid where there is a jump."""
    grid = Grid(grid.levels, grid.schedule, None, grid.before)
    if isinstance(skip_to, str) and skip_to in ("auto", "none"):
        return chosen(stats, solver, grid, allocation, tail, jumps=skip_to == "auto")
    if isinstance(skip_to, str):
        share = skip_to.removesuffix("%")
        if share == skip_to or not share.replace(".", "", 1).isdigit() or not 0 <= float(share) < 100:
            raise OptionError(f'skip_to must be sigma/alpha of a level, "25%" of the steps, "auto" or "none": {skip_to!r}.')
        last = len(grid) - (3 if allocation == "spend" and grid[-1] == 0 else 2)  # that leaves a step below it
        skip_to = grid[max(min(round(float(share) / 100 * (len(grid) - 1)), last), 0)].ratio
    if not skip_to > 0:
        raise OptionError(f"skip_to must be a level above 0, got {skip_to!r}.")
    return fixed(grid, float(skip_to), allocation, tail)


def _checked(model: Any, stats: GaussianStats) -> Any:
    """The model, whose first answer is compared with the Gaussian's: statistics in other units are found out."""
    asked = False

    def answer(x: torch.Tensor, s: Level) -> torch.Tensor:
        nonlocal asked
        denoised = model(x, s)
        if not asked and stats.dim:
            asked = True
            off = float((denoised.float().cpu() - stats.mean).square().mean().sqrt())
            if off > FAR * math.sqrt(max(stats.variance, 1e-12)):
                raise StatsError(
                    f"after the jump the network predicts {float(denoised.mean()):.3g} +- {float(denoised.std()):.3g}, and "
                    f"the statistics say {float(stats.mean.mean()):.3g} +- {math.sqrt(stats.variance):.3g}: they are of "
                    "another model or data range."
                )
        return denoised

    return answer
