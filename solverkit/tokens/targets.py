"""Exact token targets: any law of a few tokens as a table, and a Markov chain of any length.

Both are asked through evidence: e_i(v) = P(x_t at i | x_0 at i is v), which is one-hot or all ones for masks, and
(1 - m) 1[v = x_t] + m / V for uniform noise. Then c_i(v) = P(x_0 at i is v | x_t) is one sum over the law.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import OptionError, ProblemError
from .model import TokenModel, wrap_tokens
from .process import Absorbing, Process, Uniform

Noise = Literal["absorbing", "uniform"]


def evidence(x: Tensor, m: Tensor, vocabulary: int, noise: str) -> Tensor:
    """e (B, L, V) of ids (B, L) at levels m (B,), float64."""
    seen = torch.nn.functional.one_hot(x, vocabulary + 1).double()
    if noise == "absorbing":
        return seen[..., :vocabulary] + seen[..., vocabulary:]
    return (1 - m)[:, None, None] * seen[..., :vocabulary] + (m / vocabulary)[:, None, None]


def _times(rows: Tensor, matrix: Tensor) -> Tensor:
    """rows @ matrix, term by term: the rounding of a matrix product depends on the number of rows, and so would ties."""
    out = rows[:, :1] * matrix[0]
    for i in range(1, len(matrix)):
        out = out + rows[:, i, None] * matrix[i]
    return out


class TokenTable:
    """A law of L tokens of V kinds as a table p (V, ..., V) of float64 probabilities."""

    def __init__(self, p: Tensor, noise: Noise = "absorbing") -> None:
        p = torch.as_tensor(p, dtype=torch.float64)
        if p.ndim < 1 or len(set(p.shape)) != 1 or bool((p < 0).any()):
            raise ProblemError(f"a table of tokens has shape (V, ..., V) and no negative number, got {tuple(p.shape)}.")
        self.p, self.noise = p / p.sum(), noise
        self.vocabulary, self.length = p.shape[0], p.ndim

    def states(self) -> Tensor:
        """All sequences, (V^L, L), in the order of p.flatten()."""
        return torch.cartesian_prod(*[torch.arange(self.vocabulary)] * self.length).view(-1, self.length)

    def __call__(self, x: Tensor, m: Tensor) -> Tensor:
        """log c, (B, L, V) float64."""
        e = evidence(x, m, self.vocabulary, self.noise)
        clean = self.states()
        joint = self.p.flatten() * torch.stack([e[:, i, clean[:, i]] for i in range(self.length)]).prod(dim=0)
        joint = joint / joint.sum(dim=1, keepdim=True)
        hot = torch.nn.functional.one_hot(clean, self.vocabulary).double()
        return _times(joint, hot.flatten(1)).view(len(x), self.length, self.vocabulary).log()

    def log_prob(self, x: Tensor) -> Tensor:
        """log p of sequences (B, L), (B,) float64."""
        return self.p[tuple(x.T)].log()


class MarkovChain:
    """x_1 ~ initial, x_{i+1} ~ transition[x_i]: conditionals by forward-backward (Baum et al. 1970).

    Args:
        initial: (V,) probabilities.
        transition: (V, V), rows that sum to 1.
        length: L.
        own: Whether a token that is seen counts as evidence of itself. Without it the answer at a revealed position is what
            the others say of it, as a network that corrects itself would answer; it is exact at masked positions only.
    """

    def __init__(
        self, initial: Tensor, transition: Tensor, length: int, noise: Noise = "absorbing", own: bool = True
    ) -> None:
        self.own = own
        self.initial, self.transition = initial.double(), transition.double()
        self.vocabulary, self.length, self.noise = len(initial), length, noise

    def __call__(self, x: Tensor, m: Tensor) -> Tensor:
        """log c, (B, L, V) float64."""
        e = evidence(x, m, self.vocabulary, self.noise)
        forward, backward = torch.empty_like(e), torch.empty_like(e)
        ahead, behind = self.initial.expand(len(x), -1), torch.ones_like(e[:, 0])
        for i in range(x.shape[1]):
            forward[:, i] = ahead  # P(x_0 at i, evidence before i), normalised
            ahead = _times(ahead * e[:, i], self.transition)
            ahead = ahead / ahead.sum(dim=1, keepdim=True)
        for i in reversed(range(x.shape[1])):
            backward[:, i] = behind  # P(evidence after i | x_0 at i), up to a factor
            behind = _times(behind * e[:, i], self.transition.T)
            behind = behind / behind.sum(dim=1, keepdim=True)
        c = forward * (e if self.own else 1.0) * backward
        return (c / c.sum(dim=-1, keepdim=True)).log()

    def log_prob(self, x: Tensor) -> Tensor:
        """log p of sequences (B, L), (B,) float64."""
        return self.initial.log()[x[:, 0]] + self.transition.log()[x[:, :-1], x[:, 1:]].sum(dim=1)

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """n exact sequences (n, L)."""
        rng = np.random.default_rng(seed)
        rows, first = self.transition.cumsum(1).numpy(), self.initial.cumsum(0).numpy()
        x = np.empty((n, self.length), dtype=np.int64)
        x[:, 0] = np.minimum((rng.random(n)[:, None] >= first).sum(1), self.vocabulary - 1)
        for i in range(1, self.length):
            x[:, i] = np.minimum((rng.random(n)[:, None] >= rows[x[:, i - 1]]).sum(1), self.vocabulary - 1)
        return torch.from_numpy(x)

    @property
    def entropy(self) -> float:
        """Nats a token of the exact law: -E log p / L."""
        marginal, total = self.initial, float(torch.special.entr(self.initial).sum())
        for _ in range(self.length - 1):
            total += float((marginal * torch.special.entr(self.transition).sum(dim=1)).sum())
            marginal = marginal @ self.transition
        return total / self.length

    @property
    def bigrams(self) -> Tensor:
        """(V, V): the exact share of each pair of neighbours, over all places."""
        marginal, total = self.initial, torch.zeros_like(self.transition)
        for _ in range(self.length - 1):
            total = total + marginal[:, None] * self.transition
            marginal = marginal @ self.transition
        return total / (self.length - 1)


@dataclass(frozen=True, eq=False)
class Conditionals:
    """The network of an exact target: its conditionals at a noise share of each row, (B,), or at none."""

    target: Any

    def __call__(self, x: Tensor, m: Tensor | None = None) -> Tensor:
        none = torch.zeros(len(x), dtype=torch.float64)
        return self.target(x, none if m is None else m.double())  # type: ignore[no-any-return]


def exact_model(target: Any, process: Process | None = None, **fields: Any) -> TokenModel:
    """The token model of a target (`TokenTable`, `MarkovChain`), which it has as `target`.

    A uniform process is told its level; a masked one depends on none.
    """
    process = (Absorbing() if target.noise == "absorbing" else Uniform()) if process is None else process
    if process.noise != target.noise:
        raise OptionError(f"the target is one of {target.noise} noise, and the process is {process}.")
    masked = target.noise == "absorbing"

    model = wrap_tokens(
        Conditionals(target), process=process, mask=target.vocabulary if masked else None, vocabulary=target.vocabulary,
        time=None if masked else "share", length=target.length, **fields,
    )  # fmt: skip
    vars(model)["target"] = target
    return model


def markov(length: int = 64, symbols: int = 5, noise: Noise = "absorbing", seed: int = 0) -> TokenModel:
    """A Markov chain whose conditionals are exact: rows of its transition matrix from Dirichlet(0.5), begun at rest.

    Raises:
        ProblemError: fewer than two symbols or tokens.
    """
    if length < 2 or symbols < 2:
        raise ProblemError(f"a chain needs length >= 2 and symbols >= 2, got {length} and {symbols}.")
    transition = torch.from_numpy(np.random.default_rng(seed).dirichlet(np.full(symbols, 0.5), size=symbols))
    rest = torch.linalg.matrix_power(transition, 4096)[0]
    return exact_model(MarkovChain(rest / rest.sum(), transition, length, noise))


def independent(length: int = 16, symbols: int = 4, noise: Noise = "absorbing", seed: int = 0) -> TokenModel:
    """Independent tokens, each with its own law: every decoder is exact on them at every number of steps."""
    rng = np.random.default_rng(seed)
    return exact_model(Independent(torch.from_numpy(rng.dirichlet(np.ones(symbols), size=length)), noise))


class Independent:
    """Token i ~ p[i], p (L, V)."""

    def __init__(self, p: Tensor, noise: Noise = "absorbing") -> None:
        self.p, self.noise, (self.length, self.vocabulary) = p.double(), noise, p.shape

    def __call__(self, x: Tensor, m: Tensor) -> Tensor:
        c = self.p * evidence(x, m, self.vocabulary, self.noise)
        return (c / c.sum(dim=-1, keepdim=True)).log()

    def log_prob(self, x: Tensor) -> Tensor:
        """log p of sequences (B, L), (B,) float64."""
        return self.p.log()[torch.arange(self.length), x].sum(dim=1)


def correlated(
    length: int = 3, symbols: int = 3, concentration: float = 0.3, noise: Noise = "absorbing", seed: int = 0
) -> TokenModel:
    """A table drawn from Dirichlet(concentration): a small one makes strongly dependent tokens."""
    p = np.random.default_rng(seed).dirichlet(np.full(symbols**length, concentration))
    return exact_model(TokenTable(torch.from_numpy(p).view([symbols] * length), noise))


def total_variation(p: Tensor, q: Tensor) -> float:
    """Half of the sum of |p - q|."""
    return 0.5 * float((p - q).abs().sum())


def bigram_shares(x: Tensor, vocabulary: int) -> Tensor:
    """(V, V): the share of each pair of neighbours in sequences (B, L)."""
    pairs = x[:, :-1] * vocabulary + x[:, 1:]
    return torch.bincount(pairs.flatten(), minlength=vocabulary**2).double().view(vocabulary, vocabulary) / pairs.numel()


def expected_evaluations(levels: list[float], length: int) -> float:
    """E-NFE of a cached ancestral run: sum over steps of 1 - (1 - p_i)^L, p_i the share unmasked in step i (Ou et al.
    2025).

    Every change but the last is followed by one evaluation, and the first evaluation follows none: as many as changes.
    """
    return sum(-math.expm1(length * math.log1p(-(s - t))) if s - t < 1 else 1.0 for s, t in itertools.pairwise(levels))
