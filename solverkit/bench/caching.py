"""Rules that answer some evaluations from earlier ones, as denoisers around a denoiser: their price is what was evaluated.

    none                       ask the network each time
    frozen:every=2             the last answer again, but for every second evaluation
    easycache:threshold=0.05   input + the last (output - input) of the network, until the output is guessed to have changed
                               by more than that
    taylor:every=2,order=1     a polynomial through the last answers, in the number of the evaluation
    taylor:every=2,order=2,released=true

A frozen answer and a first-order solver are together that solver on a coarser grid: for D = const, dx/ds = (x - D)/s has
straight solutions, and steps along one line are one step. What a rule gains must be judged against solvers at equal counted
evaluations, not against the same solver without the rule.

References:
    Lv et al. 2024 (FasterCache) and the like for frozen answers; Zhou et al. 2025 (EasyCache), equations 5 to 7, here for
    each sample by itself; Liu et al. 2025 (TaylorSeer), equation 6. Its second difference is taken as a second derivative
    at the newest point (`released`): the forecast is then of second order whatever `order` says. Newton's weights,
    k (k + N) / (2 N^2) in the place of k^2 / (2 N^2), make it third.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import OptionError, UnknownNameError
from ..model.counting import counting, record
from ..process.level import FLOW_FRAME
from ..registry.spelled import parse_options


class Frozen:
    """The last answer, but for every n-th evaluation.

    Args:
        every: n >= 1.

    Attributes:
        of_output: The rule sees the network's input and output, not the state and the denoised prediction.
    """

    of_output = False

    def __init__(self, every: int = 2) -> None:
        _count("every", every, 1)
        self.every, self.asked = every, 0
        self.answer: Tensor | None = None

    def due(self, x: Tensor) -> Tensor:
        """Which samples need the network: a mask (B,)."""
        self.asked += 1
        return torch.full((len(x),), (self.asked - 1) % self.every == 0, device=x.device)

    def learn(self, x: Tensor, answer: Tensor, due: Tensor) -> None:
        """Take the answers of the samples that were due; the others' are what was forecast."""
        if bool(due.any()):
            self.answer = answer

    def forecast(self, x: Tensor) -> Tensor | None:
        """The answer without the network; None before the first one."""
        return self.answer


class EasyCache(Frozen):
    """Input + the last residual, until the change of the output that is expected since then, relative to its size, adds up.

    The output is taken as the direction dx/ds = (x - D)/s, what a network predicts that predicts noise or a velocity; the
    input is the state with unit variance.

    Args:
        threshold: The sum that calls for the network. 0: it is asked each time.
    """

    of_output = True

    def __init__(self, threshold: float = 0.05) -> None:
        if not threshold >= 0:
            raise OptionError(f"threshold of easycache must be >= 0, got {threshold!r}.")
        super().__init__(1)
        self.threshold = float(threshold)
        self.seen: list[tuple[Tensor, Tensor]] = []  # (x, answer) of the last two evaluations, sample by sample
        self.before: Tensor | None = None
        self.sum: Tensor | None = None

    def due(self, x: Tensor) -> Tensor:
        """Which samples need the network: a mask (B,)."""
        self.asked += 1
        if len(self.seen) < 2 or self.before is None or self.sum is None:
            self.before = x
            return torch.ones(len(x), dtype=torch.bool, device=x.device)
        (x1, d1), (x0, d0) = self.seen
        rate = _size(d0 - d1) / _size(x0 - x1).clamp(min=1e-12)
        self.sum = self.sum + rate * _size(x - self.before) / _size(d0).clamp(min=1e-12)
        self.before = x
        return self.sum >= self.threshold

    def learn(self, x: Tensor, answer: Tensor, due: Tensor) -> None:
        """Take the answers of the samples that were due."""
        if len(self.seen) < 2:
            self.seen.append((x, answer))
            self.sum = torch.zeros(len(x), device=x.device)
            return
        where = due.view(-1, *(1,) * (x.ndim - 1))
        (x1, d1), (x0, d0) = self.seen
        self.seen = [
            (torch.where(where, x0, x1), torch.where(where, d0, d1)),
            (torch.where(where, x, x0), torch.where(where, answer, d0)),
        ]
        assert self.sum is not None
        self.sum = torch.where(due, torch.zeros_like(self.sum), self.sum)

    def forecast(self, x: Tensor) -> Tensor | None:
        """x and the residual of the last evaluation."""
        if not self.seen:
            return None
        x0, d0 = self.seen[-1]
        return x + (d0 - x0)


