"""Levels from a file of `sk.choose_levels`."""

from __future__ import annotations

from solverkit import Schedule, load_levels


def from_file(schedule: Schedule, n: int, file: str) -> list[float]:
    """Levels that were chosen for a network and a number of steps, from a file: "levels:file=PATH".

    A grid is told the schedule alone, so another network on the same schedule is not noticed.

    Raises:
        LoadError: the file holds no levels.
        ScheduleError: they were chosen on another schedule.
        GridError: there are none for n steps.
    """
    return load_levels(file).ratios(schedule, n)
