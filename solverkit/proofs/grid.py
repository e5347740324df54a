"""What a layout of levels must be: falling, as many as asked for, from the top to where it says, finer with more steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import torch

from ..errors import OptionError, SolverKitError
from ..grid.grid import Grid
from ..process.schedule import EDM, Flow, Schedule
from ..process.variance_preserving import VP
from ..registry.registry import GridCard
from ..targets.exact import gaussian
from .driving import framed, start
from .finding import at_least, at_most, holds
from .growth import euler
from .options import alternatives

SCHEDULES: tuple[Schedule, ...] = (
    EDM(), VP(continuous=True), VP("scaled_linear", 0.00085, 0.012, integer_time=True), VP(zero_terminal_snr=True), Flow(),
    EDM(sigma_max=700.0),
)  # fmt: skip
STEPS = (1, 2, 3, 10, 20)
SAME = 1e-9


def layouts(
    card: GridCard, options: Mapping[str, Any], schedules: tuple[Schedule, ...] = SCHEDULES, steps: tuple[int, ...] = STEPS
) -> Iterator[tuple[Schedule, int, list[float]]]:
    """(schedule, n, ratios) wherever the grid lays out levels; what it refuses by an error of solverkit is left out.

    Raises:
        CheckError: it refuses all of them.
    """
    laid, refused = 0, ""
    for schedule in schedules:
        with framed(schedule):
            for n in steps:
                try:
                    ratios = [float(r) for r in card.fn(schedule, n, **card.check(options))]
                except OptionError:
                    raise
                except SolverKitError as error:
                    refused = refused or str(error)
                    continue
                laid += 1
                yield schedule, n, ratios
    text = f"it lays out levels for no schedule and no number of steps: {refused}"
    holds(laid > 0, text, "a condition on the schedule that none of VP, EDM and Flow meets")


def check_grid_levels(card: GridCard, options: Mapping[str, Any]) -> None:
    """n steps have n + 1 levels, all of them numbers >= 0."""
    for schedule, n, ratios in layouts(card, options):
        with framed(schedule):
            wrong = [r for r in ratios if math.isnan(r) or r < 0]
            holds(
                not wrong, f"{n} steps: {wrong[:1]} is no noise level (of {_shown(ratios)})",
                "0 * inf or inf - inf at the start of a flow, where sigma / alpha is infinite; a logarithm or a "
                "division at 0",
            )  # fmt: skip
            at_most(
                abs(len(ratios) - (n + 1)), 0, f"{n} steps have {len(ratios)} levels, and not {n + 1}: {_shown(ratios)}",
                "the last level (0) is forgotten or counted as a step, or levels are dropped",
            )  # fmt: skip


def check_grid_falling(card: GridCard, options: Mapping[str, Any]) -> None:
    """Every level is below the one before."""
    for schedule, n, ratios in layouts(card, options):
        with framed(schedule):
            rises = [i for i, (s, t) in enumerate(pairwise(ratios)) if not t < s]
            if schedule.integer_time:  # levels that a network cannot tell apart are merged
                rises = [i for i in rises if not ratios[i + 1] <= ratios[i]]
            at = f"level {rises[0] + 1} does not fall: {_shown(ratios[rises[0] :])}" if rises else ""
            holds(
                not rises, f"{n} steps: {at}",
                "the levels are in ascending order; values of s in [0, 1] are mixed with sigma / alpha; or "
                "rounding makes two levels one",
            )  # fmt: skip


def check_grid_ends(card: GridCard, options: Mapping[str, Any]) -> None:
    """It begins at the schedule's largest level and ends at 0, or is declared otherwise; and is never above the largest."""
    top, zero = card.said("from_the_top", options), card.said("to_zero", options)
    for schedule, n, ratios in layouts(card, options):
        with framed(schedule):
            high, first, last = schedule.ratio_max, ratios[0], ratios[-1]
            near = first == high if math.isinf(high) else abs(first - high) <= SAME * high
            holds(
                near or not top, f"{n} steps begin at sigma / alpha = {first:.6g}, and the model at {high:.6g}",
                "values of s or sigma are returned where sigma / alpha is expected, the first level is rounded "
                "or capped, or a run begins elsewhere on purpose: from_the_top=False says so",
            )  # fmt: skip
            holds(
                near or first < high, f"{n} steps begin at {first:.6g}, beyond the model's largest level {high:.6g}",
                "a formula in s, sigma or time that is not turned into sigma / alpha",
            )  # fmt: skip
            holds(
                (last == 0) == zero, f"{n} steps end at {last:.6g}, declared {'0' if zero else 'above 0'}",
                "the last level is missing, or the run ends at the smallest trained level on purpose: "
                "to_zero=False says so",
            )  # fmt: skip


