"""Align Your Steps: levels that were optimised for three latent networks (Sabour et al. 2024, arXiv 2404.14507)."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from solverkit import Schedule
from solverkit.errors import OptionError, ScheduleError

# sigma / alpha of 10 steps, from the authors' guide (https://research.nvidia.com/labs/toronto-ai/AlignYourSteps/howto.html).
# diffusers' AysSchedules has the same numbers in three digits, with 0 in the place of the last.
TABLES = {
    "sd15": (14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092, 0.9642583904,
             0.6523686016, 0.3977456272, 0.1515232662, 0.0291671582),
    "sdxl": (14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141, 0.5550693289,
             0.3798540708, 0.2332364134, 0.1114188177, 0.0291671582),
    "svd": (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
}  # fmt: skip
SAME = 0.02  # of the start, in log


def ays(
    schedule: Schedule, n: int, table: Literal["sd15", "sdxl", "svd"] = "sd15", last: Literal["zero", "min"] = "zero"
) -> list[float]:
    """Align Your Steps (Sabour et al. 2024): SD 1.5, SDXL or SVD in 10 steps; others by interpolation in log sigma / alpha.

    The last number of a table is the smallest trained level; the run ends at 0 in its place unless last="min".

    Raises:
        ScheduleError: a network whose noise begins elsewhere: no table is for it.
    """
    if table not in TABLES:
        raise OptionError(f"table must be one of {', '.join(TABLES)}, got {table!r}.")
    if last not in ("zero", "min"):
        raise OptionError(f"last must be 'zero' or 'min', got {last!r}.")
    top = TABLES[table][0]
    if not abs(math.log(schedule.ratio_max / top)) < SAME:
        raise ScheduleError(
            f"the table {table!r} was made for a network whose sigma / alpha begins at {top:.4g}, and this one's begins at "
            f"{schedule.ratio_max:.4g}: no table is for it. sk.choose_levels chooses levels for any network."
        )
    logs = np.log(TABLES[table])
    ratios = np.exp(np.interp(np.linspace(0, len(logs) - 1, n + 1), np.arange(len(logs)), logs)).tolist()
    ratios[0] = schedule.ratio_max
    return [*ratios[:-1], 0.0 if last == "zero" else ratios[-1]]
