"""The law of a decoder by enumeration: every outcome of every draw with its probability, so that a law is a vector.

A decoder draws in three ways (`solverkit.tokens.TokenNoise`), each with a finite number of outcomes. Here they branch: a
run begins anew with what was drawn so far, and each draw that is new splits its row into all its outcomes. Between the
steps of a grid rows of the same tokens are one again, so a run of n steps costs n times a step.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import BudgetError
from ..grid.grid import Grid
from ..grid.named import make_grid
from ..registry.registry import DecoderCard
from ..tokens.asked import AskedTokens
from ..tokens.targets import TokenTable, correlated, exact_model, independent, total_variation
from .finding import at_most, holds

EXACT = 1e-12
COUNTS = (16, 32, 64)


class _Fork(Exception):
    """A draw that was not made yet: its outcomes (O, L) and their probabilities (B, O)."""

    def __init__(self, outcomes: Tensor, probabilities: Tensor) -> None:
        self.outcomes, self.probabilities = outcomes, probabilities


class Branching:
    """The draws of a run whose rows are branches: those that were made are repeated, the next one forks.

    Raises:
        _Fork: at the first draw that is new.
    """

    def __init__(self, made: list[Tensor], length: int) -> None:
        self._made, self._next, self.length = made, 0, length

    def _repeated(self) -> Tensor | None:
        self._next += 1
        return self._made[self._next - 1] if self._next <= len(self._made) else None

    def happens(self, probability: float | Tensor, step: int, where: Tensor) -> Tensor:
        if (again := self._repeated()) is not None:
            return again
        q = torch.where(where, torch.as_tensor(probability, dtype=torch.float64).clamp(0, 1), 0.0)
        bits = torch.cartesian_prod(*[torch.tensor([False, True])] * self.length).view(-1, self.length)
        raise _Fork(bits, torch.where(bits, q[:, None], 1 - q[:, None]).prod(dim=-1))

    def token(self, log_p: Tensor, step: int, where: Tensor) -> Tensor:
        if (again := self._repeated()) is not None:
            return again
        p = log_p.double().softmax(dim=-1).nan_to_num()
        p = torch.where(
            where[..., None], p, torch.nn.functional.one_hot(torch.zeros_like(where, dtype=torch.long), p.shape[-1])
        )
        ids = torch.cartesian_prod(*[torch.arange(p.shape[-1])] * self.length).view(-1, self.length)
        raise _Fork(ids, torch.stack([p[:, i, ids[:, i]] for i in range(self.length)]).prod(dim=0))

    def order(self, step: int) -> Tensor:
        if (again := self._repeated()) is not None:
            return again
        ranks = torch.tensor(list(itertools.permutations(range(self.length)))).double() / self.length
        raise _Fork(ranks, torch.full((1, len(ranks)), 1 / len(ranks), dtype=torch.float64))

    def one(self, step: int) -> float:
        return 0.5  # a level that an exact masked model does not see


def branches(run: Callable[[Tensor, Any], Tensor], x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """All ends of run(x, noise) and their probabilities, from rows x (B, L) of probability `weights` (B,)."""
    made: list[Tensor] = []
    while True:
        try:
            return run(x, Branching(made, x.shape[1])), weights
        except _Fork as fork:
            probabilities = fork.probabilities.expand(len(x), -1)
            row, outcome = (probabilities > 0).nonzero(as_tuple=True)
            x, weights = x[row], weights[row] * probabilities[row, outcome]
            made = [*(draw[row] for draw in made), fork.outcomes[outcome]]


@dataclass(frozen=True)
class _Piece(Grid):
    """One step of a longer run that knows how long the run is."""

    whole: int = 0

    @property
    def run_steps(self) -> int:
        return self.whole


def law(card: DecoderCard, model: Any, grid: Grid, options: Mapping[str, Any], whole: bool = False) -> Tensor:
    """P(x) after a run, shape (V + 1, ..., V + 1) (masks are the last id), or (V, ..., V) for uniform noise.

    Args:
        whole: Enumerate the run in one piece, as a user runs it, and not step by step.
    """
    length, sizes = model.length, model.vocabulary + (model.mask is not None)
    states = torch.cartesian_prod(*[torch.arange(sizes)] * length).view(-1, length)
    factor = sizes ** torch.arange(length - 1, -1, -1)
    p = torch.zeros(len(states), dtype=torch.float64)
    if model.mask is None:
        p += 1 / len(states)
    else:
        p[(model.mask * factor).sum()] = 1.0
    whole = whole or card.said("exact", options) == "always"
    pieces = (
        [grid]
        if whole
        else [_Piece(grid.levels[i : i + 2], grid.schedule, before=i, whole=len(grid) - 1) for i in range(len(grid) - 1)]
    )
    for piece in pieces:
        alive = p.nonzero()[:, 0]
        run = functools.partial(_run, card, model, piece, options)
        ends, weights = branches(run, states[alive], p[alive])
        p = torch.zeros_like(p).index_add_(0, (ends * factor).sum(dim=1), weights)
    return p.view([sizes] * length)


def _run(card: DecoderCard, model: Any, grid: Grid, options: Mapping[str, Any], x: Tensor, noise: Any) -> Tensor:
    asked = AskedTokens(model, x, torch.ones_like(x, dtype=torch.bool))
    return card.fn(asked, x.clone(), grid, noise, **options)  # type: ignore[no-any-return]


def distance(card: DecoderCard, model: Any, grid: Grid, options: Mapping[str, Any], whole: bool = False) -> float:
    """Total variation between a decoder's law and the target's; what is still masked counts as wrong."""
    found = law(card, model, grid, options, whole)
    exact = model.target.p
    for axis in range(exact.ndim):
        missing = found.shape[axis] - exact.shape[axis]
        exact = torch.cat([exact, exact.new_zeros([*exact.shape[:axis], missing, *exact.shape[axis + 1 :]])], dim=axis)
    return total_variation(found, exact)


def measured_orders(
    card: DecoderCard, model: Any, options: Mapping[str, Any], counts: tuple[int, ...] = COUNTS
) -> tuple[list[float], list[float]]:
    """Total variation at each number of steps, and the order between neighbours."""
    found = [distance(card, model, make_grid("uniform", model.process, n), options) for n in counts]
    pairs = zip(itertools.pairwise(found), itertools.pairwise(counts))
    orders = [math.log(a / b) / math.log(m / n) for (a, b), (n, m) in pairs]
    return found, orders


def check_token_law(card: DecoderCard, options: Mapping[str, Any]) -> None:
    """The law after n steps as a vector: 1e-12 where exact, else of the declared order; a run is its steps."""
    masked = card.process == "absorbing"
    model = correlated(3, 2, 0.5) if masked else correlated(2, 3, 0.5, "uniform")
    remembers = card.said("remembers", options)
    if not remembers:
        pair = correlated(2, 2, 0.5, card.process)  # type: ignore[arg-type]
        short = make_grid("uniform", pair.process, 3 if masked else 2)
        parts, entire = (law(card, pair, short, options, whole) for whole in (False, True))
        difference = total_variation(parts, entire)
        at_most(
            difference, EXACT,
            f"a run of {len(short) - 1} steps and its steps one by one differ by {difference:.2e} in law",
            "a step uses what an earlier step saw (an old answer of the model, a counter): remembers=True says "
            "so, or ask the model anew",
        )  # fmt: skip
    if exact := card.said("exact", options):
        text = f"exact must be 'always', 'one-token' or '', got {exact!r}"
        holds(exact in ("always", "one-token"), text, "a typing error in the card")
        wide = correlated(3, 3, 0.5, card.process)  # type: ignore[arg-type]
        found = distance(card, wide, make_grid("uniform", wide.process, 3), options)
        at_most(
            found, EXACT, f"declared exact ({exact}), and its law is {found:.2e} from the model's in total variation",
            "several tokens are revealed by one evaluation (they are then independent of each other), tokens are "
            "drawn from changed probabilities (a temperature), or which token is kept depends on what was drawn",
        )  # fmt: skip
    order = card.said("order", options)
    if order is None or remembers:
        return
    found, orders = measured_orders(card, model, options)  # type: ignore[assignment]
    at_most(
        abs(orders[-1] - order), 0.25, f"declared order {order}, measured {orders} from total variations {found}",
        "the probability of a reveal is wrong ((s - t) / s of what is still masked), something of the law does not vanish "
        "with the step (a temperature), or another order is declared",
    )  # fmt: skip


def check_token_product(card: DecoderCard, options: Mapping[str, Any]) -> None:
    """Independent tokens are exact at every number of steps, by enumeration; a decoder that is declared biased is not."""
    length = 3 if card.process == "absorbing" else 2
    p = independent(length, 2, card.process).target.p  # type: ignore[attr-defined,arg-type]
    model = exact_model(TokenTable(torch.einsum("a,b,c->abc" if length == 3 else "a,b->ab", *p), card.process))  # type: ignore[arg-type]
    remembers, biased = card.said("remembers", options), card.said("biased", options)
    worst = 0.0
    for n in (1, 2, 3) if remembers else (1, 2, 3, 5):
        try:
            worst = max(worst, distance(card, model, make_grid("uniform", model.process, n), options, whole=remembers))
        except BudgetError:
            continue
        text = f"{n} steps on independent tokens are {worst:.2e} from exact in total variation"
        holds(
            biased or worst <= EXACT, text,
            "tokens are drawn from other probabilities than the model's, or which token is kept depends on what was drawn: "
            "biased=True says so",
        )  # fmt: skip
    text = "declared biased, and independent tokens come out exact"
    holds(worst > EXACT or not biased, text, "biased=True is too much said")