class Taylor(Frozen):
    """A polynomial through the answers of every n-th evaluation, in the number of the evaluation.

    Args:
        every: n >= 1, the distance N of the answers.
        order: 0, 1 or 2: of the polynomial.
        released: The weights of the released code in the place of Newton's.
    """

    def __init__(self, every: int = 2, order: int = 1, released: bool = False) -> None:
        super().__init__(every)
        if order not in (0, 1, 2):
            raise OptionError(f"order of taylor must be 0, 1 or 2, got {order!r}.")
        self.order, self.released = order, released
        self.answers: list[Tensor] = []

    def learn(self, x: Tensor, answer: Tensor, due: Tensor) -> None:
        """Take the answers where they were asked for."""
        if bool(due.any()):
            self.answers = [answer, *self.answers][: self.order + 1]

    def forecast(self, x: Tensor) -> Tensor | None:
        """The polynomial at this evaluation, k after the newest answer; of lower order until there are enough of them."""
        if not self.answers:
            return None
        t = ((self.asked - 1) % self.every) / self.every  # k / N
        d, *older = self.answers
        if older:
            d = d + t * (self.answers[0] - older[0])
        if len(older) > 1:
            second = self.answers[0] - 2 * older[0] + older[1]
            d = d + (t * t / 2 if self.released else t * (t + 1) / 2) * second
        return d


RULES: dict[str, type[Frozen]] = {"frozen": Frozen, "easycache": EasyCache, "taylor": Taylor}


class Cached:
    """A denoiser that answers by a rule where it can.

    A run begins where the level rises: what was kept is then forgotten. Batches of a run are asked of denoisers of their
    own (`rows`), so that samples do not depend on each other.

    Args:
        denoiser: What is asked.
        rule: Its spelling.
    """

    may_skip = True

    def __init__(self, denoiser: Any, rule: str) -> None:
        self.denoiser, self.rule = denoiser, rule
        self.schedule, self.shape = denoiser.schedule, getattr(denoiser, "shape", None)
        self.device, self.dtype = getattr(denoiser, "device", torch.device("cpu")), getattr(denoiser, "dtype", None)
        self.prior = getattr(denoiser, "prior", None)
        self._made: Frozen | None = None
        self._level, self._size = -1.0, 0

    def rows(self, start: int | Sequence[int], stop: int | None = None, total: int | None = None) -> Cached:
        """The denoiser of some samples of a batch, with a memory of its own."""
        rows = getattr(self.denoiser, "rows", None)
        return Cached(rows(start, stop, total) if callable(rows) else self.denoiser, self.rule)

    def __call__(self, x: Tensor, level: Any) -> Tensor:
        s = float(level)
        if self._made is None or s > self._level or len(x) != self._size:
            self._made, self._size = made_rule(self.rule), len(x)
        self._level = s
        rule = self._made
        if rule.of_output and s == 0:
            return self._asked(self.denoiser, x, level)
        own = x if not rule.of_output or self.schedule.frame == FLOW_FRAME else x / math.hypot(1.0, s)
        due = rule.due(own)
        forecast = rule.forecast(own)
        if forecast is None or bool(due.all()):
            due = torch.ones_like(due)
            denoised = self._asked(self.denoiser, x, level)
        else:
            denoised = x - s * forecast if rule.of_output else forecast
            if bool(due.any()):
                rows = due.nonzero().flatten()
                cut = getattr(self.denoiser, "rows", None)
                part = cut(rows.tolist(), None, len(x)) if callable(cut) else self.denoiser
                denoised = denoised.clone()
                denoised[rows] = self._asked(part, x[rows], level)
        rule.learn(own, (x - denoised) / s if rule.of_output else denoised, due)
        return denoised

    @staticmethod
    def _asked(denoiser: Any, x: Tensor, level: Any) -> Tensor:
        with counting(x, level) as count:
            answer: Tensor = denoiser(x, level)
        if count.rows == 0:  # a denoiser that is no network of ours
            record(len(x))
        return answer


def cached(denoiser: Any, rule: str) -> Any:
    """A denoiser under a rule; itself for "none".

    Raises:
        UnknownNameError, OptionError: no such rule or option.
    """
    if rule == "none":
        return denoiser
    made_rule(rule)
    return Cached(denoiser, rule)


def made_rule(rule: str) -> Frozen:
    """A rule from its spelling, with nothing kept yet; errors as of `cached`."""
    name, options = parse_options(rule)
    if name not in RULES:
        raise UnknownNameError("caching rule", name, ["none", *RULES])
    try:
        return RULES[name](**options)
    except TypeError:
        raise OptionError(f"the caching rule {rule!r} has an option that {name} does not know.") from None


def _size(x: Tensor) -> Tensor:
    return x.flatten(1).abs().mean(1)


def _count(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise OptionError(f"{name} of a caching rule must be an integer >= {least}, got {value!r}.")