def check_grid_integers(card: GridCard, options: Mapping[str, Any]) -> None:
    """For a network that knows only integer timesteps, few levels are lost when they are rounded to its own."""
    for schedule in (s for s in SCHEDULES if s.integer_time):
        for _, n, ratios in layouts_or_none(card, options, (schedule,), (2, 5, 20)):
            with framed(schedule):
                grid = Grid.from_ratios(schedule, ratios)
                at_least(
                    len(grid), 0.6 * (n + 1),
                    f"{n} steps: {len(grid)} of {n + 1} levels are left after rounding to timesteps",
                    "many levels lie below the smallest trained one, or closer together than timesteps: use "
                    "schedule.ratio_min as the lower end",
                )  # fmt: skip


def layouts_or_none(
    card: GridCard, options: Mapping[str, Any], schedules: tuple[Schedule, ...], steps: tuple[int, ...]
) -> list[tuple[Schedule, int, list[float]]]:
    """As `layouts`; nothing where the grid refuses all of them."""
    try:
        return list(layouts(card, options, schedules, steps))
    except AssertionError:
        return []


def check_grid_refines(card: GridCard, options: Mapping[str, Any]) -> None:
    """In the sigma and in the flow frame, Euler on the grid comes nearer to the exact flow with four times the steps."""
    for schedule in SCHEDULES[:-1]:
        for frame in (0, 1):
            errors = {}
            for _, n, ratios in layouts_or_none(card, options, (schedule,), (8, 32)):
                with framed(schedule):
                    errors[n] = _error(schedule, [r for r in ratios if r < math.inf or frame], frame)
            if len(errors) == 2 and min(errors.values()) > 1e-9:
                with framed(schedule):
                    at_most(
                        errors[32] / errors[8], 0.8,
                        f"Euler errs by {errors[8]:.2e} in 8 steps and by {errors[32]:.2e} in 32 (frame {frame})",
                        "one gap does not close as n grows: a level that is always skipped, a jump from the top, "
                        "or n that is capped (a table)",
                    )  # fmt: skip


def _error(schedule: Schedule, ratios: list[float], frame: int) -> float:
    """RMS of Euler on the levels to the exact flow between its ends, in a frame."""
    target = gaussian(dim=4, condition=4.0, schedule=schedule)
    grid = Grid.from_ratios(schedule, ratios, frame)
    x = start(grid, 8, 4)
    exact = target.transport(x, grid[0], grid[-1])
    return float((euler(target, x, grid, None) - exact).square().mean().sqrt())


def check_grid_repeats(card: GridCard, options: Mapping[str, Any]) -> None:
    """The same call gives the same levels, whatever was laid out in between, and draws no random numbers."""
    state = torch.get_rng_state()
    first, second = (list(layouts(card, options)) for _ in range(2))
    text = "the same schedule and number of steps give other levels the second time"
    holds(repr(first) == repr(second), text, "the grid keeps something between calls, or draws random numbers")
    same = torch.equal(torch.get_rng_state(), state)
    holds(same, "the grid used torch's global generator", "torch.rand in the grid: levels are no place for chance")


def check_grid_options(card: GridCard, options: Mapping[str, Any]) -> None:
    """Every declared option changes the levels, on some schedule."""
    base = list(layouts(card, options))
    for name in sorted(set(card.defaults) - set(options)):
        values = alternatives(card, name)
        text = f"the option {name!r} has no other value to try; annotate it, or name one in `variants`"
        holds(bool(values), text, "its default says too little of what else it may be")
        acts = any(_laid(card, {**options, name: value}) not in ([], base) for value in values)
        holds(acts, f"the option {name!r} does not act (tried {values})", "the option is declared and never read")


def _laid(card: GridCard, options: Mapping[str, Any]) -> list[tuple[Schedule, int, list[float]]]:
    try:
        return layouts_or_none(card, options, SCHEDULES, STEPS)
    except OptionError:  # a value that it does not take
        return []


def _shown(ratios: list[float]) -> str:
    return f"[{', '.join(f'{r:.6g}' for r in ratios[:6])}{', ...' if len(ratios) > 6 else ''}]"


GRID_CHECKS = (
    check_grid_levels, check_grid_falling, check_grid_ends, check_grid_integers, check_grid_refines, check_grid_repeats,
    check_grid_options,
)  # fmt: skip
