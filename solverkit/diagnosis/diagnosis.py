"""`sk.diagnose`: what a user wants to know of a network before choosing a sampler."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import DenoiserError, OptionError
from ..model.counting import counting
from ..model.denoiser import DenoiserLike
from ..process.level import Level, from_ratio
from ..process.schedule import Schedule
from .advice import Recommended, sentences, tried
from .at_level import AtLevel, measured
from .clean import Clean, clean
from .faults import Fault, misread, seen
from .halves import halves, seconds

TOP = 80.0  # sigma / alpha below which models that start at alpha = 0 are measured level by level


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes:
        source: Of the clean samples: "data", "target" (draws of an exact one) or "samples" (the network's own).
        samples: Their number.
        spread: RMS standard deviation of a coordinate.
        levels: Figures a level, falling.
        seconds: Of one evaluation, by rows.
        faults: What is wrong, by name.
        solvers: What to run, a budget each.
        advice: The recommendation in sentences.
        evaluations: Rows that all this asked the network for.
    """

    source: str
    samples: int
    spread: float
    levels: tuple[AtLevel, ...]
    seconds: dict[int, float]
    faults: tuple[Fault, ...]
    solvers: tuple[Recommended, ...]
    advice: tuple[str, ...]
    evaluations: int

    @property
    def on(self) -> str:
        """What the figures are of, in words."""
        said = {"data": "samples of the data", "target": "draws of the target", "samples": "samples of the network itself"}
        return said[self.source]

    def report(self) -> dict[str, Any]:
        """All of it as lists, dicts and numbers, for JSON."""
        return {
            "source": self.source, "samples": self.samples, "spread": self.spread,
            "levels": [row.row() for row in self.levels],
            "seconds": {str(rows): taken for rows, taken in self.seconds.items()},
            "faults": [fault._asdict() for fault in self.faults],
            "solvers": [one._asdict() for one in self.solvers],
            "advice": list(self.advice), "evaluations": self.evaluations,
        }  # fmt: skip

    def plot(self, path: str | Path, name: str = "") -> None:
        """Write the figures against the level as a picture of the path's kind (.png, .pdf, .svg)."""
        from .picture import plot

        plot(self, path, name)


def diagnose(
    denoiser: DenoiserLike, data: torch.Tensor | None = None, *, num_samples: int = 64, levels: int = 12,
    nfe: Sequence[int] = (10,), batch_size: int = 64, seed: int = 0,
) -> Diagnosis:  # fmt: skip
    """Figures of a network a noise level, what is wrong with it, and which solver and grid to run.

    Each figure and its source: `Diagnosis.levels` (`AtLevel`). A network that was wrapped wrongly (prediction type, time,
    scale of the input) or data in another range are named where there are real clean samples: data, or an exact target.

    Args:
        denoiser: From `sk.wrap` or `sk.load`, guided or not.
        data: Clean samples (N, *shape), uint8 or in the model's units. Without them an exact target draws its own, and a
            network is measured on samples that it draws itself.
        num_samples: Of them at each level, at least 8.
        levels: From the top of the schedule (at most sigma/alpha = 80) to its bottom, evenly in the log, at least 3.
        nfe: Budgets that a solver is recommended for; empty makes no trial.
        batch_size: Rows of one call.
        seed: Of noise, probes and the choice of samples.

    Raises:
        OptionError: numbers out of range, data that do not fit, or a shape that is not known.
        DenoiserError: no denoiser, or a network that refuses its input.
    """
    _checked(denoiser, num_samples, levels, nfe, batch_size)
    dtype = torch.float64 if hasattr(denoiser, "target") else torch.float32
    with counting() as count:
        found = clean(denoiser, data, num_samples, seed)
        rows = _rows(denoiser, found, levels, batch_size, dtype, seed)
        faults = []
        if found.source != "samples" and (fault := misread(denoiser, found, batch_size, dtype, seed)) is not None:
            faults.append(fault)
        faults += seen(rows, found.spread, found.source)
        shape = tuple(found.x.shape[1:])
        middle = _level(denoiser.schedule, found.spread)
        taken = seconds(denoiser, middle, found.x.to(dtype), dtype, batch_size)
        solvers, excuses = tried(denoiser, shape, nfe)
    guided = getattr(denoiser, "conditional", None) is not None
    advice = [*excuses, *sentences(rows, solvers, found.spread, guided)]
    if faults and solvers:
        advice.append("The faults above come first: no solver mends them.")
    told = (tuple(faults), tuple(solvers), tuple(advice))
    return Diagnosis(found.source, len(found.x), found.spread, tuple(rows), taken, *told, count.rows)


def _rows(denoiser: Any, data: Clean, levels: int, batch: int, dtype: torch.dtype, seed: int) -> list[AtLevel]:
    schedule, half = denoiser.schedule, halves(denoiser)
    top = min(schedule.ratio_max, TOP if math.isinf(schedule.ratio_max) else math.inf)
    bottom = schedule.ratio_min
    at = [_level(schedule, top * (bottom / top) ** (i / (levels - 1))) for i in range(levels)]
    rows = []
    if math.isinf(schedule.ratio_max):
        with suppress(DenoiserError):  # a prediction that says nothing at alpha = 0; samplers start below it
            rows.append(measured(denoiser, _level(schedule, math.inf), data, {}, batch, dtype, seed))
    return rows + [measured(denoiser, level, data, half, batch, dtype, seed) for level in at]


def _level(schedule: Schedule, ratio: float) -> Level:
    ratio = min(max(ratio, schedule.ratio_min), schedule.ratio_max)
    return schedule.at(from_ratio(ratio, schedule.frame))


def _checked(denoiser: Any, num_samples: int, levels: int, nfe: Sequence[int], batch_size: int) -> None:
    if not callable(denoiser) or not isinstance(getattr(denoiser, "schedule", None), Schedule):
        raise DenoiserError(
            f"expected a denoiser (from sk.wrap or sk.load), got {type(denoiser).__name__}; wrap a bare network first: "
            "sk.wrap(net, prediction, schedule)."
        )
    for name, value, least in (("num_samples", num_samples, 8), ("levels", levels, 3), ("batch_size", batch_size, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise OptionError(f"{name} must be an integer of at least {least}, got {value!r}.")
    if isinstance(nfe, (int, str)) or any(isinstance(n, bool) or not isinstance(n, int) or n < 2 for n in nfe):
        raise OptionError(f"nfe is a sequence of budgets of at least 2 evaluations, such as (5, 10); got {nfe!r}.")
