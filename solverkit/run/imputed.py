"""What an imputation makes: samples of what is missing, and what is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..errors import OptionError

LEVELS = tuple(round(0.05 * i, 2) for i in range(1, 20))  # of CSDI's quantile loss


class Imputation(NamedTuple):
    """Samples of data with holes.

    Attributes:
        samples: (N, n, ...): n samples of each of N; what was observed is in them as it was.
        mask: Bool (N, ...): true is observed.
        nfe: Evaluations a sample.
        products: Products with the network's Jacobian, whatever their batch.
    """

    samples: torch.Tensor
    mask: torch.Tensor
    nfe: float
    products: int

    @property
    def median(self) -> torch.Tensor:
        """(N, ...): the answer that CSDI gives."""
        return self.quantile(0.5)

    @property
    def mean(self) -> torch.Tensor:
        """(N, ...)."""
        return self.samples.mean(1)

    def quantile(self, q: float) -> torch.Tensor:
        """(N, ...), linear between the samples.

        Raises:
            OptionError: q is not from 0 to 1.
        """
        if not 0 <= q <= 1:
            raise OptionError(f"a quantile is from 0 to 1, got {q!r}.")
        return self.samples.quantile(q, 1)

    def quantiles(self, levels: Sequence[float]) -> torch.Tensor:
        """(len(levels), N, ...)."""
        return torch.stack([self.quantile(q) for q in levels])

    def mae(self, truth: torch.Tensor, where: torch.Tensor | None = None) -> float:
        """Mean |median - truth| where the mask is false, or where `where` is true."""
        truth, where = self._checked(truth, where)
        return float((self.median - truth).abs()[where].mean())

    def crps(self, truth: torch.Tensor, where: torch.Tensor | None = None) -> float:
        """Mean continuous ranked probability score, E|X - y| - E|X - X'| / 2, in the unit of the data; less is better.

        E|X - X'| is over pairs of different samples, so that the number of samples adds no bias (Zamo and Naveau 2018).
        """
        truth, where = self._checked(truth, where)
        n = self.samples.shape[1]
        if n < 2:
            raise OptionError("a score of samples needs at least two of them.")
        miss = (self.samples - truth[:, None]).abs().mean(1)
        rank = torch.arange(1, n + 1, dtype=self.samples.dtype, device=self.samples.device)
        ordered = self.samples.sort(1).values
        weights = (2 * rank - n - 1).reshape(1, n, *[1] * (truth.ndim - 1))
        pairs = (weights * ordered).sum(1) * 2 / (n * (n - 1))  # mean |X - X'| over pairs
        return float((miss - pairs / 2)[where].mean())

    def quantile_loss(self, truth: torch.Tensor, where: torch.Tensor | None = None) -> float:
        """CSDI's published figure: twice the pinball loss at 0.05, 0.1, ..., 0.95, over the sum of |truth|, averaged."""
        truth, where = self._checked(truth, where)
        total = 0.0
        for q in LEVELS:
            off = (truth - self.quantile(q))[where]
            total += float(2 * torch.maximum(q * off, (q - 1) * off).sum())
        return total / len(LEVELS) / float(truth[where].abs().sum())

    def _checked(self, truth: torch.Tensor, where: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        shape = self.mask.shape
        where = ~self.mask if where is None else where
        if truth.shape != shape or where.shape != shape or where.dtype != torch.bool:
            raise OptionError(
                f"truth and where (bool) must have the shape {tuple(shape)} of what was imputed; got "
                f"{tuple(truth.shape)} and {where.dtype} {tuple(where.shape)}."
            )
        if not bool(where.any()):
            raise OptionError("there is nothing to score: the mask is true everywhere.")
        return truth.to(self.samples), where.to(self.samples.device)

    def __repr__(self) -> str:
        return f"Imputation(samples={tuple(self.samples.shape)}, nfe={self.nfe:g}, products={self.products})"
