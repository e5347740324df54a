"""The noise levels that families of students were distilled at, as grids of n levels and the end."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from solverkit import Schedule
from solverkit.errors import GridError, ScheduleError

TIMESTEPS = 1000


def _ratios(schedule: Schedule, timesteps: list[int], family: str) -> list[float]:
    """sigma / alpha at timesteps of a network with 1000 of them, then 0.

    Raises:
        ScheduleError: a network with another number of timesteps, or without any.
    """
    n = getattr(schedule, "num_train_timesteps", None)
    if n != TIMESTEPS:
        has = "has none" if n is None else f"has {n}"
        raise ScheduleError(
            f"the levels of {family} are timesteps of a network with {TIMESTEPS}, and this one {has} ({schedule}). Give "
            "its own levels: sk.sample(..., levels=[...])."
        )
    return [*(schedule.ratio(float(t)) for t in timesteps), 0.0]


def _even(n: int) -> list[int]:
    return [round(TIMESTEPS * (1 - i / n)) - 1 for i in range(n)]


def lcm(schedule: Schedule, n: int, origin: int = 50) -> list[float]:
    """Latent consistency models, and TCD: n of the `origin` timesteps 1000 / origin j - 1 that they were distilled on.

    Source: Luo et al. 2023, arXiv 2310.04378; LCMScheduler and TCDScheduler of diffusers.
    """
    if not 1 <= n <= origin <= TIMESTEPS:
        raise GridError(f"a student of {origin} levels takes 1 to {origin} steps, got {n}.")
    own = (np.arange(1, origin + 1) * (TIMESTEPS // origin) - 1)[::-1]
    chosen = own[np.floor(np.linspace(0, len(own), n, endpoint=False)).astype(int)]
    return _ratios(schedule, chosen.tolist(), "LCM and TCD")


def dmd2(schedule: Schedule, n: int) -> list[float]:
    """DMD2: timesteps 999, 749, 499, 249 for four steps, 399 for one; other numbers evenly as four.

    Source: Yin et al. 2024, arXiv 2405.14867, and its released SDXL networks.
    """
    return _ratios(schedule, [399] if n == 1 else _even(n), "DMD2")


def sid(schedule: Schedule, n: int) -> list[float]:
    """SiD and SiDA: one answer at sigma / alpha = 2.5. Source: Zhou et al. 2024, arXiv 2404.04057."""
    if n != 1:
        raise GridError(f"SiD answers once, at sigma / alpha = 2.5, got n={n}; its text students have 'sid-lsg'.")
    return [2.5, 0.0]


def sid_lsg(schedule: Schedule, n: int) -> list[float]:
    """SiD-LSG: timesteps int(625 (1 - i / n)); run with renoise's pure=True. Source: Zhou et al. 2024, arXiv 2406.01561."""
    return _ratios(schedule, [int(625 * (1 - i / n)) for i in range(n)], "SiD-LSG")


def hyper_sd(schedule: Schedule, n: int) -> list[float]:
    """Hyper-SD: timestep 800 for the one-step UNet, else evenly from 999. Source: Ren et al. 2024, arXiv 2404.13686."""
    return _ratios(schedule, [800] if n == 1 else _even(n), "Hyper-SD")


def scm(schedule: Schedule, n: int, sigma_data: float = 0.5, middle: float = 1.3) -> list[float]:
    """sCM on TrigFlow: sigma / alpha = sigma_data tan(angle), angles pi/2 and, for two steps, 1.3; else evenly to 0.

    Source: Lu and Song 2025, arXiv 2410.11081; SCMScheduler of diffusers.
    """
    half = math.pi / 2
    angles = [half, middle] if n == 2 else [half * (1 - i / n) for i in range(n)]
    top = schedule.ratio_max
    return [*(min(top, sigma_data * math.tan(a)) if a < half else top for a in angles), 0.0]


TABLES: dict[str, tuple[Callable[..., Any], str]] = {
    "lcm": (lcm, "Luo et al. 2023, arXiv 2310.04378"),
    "tcd": (lcm, "Zheng et al. 2024, arXiv 2402.19159"),
    "dmd2": (dmd2, "Yin et al. 2024, arXiv 2405.14867"),
    "sid": (sid, "Zhou et al. 2024, arXiv 2404.04057"),
    "sid-lsg": (sid_lsg, "Zhou et al. 2024, arXiv 2406.01561"),
    "hyper-sd": (hyper_sd, "Ren et al. 2024, arXiv 2404.13686"),
    "scm": (scm, "Lu and Song 2025, arXiv 2410.11081"),
}
FROM_THE_TOP = ("lcm", "tcd", "scm")  # the others have a level of their own for one step, or a lower top
