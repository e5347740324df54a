"""A fixed judge of generated text: an interpolated character n-gram (Witten and Bell 1991), and the text's own entropy."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from ..errors import LoadError


class Judge:
    """p_k(c | context) = (count + kinds p_{k-1}) / (total + kinds), kinds the number of different followers; p_0 uniform.

    Args:
        codes, counts: Of the n-grams of order 1, 2, ..., each sorted: the first character is the highest digit in base V.
        vocabulary: V.
    """

    def __init__(self, codes: list[Tensor], counts: list[Tensor], vocabulary: int) -> None:
        self.codes, self.counts, self.vocabulary = [c.long() for c in codes], [c.double() for c in counts], vocabulary

    @classmethod
    def load(cls, folder: Path, vocabulary: int) -> Judge:
        """The judge of a folder (judge.safetensors).

        Raises:
            LoadError: it has none.
        """
        from safetensors.torch import load_file

        path = folder / "judge.safetensors"
        if not path.is_file():
            raise LoadError(f"{folder} has no judge.safetensors: text cannot be judged.")
        tensors = load_file(path)
        orders = range(1, len(tensors) // 2 + 1)
        return cls([tensors[f"codes.{k}"] for k in orders], [tensors[f"counts.{k}"] for k in orders], vocabulary)

    def bits(self, x: Tensor) -> Tensor:
        """-log2 p a character of sequences (B, L), (B,) float64; the first characters with the context that they have."""
        x, v = x.cpu().long(), self.vocabulary
        p = torch.full(x.shape, 1 / v, dtype=torch.float64)
        code = torch.zeros_like(x)
        for k, (codes, counts) in enumerate(zip(self.codes, self.counts)):
            shifted = torch.zeros_like(x)
            shifted[:, k:] = x[:, : x.shape[1] - k]
            code = code + shifted * v**k
            total, kinds = self._contexts(codes, counts)
            seen, context = _looked_up(codes, counts, code), code // v
            t, n = _looked_up(*total, context), _looked_up(*kinds, context)
            better = torch.where(t > 0, (seen + n * p) / (t + n).clamp(min=1), p)
            p[:, k:] = better[:, k:]
        return -p.log2().mean(dim=1)

    def _contexts(self, codes: Tensor, counts: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """(contexts, how often they were seen) and (contexts, how many different characters followed)."""
        contexts, which = torch.unique_consecutive(codes // self.vocabulary, return_inverse=True)
        total = torch.zeros(len(contexts), dtype=torch.float64).index_add_(0, which, counts)
        kinds = torch.zeros(len(contexts), dtype=torch.float64).index_add_(0, which, torch.ones_like(counts))
        return (contexts, total), (contexts, kinds)


def _looked_up(codes: Tensor, values: Tensor, wanted: Tensor) -> Tensor:
    """The value of each code, 0 where it was not seen."""
    at = torch.searchsorted(codes, wanted).clamp(max=len(codes) - 1)
    return torch.where(codes[at] == wanted, values[at], 0.0)


def sequence_entropy(x: Tensor, vocabulary: int) -> Tensor:
    """Bits: the entropy of the characters of each sequence, (B,) float64. A sampler that repeats itself has little."""
    counts = torch.nn.functional.one_hot(x.cpu(), vocabulary).double().sum(dim=1)
    return torch.special.entr(counts / x.shape[1]).sum(dim=1) / math.log(2)
