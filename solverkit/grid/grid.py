"""The noise levels of a run: descending, or ascending where data is turned into noise."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from ..errors import GridError
from ..process.level import Level, from_log_snr, to_ratio
from ..process.schedule import Schedule

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAME = 1e-9  # relative: levels nearer than this are one; a step between them would divide by a difference of rounding


@dataclass(frozen=True)
class Grid:
    """Descending levels of one run. Indexing gives a `Level`, `steps()` the pairs (s, t) with s > t (s < t where it rises).

    Args:
        levels: Levels of one frame, strictly descending, or ascending where `rising`. Build them with `Grid.from_ratios` or
            `make_grid`.
        schedule: What the levels were made from.
        on_step: Called whenever a step begins; a trace learns from it which evaluations start a step.
        before: How many steps of the run lie before this grid, where it is the tail of a longer one.
        rising: The run goes from data to noise. The steps of the probability-flow ODE are the same formulas either way.

    Raises:
        GridError: NaN or negative levels, levels in the wrong order, a rising run from 0, or fewer than two levels.
    """

    levels: tuple[Level, ...]
    schedule: Schedule
    on_step: Callable[[], None] | None = field(default=None, compare=False, repr=False)
    before: int = 0
    rising: bool = False

    def __post_init__(self) -> None:
        values = [float(s) for s in self.levels]
        if any(math.isnan(s) or s < 0 for s in values):
            raise GridError(f"noise levels must be numbers >= 0, got {show(values)}.")
        verb, order = ("rise", "ascending") if self.rising else ("fall", "descending")
        for s, t in pairwise(values):
            if (t < s) if self.rising else (t > s):
                raise GridError(f"noise levels must {verb}, got {s:.6g} followed by {t:.6g}; sort them in {order} order.")
        if self.rising and values and values[0] == 0:
            raise GridError("a rising run must start above 0, where a prediction of x_0 says nothing about the noise.")
        merged: list[Level] = []
        for level in self.levels:
            if not merged or abs(merged[-1] - level) > SAME * merged[-1]:
                merged.append(level)
        if len(merged) < 2:
            raise GridError(f"a run needs at least two different noise levels, got {show(values)}.")
        object.__setattr__(self, "levels", tuple(merged))

    @classmethod
    def from_ratios(cls, schedule: Schedule, ratios: Iterable[float], frame: int | None = None) -> Grid:
        """A grid from sigma / alpha, in the schedule's frame unless another one is asked for."""
        checked = []
        for ratio in ratios:
            if math.isnan(ratio) or ratio < 0:
                raise GridError(f"noise levels must be numbers >= 0, got {ratio!r}.")
            checked.append(schedule.level(float(ratio), frame))
        return cls(tuple(checked), schedule)

    def __len__(self) -> int:
        return len(self.levels)

    def __getitem__(self, index: int) -> Level:
        return self.levels[index]

    def __iter__(self) -> Iterator[Level]:
        return iter(self.levels)

    @property
    def frame(self) -> int:
        return self.levels[0].frame

    def begin_step(self) -> None:
        """Say that the next evaluation starts a step (`steps` does it for you)."""
        if self.on_step is not None:
            self.on_step()

    def steps(self) -> Iterator[tuple[Level, Level]]:
        """The steps (s, t) from the first level to the last."""
        for s, t in pairwise(self.levels):
            self.begin_step()
            yield s, t

    def at(self, s: float) -> Level:
        """A level between the nodes, at s in this grid's frame.

        For a network that knows only integers it is the nearest trained level, unless that is a node next to it.
        """
        if isinstance(s, Level):
            return s
        if not s >= 0:
            raise GridError(f"there is no noise level {s!r}; levels are numbers >= 0.")
        ratio = to_ratio(s, self.frame)
        level = self.schedule.level(ratio, self.frame)
        if self.schedule.integer_time and float(level) in self._neighbours(s):
            exact = replace(self.schedule, integer_time=False).level(ratio, self.frame)  # type: ignore[call-arg]
            return Level(float(exact), round(exact.time), exact.scale, self.frame)
        return level

    def at_lam(self, lam: float) -> Level:
        """A level between the nodes, at half log-SNR lam."""
        return self.at(from_log_snr(lam, self.frame))

    def _neighbours(self, s: float) -> tuple[float, ...]:
        ascending = sorted(float(level) for level in self.levels)
        i = bisect_left(ascending, s)
        return tuple(ascending[max(i - 1, 0) : i + 1])

    def plot(self, all_named: bool = False) -> Figure:
        """A matplotlib figure: the levels as ticks over half log-SNR.

        Args:
            all_named: Beside this grid every registered one that can be laid out on its schedule with as many steps.
        """
        from .named import lay_all
        from .picture import grids_figure

        return grids_figure({"this grid": self, **(lay_all(self.schedule, len(self) - 1) if all_named else {})})

    def _repr_html_(self) -> str:
        from ..notebook import html_table

        rows = [(str(i), f"{s:.5g}", f"{s.ratio:.5g}", f"{s.lam:.4g}", f"{s.time:.5g}") for i, s in enumerate(self.levels)]
        head = ("#", "s", "ratio", "log-SNR / 2", "told")
        return html_table(f"grid: {len(self) - 1} steps on {self.schedule}", head, rows)

    @property
    def run_steps(self) -> int:
        """The number of steps of the whole run: rules such as "fewer than 15 steps" mean this, not the tail's length."""
        return self.before + len(self) - 1

    def tail(self, i: int) -> Grid:
        """The grid from node i on."""
        return replace(self, levels=self.levels[i:], before=self.before + i)

    def coarse(self, counts: Sequence[int]) -> Grid:
        """The grid whose steps span counts[0], counts[1], ... of this grid's steps (single-step solvers)."""
        nodes = [0, *accumulate(counts)]
        return replace(self, levels=tuple(self.levels[i] for i in nodes))


def show(values: Sequence[float]) -> str:
    """The first few numbers of a sequence."""
    head = ", ".join(f"{v:.6g}" for v in values[:6])
    return f"[{head}{', ...' if len(values) > 6 else ''}]"


