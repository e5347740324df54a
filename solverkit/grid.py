"""The descending noise levels of a run, and the named ways to lay them out.

A grid function takes a schedule and a number of steps n and returns n + 1 ratios sigma / alpha (fewer after equal
neighbours are merged), the last of them 0 unless `last="min"` asks for an end at the smallest trained level.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise

import numpy as np

from .errors import GridError, OptionError
from .level import FLOW_FRAME, Level, from_log_snr, from_ratio, to_ratio
from .schedule import Schedule


@dataclass(frozen=True)
class Grid:
    """Descending levels of one run. Indexing gives a `Level`, `steps()` the pairs (s, t) with s > t.

    Args:
        levels: Levels of one frame, strictly descending. Build them with `Grid.from_ratios` or `make_grid`.
        schedule: What the levels were made from.
        on_step: Called whenever a step begins; a trace learns from it which evaluations start a step.
        before: How many steps of the run lie before this grid, where it is the tail of a longer one.

    Raises:
        GridError: NaN, rising or negative levels, or fewer than two.
    """

    levels: tuple[Level, ...]
    schedule: Schedule
    on_step: Callable[[], None] | None = field(default=None, compare=False, repr=False)
    before: int = 0

    def __post_init__(self) -> None:
        values = [float(s) for s in self.levels]
        if any(math.isnan(s) or s < 0 for s in values):
            raise GridError(f"noise levels must be numbers >= 0, got {show(values)}.")
        for s, t in pairwise(values):
            if t > s:
                raise GridError(f"noise levels must fall, got {s:.6g} followed by {t:.6g}; sort them in descending order.")
        merged = [a for a, b in zip(self.levels, [None, *values]) if b is None or float(a) != b]
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
        """The steps (s, t), s > t, from the first level to the last."""
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
        ascending = [float(level) for level in reversed(self.levels)]
        i = bisect_left(ascending, s)
        return tuple(ascending[max(i - 1, 0) : i + 1])

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


def _range(schedule: Schedule, ratio_max: float | None, ratio_min: float | None) -> tuple[float, float]:
    high = schedule.ratio_max if ratio_max is None else float(ratio_max)
    low = schedule.ratio_min if ratio_min is None else float(ratio_min)
    if not 0 < low < high:
        raise GridError(f"a grid needs 0 < ratio_min < ratio_max, got {low!r} and {high!r}.")
    return high, low


def _ended(ratios: Iterable[float], last: str) -> list[float]:
    return [*ratios, 0.0] if last == "zero" else list(ratios)


def _nodes(n: int, last: str) -> np.ndarray:
    """Fractions 0 .. 1: n of them before a jump to 0, n + 1 when the run ends at the smallest level."""
    if last not in ("zero", "min"):
        raise OptionError(f"last must be 'zero' or 'min', got {last!r}.")
    count = n if last == "zero" else n + 1
    return np.linspace(0.0, 1.0, count) if count > 1 else np.zeros(1)


def karras(
    schedule: Schedule,
    n: int,
    rho: float = 7.0,
    ratio_max: float | None = None,
    ratio_min: float | None = None,
    last: str = "zero",
) -> list[float]:
    """sigma^(1/rho) uniform (Karras et al. 2022, eq. 5); in the flow frame the same rule on s."""
    if rho <= 0:
        raise OptionError(f"rho must be positive, got {rho!r}.")
    high, low = _range(schedule, ratio_max, ratio_min)
    u = _nodes(n, last)
    frame = schedule.frame if math.isinf(high) else 0
    a, b = from_ratio(high, frame) ** (1 / rho), from_ratio(low, frame) ** (1 / rho)
    s = [float(v) for v in (a + u * (b - a)) ** rho]
    s[0] = from_ratio(high, frame)
    return _ended((to_ratio(v, frame) for v in s), last)


def log_snr(
    schedule: Schedule,
    n: int,
    ratio_max: float | None = None,
    ratio_min: float | None = None,
    finite_max: float = 80.0,
    last: str = "zero",
) -> list[float]:
    """log-SNR uniform (Lu et al. 2022, section 3.3).

    Where the start is at alpha = 0 the levels are uniform from `finite_max` down and the first of them moves to the start.
    """
    high, low = _range(schedule, ratio_max, ratio_min)
    top = min(high, finite_max) if math.isinf(high) else high
    ratios = np.exp(math.log(top) + _nodes(n, last) * math.log(low / top)).tolist()
    ratios[0] = high
    return _ended(ratios, last)


def _require_time(schedule: Schedule, high: float, low: float) -> None:
    """Grids in the network's own time need one that falls from the start to 0."""
    if not schedule.time(high) > schedule.time(low) >= 0:
        raise GridError(
            f"the time that this network is told does not fall from {schedule.time(high):.4g} to 0 with the noise; "
            "use a grid in the noise level, such as karras or log-snr."
        )


