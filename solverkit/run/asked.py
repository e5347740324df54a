"""The model that a sampler asks during one run: it checks, counts, times and reports each evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import torch

from ..errors import DenoiserError
from ..grid.grid import Grid
from ..model.counting import counting, record
from ..model.denoiser import DenoiserLike
from ..model.finite import require_finite, require_finite_rows
from ..model.guidance.wrapped import rows_of
from ..model.linearised import Linearised, linearised
from ..model.several import require_answer
from ..model.towards import shift_of
from ..plan.plan import MODEL
from ..process.level import Level
from .result import Evaluation

Nonfinite = Literal["raise", "mark"]
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Asked:
    """model(x, s) of one batch of a run; s a level, or one a row.

    Attributes:
        denoiser: What is asked.
        levels: At which levels, in order.
        asked: Rows that the sampler asked for.
        rows, passes, products: What networks evaluated so far; fewer rows than asked where a denoiser answered from memory
            (`may_skip`); rows_of: rows of each model by name.
        seconds: Spent in the denoiser.
        marked: Rows of the batch whose prediction was not finite, as a mask; None where there was none.
        largest: Largest |D| of the first evaluation: how wide the data are.
    """

    def __init__(
        self, denoiser: DenoiserLike, grid: Grid, batch: int, on_nonfinite: Nonfinite,
        report: Callable[[Evaluation], None] | None,
    ) -> None:  # fmt: skip
        self.denoiser, self.grid, self.batch, self.report = denoiser, grid, batch, report
        self.on_nonfinite = on_nonfinite
        self.levels: list[Level] = []
        self.rows = self.passes = self.products = self.asked = 0
        self.rows_of: dict[str, int] = {}
        self.seconds = 0.0
        self.marked: torch.Tensor | None = None
        self.largest = 0.0

    def __call__(
        self, x: torch.Tensor, s: float | Sequence[float], to: float | None = None, of: str | None = None
    ) -> torch.Tensor:
        """The answer to x at s: of a flow map from s to a second level `to`, of the model that is called `of`."""
        said = {**({} if of is None else {"of": of}), **({} if to is None else {"to": self._level(to)})}
        if said:
            require_answer(self.denoiser, to is not None, of)
        if isinstance(s, (tuple, list)):
            if said:
                raise DenoiserError("rows at levels of their own are asked of the run's model, and for no second level.")
            return self._a_row_each(x, [self._level(v) for v in s])
        return self._asked(x, self._level(s), self.denoiser, said)

    def _asked(
        self, x: torch.Tensor, level: Level, denoiser: DenoiserLike, said: Mapping[str, Any] = NOTHING
    ) -> torch.Tensor:
        denoised = self._timed(x, level, denoiser, said)
        if not isinstance(denoised, torch.Tensor) or denoised.shape != x.shape:
            got = tuple(denoised.shape) if isinstance(denoised, torch.Tensor) else type(denoised).__name__
            who = f"the model {said['of']!r}" if "of" in said else "the denoiser"
            raise DenoiserError(f"{who} answered {got} to x of shape {tuple(x.shape)}; expected the same shape.")
        denoised = self._finite(denoised, level)
        self.tell(x, level, denoised)
        return denoised

    def tell(self, x: torch.Tensor, level: Level, denoised: torch.Tensor) -> None:
        """Say that an evaluation of the whole batch is made: callbacks see it, and the result names its level."""
        if not self.levels:
            self.largest = float(denoised.detach().abs().max())
        self.levels.append(level)
        if self.report is not None:
            shift = shift_of(self.denoiser)
            own, answer = x * level.scale, denoised
            if shift is not None:
                own, answer = own + shift.to(own), answer + shift.to(own)
            self.report(Evaluation(len(self.levels) - 1, level, own, answer))

    def ahead(self, x: torch.Tensor, levels: Sequence[Level], samples: Sequence[int]) -> torch.Tensor:
        """The answers to rows that a sampler asks before it is sure of their states; shape and dtype of x.

        They are counted, and told of nowhere: the sampler says itself (`tell`) which evaluation became final.

        Args:
            x: Frame states (b, ...), of any samples of the batch, any number of times.
            levels: One a row. A denoiser that takes no level a row is asked once for each.
            samples: The sample of the batch that each row belongs to.
        """
        groups: dict[tuple[float, float], list[int]] = {}
        for i, level in enumerate(levels):
            groups.setdefault((float(level), level.time), []).append(i)
        if len(groups) == 1 or self.takes_rows:
            asked = levels[0] if len(groups) == 1 else tuple(levels)
            return self._finite_rows(self._answered(x, asked, samples), levels, samples)
        denoised = torch.empty_like(x)
        for own in groups.values():
            rows = torch.tensor(own, device=x.device)
            denoised[rows] = self._answered(x[rows], levels[own[0]], [samples[i] for i in own])
        return self._finite_rows(denoised, levels, samples)

    def linearised(self, x: torch.Tensor, s: float) -> Linearised:
        """The answer to x at s and products with the transpose of its Jacobian, counted and timed as evaluations are."""
        made: list[Linearised] = []

        def ask(y: torch.Tensor, level: Level) -> torch.Tensor:
            made.append(linearised(self.denoiser, y, level))
            return made[0].denoised

        denoised = self._asked(x, self._level(s), ask)  # type: ignore[arg-type]  # of a denoiser it needs the call alone

        def pull(v: torch.Tensor) -> torch.Tensor:
            start = time.perf_counter()
            with counting() as count:
                pulled = made[0].pull(v)
            self.seconds += time.perf_counter() - start
            self.products += count.products
            return pulled

        return Linearised(denoised, pull)

    @property
    def takes_rows(self) -> bool:
        """Whether rows at levels of their own share a pass; a solver that knows it groups its rows accordingly."""
        return bool(getattr(self.denoiser, "takes_rows", False))

    def _level(self, s: Any) -> Level:
        return s if isinstance(s, Level) else self.grid.at(float(s))

    def _timed(
        self, x: torch.Tensor, level: Any, denoiser: DenoiserLike, said: Mapping[str, Any] = NOTHING
    ) -> torch.Tensor:
        start = time.perf_counter()
        with counting(x, level) as count:
            denoised = denoiser(x, level, **said)
        self.seconds += time.perf_counter() - start
        if count.rows == 0 and not getattr(denoiser, "may_skip", False):  # a denoiser that is no network of ours: one pass
            record(len(x))
            count.rows, count.passes = len(x), 1
        self.asked += len(x)
        self.rows += count.rows
        self.passes += count.passes
        self.products += count.products
        name = said.get("of") or MODEL
        self.rows_of[name] = self.rows_of.get(name, 0) + count.rows
        return denoised

    def _a_row_each(self, x: torch.Tensor, levels: list[Level]) -> torch.Tensor:
        """Rows at levels of their own: in one pass where the denoiser takes them so, else those of one level together."""
        if len(levels) != len(x):
            raise DenoiserError(f"{len(levels)} levels were given for {len(x)} rows: one level, or one a row.")
        # levels that are equal may be told other times
        places = [(float(level), level.time, level.scale) for level in levels]
        if len(set(places)) == 1:
            return self(x, levels[0])
        if self.takes_rows:
            denoised = self._timed(x, tuple(levels), self.denoiser)
            require_finite(denoised, len(self.levels), max(levels))
            self.levels.append(max(levels))
            return denoised
        denoised = torch.empty_like(x)
        for place in dict.fromkeys(places):
            own = [i for i, other in enumerate(places) if other == place]
            rows = torch.tensor(own, device=x.device)
            part = getattr(self.denoiser, "rows", None)  # inputs that have one row a sample follow their samples
            denoiser = part(own, None, len(x)) if callable(part) else self.denoiser
            denoised[rows] = self._asked(x[rows], levels[own[0]], denoiser)
        return denoised

    def _answered(self, x: torch.Tensor, level: Any, samples: Sequence[int]) -> torch.Tensor:
        """The answer to rows of these samples, with the inputs of each; counted."""
        denoised = self._timed(x, level, rows_of(self.denoiser, samples, None, self.batch))
        if not isinstance(denoised, torch.Tensor) or denoised.shape != x.shape:
            got = tuple(denoised.shape) if isinstance(denoised, torch.Tensor) else type(denoised).__name__
            raise DenoiserError(f"the denoiser answered {got} to x of shape {tuple(x.shape)}; expected the same shape.")
        return denoised

    def _finite_rows(self, denoised: torch.Tensor, levels: Sequence[Level], samples: Sequence[int]) -> torch.Tensor:
        if self.on_nonfinite == "raise":
            require_finite_rows(denoised, levels, torch.tensor(samples), "the network returned NaN or inf")
            return denoised
        bad = ~torch.isfinite(denoised).flatten(1).all(1)
        if bool(bad.any()):
            marked = torch.zeros(self.batch, dtype=torch.bool, device=bad.device)
            marked[torch.tensor(samples, device=bad.device)[bad]] = True
            self.marked = marked if self.marked is None else self.marked | marked
            denoised = torch.where(bad.reshape(-1, *[1] * (denoised.ndim - 1)), torch.zeros_like(denoised), denoised)
        return denoised

    def _finite(self, denoised: torch.Tensor, level: Level) -> torch.Tensor:
        if self.on_nonfinite == "raise" or len(denoised) != self.batch:
            require_finite(denoised, len(self.levels), level)
            return denoised
        bad = ~torch.isfinite(denoised).flatten(1).all(1)
        if bool(bad.any()):
            self.marked = bad if self.marked is None else self.marked | bad
            denoised = torch.where(bad.reshape(-1, *[1] * (denoised.ndim - 1)), torch.zeros_like(denoised), denoised)
        return denoised