def _in_time(schedule: Schedule, u: np.ndarray, high: float, low: float, power: float, last: str) -> list[float]:
    if power != 1:
        _require_time(schedule, high, low)
    a, b = schedule.time(high) ** (1 / power), schedule.time(low) ** (1 / power)
    ratios = [schedule.ratio(float(t)) for t in (a + u * (b - a)) ** power]
    ratios[0] = high
    return _ended(ratios, last)


def time_uniform(
    schedule: Schedule, n: int, ratio_max: float | None = None, ratio_min: float | None = None, last: str = "zero"
) -> list[float]:
    """Uniform in the network's own time, down to the smallest trained level (Lu et al. 2022, appendix D)."""
    return _in_time(schedule, _nodes(n, last), *_range(schedule, ratio_max, ratio_min), 1.0, last)


def time_quadratic(
    schedule: Schedule, n: int, ratio_max: float | None = None, ratio_min: float | None = None, last: str = "zero"
) -> list[float]:
    """Uniform in the square root of time (Song et al. 2021, DDIM, appendix D.2)."""
    return _in_time(schedule, _nodes(n, last), *_range(schedule, ratio_max, ratio_min), 2.0, last)


def _trained(schedule: Schedule) -> int | None:
    return getattr(schedule, "num_train_timesteps", None)


def trailing(schedule: Schedule, n: int) -> list[float]:
    """Timesteps round(N - i N / n) - 1 (Lin et al. 2024, Table 2); T (1 - i / n) in continuous time."""
    total = _trained(schedule)
    if total is None:
        _require_time(schedule, schedule.ratio_max, schedule.ratio_min)
        top = schedule.time(schedule.ratio_max)
        return [schedule.ratio_max, *(schedule.ratio(top * (1 - i / n)) for i in range(1, n)), 0.0]
    return [*(schedule.ratio(round(total - i * total / n) - 1) for i in range(min(n, total))), 0.0]


def leading(schedule: Schedule, n: int, steps_offset: int = 0) -> list[float]:
    """Timesteps (n - 1 - i) floor(N / n) + steps_offset, the layout of the original DDIM code (N = 1000)."""
    total = _trained(schedule)
    if total is None:
        raise GridError("the leading grid is made of trained timesteps; this schedule has none. Use time-uniform.")
    if n > total:
        raise GridError(f"the leading grid has at most {total} steps, got {n}.")
    return [*(schedule.ratio((n - 1 - i) * (total // n) + steps_offset) for i in range(n)), 0.0]


def linspace(schedule: Schedule, n: int) -> list[float]:
    """Timesteps N - 1 .. 0, evenly spaced and not rounded."""
    total = _trained(schedule)
    if total is None:
        return time_uniform(schedule, n)
    return [*(schedule.ratio(t) for t in np.linspace(total - 1, 0, n)), 0.0]


def flow(schedule: Schedule, n: int, shift: float | None = None, last: str = "zero") -> list[float]:
    """t = sigma / (alpha + sigma) evenly spaced, then shifted: t -> shift t / (1 + (shift - 1) t).

    Esser et al. 2024, eq. 23. The default shift is the schedule's own, or 1.
    """
    shift = getattr(schedule, "shift", 1.0) if shift is None else float(shift)
    if shift <= 0:
        raise OptionError(f"shift must be positive, got {shift!r}.")
    _nodes(n, last)  # refuses another `last`
    high, low = from_ratio(schedule.ratio_max, 1), from_ratio(schedule.ratio_min, 1)
    u = np.linspace(0.0, 1.0, n + 1)
    start = high / (shift - (shift - 1) * high)  # so that the shifted grid begins at the start
    end = 0.0 if last == "zero" else low / (shift - (shift - 1) * low)
    t = start + u * (end - start)
    t = shift * t / (1 + (shift - 1) * t)
    ratios = [to_ratio(float(v), FLOW_FRAME) for v in t]
    ratios[0] = schedule.ratio_max
    return ratios
