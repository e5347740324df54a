"""Where a component lives: the linear subspace of its states, and a standard normal draw in it.

A space has three verbs. `numbers(shape)` is the shape of the normal numbers of a draw; `place(z, keys)` puts them
into a state; `project(x, mask)` is the orthogonal projection of any state onto the space, with zeros where the mask says
that nothing is there. Numbers are consumed in an order that does not depend on how many nodes a sample is padded to, and
node i's are chosen by its key: so draws are the same for padded and unpadded graphs, and permuting the keys permutes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import OptionError


class Space(Protocol):
    """The subspace of a component's states."""

    def numbers(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the normal numbers behind one draw of a state of that shape."""

    def place(self, z: Tensor, keys: Tensor | None) -> Tensor:
        """Standard normal draws (B, *shape) from independent normal numbers (B, *numbers); keys (B, N) name the nodes."""

    def project(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """The orthogonal projection of x (B, *shape); mask (B, N) is 1 where there is a node."""

    def check(self, name: str, shape: tuple[int, ...], mask: Tensor | None) -> None:
        """Raises OptionError for a shape, or a mask, that does not fit."""


@dataclass(frozen=True)
class Free:
    """Every state of the shape; no nodes, so a mask and keys do not concern it."""

    def numbers(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def place(self, z: Tensor, keys: Tensor | None) -> Tensor:
        return z

    def project(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return x

    def check(self, name: str, shape: tuple[int, ...], mask: Tensor | None) -> None:
        pass


@dataclass(frozen=True)
class Nodes:
    """Rows of nodes, (N, *features): zero where there is no node."""

    def numbers(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def place(self, z: Tensor, keys: Tensor | None) -> Tensor:
        return z if keys is None else z[torch.arange(len(z), device=z.device)[:, None], keys]

    def project(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return x if mask is None else x * _beside(mask, x)

    def check(self, name: str, shape: tuple[int, ...], mask: Tensor | None) -> None:
        if not shape or (mask is not None and mask.shape[1] != shape[0]):
            raise OptionError(f"{name!r} is of nodes, (N, ...), and has shape {shape}{_mask(mask)}.")


@dataclass(frozen=True)
class Centred(Nodes):
    """Rows of nodes whose mean is zero (positions of a molecule)."""

    def place(self, z: Tensor, keys: Tensor | None) -> Tensor:
        return super().place(z, keys)  # the mask is needed to centre: `project` follows every draw

    def project(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            return x - x.mean(dim=1, keepdim=True)
        m = _beside(mask, x)
        return (x - (x * m).sum(dim=1, keepdim=True) / m.sum(dim=1, keepdim=True)) * m


@dataclass(frozen=True)
class SymmetricHollow:
    """Pairs of nodes, (N, N, *features), symmetric with a zero diagonal (adjacency): one number a pair."""

    def numbers(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0] * (shape[0] - 1) // 2, *shape[2:])

    def place(self, z: Tensor, keys: Tensor | None) -> Tensor:
        n = round((1 + (1 + 8 * z.shape[1]) ** 0.5) / 2)
        key = torch.arange(n, device=z.device).expand(len(z), n) if keys is None else keys
        low, high = torch.minimum(key[:, :, None], key[:, None]), torch.maximum(key[:, :, None], key[:, None])
        pair = high * (high - 1) // 2 + low  # (1, 0), (2, 0), (2, 1), (3, 0), ...: the same for any N above both
        diagonal = (high == low).reshape(*high.shape, *[1] * (z.ndim - 2))
        rows = torch.arange(len(z), device=z.device)[:, None, None]
        return z[rows, torch.where(high == low, 0, pair)].masked_fill(diagonal, 0.0)

    def project(self, x: Tensor, mask: Tensor | None) -> Tensor:
        out = (x + x.transpose(1, 2)) / 2
        hollow = 1 - torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        if mask is not None:
            m = mask.to(x)
            hollow = hollow * m[:, :, None] * m[:, None]
        return out * hollow.reshape(*(hollow.shape if mask is not None else (1, *hollow.shape)), *[1] * (x.ndim - 3))

    def check(self, name: str, shape: tuple[int, ...], mask: Tensor | None) -> None:
        wrong = len(shape) < 2 or shape[0] != shape[1] or shape[0] < 2
        if wrong or (mask is not None and mask.shape[1] != shape[0]):
            raise OptionError(f"{name!r} is of pairs, (N, N, ...) with N >= 2, and has shape {shape}{_mask(mask)}.")


@dataclass(frozen=True)
class Projected:
    """The image of a projection that was given as a function x -> x; linear, idempotent and symmetric (checked)."""

    fn: Callable[[Tensor], Tensor]

    def numbers(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def place(self, z: Tensor, keys: Tensor | None) -> Tensor:
        return z

    def project(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.fn(x)

    def check(self, name: str, shape: tuple[int, ...], mask: Tensor | None) -> None:
        a, b = torch.randn(2, 1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        Pa, Pb = self.fn(a), self.fn(b)
        if not isinstance(Pa, Tensor) or Pa.shape != a.shape:
            raise OptionError(f"project[{name!r}] must return a state of its own shape {shape}.")
        off = max(float((self.fn(Pa) - Pa).abs().max()), float((self.fn(a + 2 * b) - Pa - 2 * Pb).abs().max()))
        skew = abs(float((Pa * b).sum() - (a * Pb).sum())) / float(a.norm() * b.norm())
        if not max(off, skew) <= 1e-8:
            raise OptionError(
                f"project[{name!r}] is no orthogonal projection (P P, linearity or symmetry off by {max(off, skew):.1e}): "
                "draws that went through it would not be white noise. Round samples after the run instead."
            )


free, nodes, centred, symmetric_hollow = Free(), Nodes(), Centred(), SymmetricHollow()


def as_space(name: str, given: Any) -> Space:
    """A space from itself, from None, or from a projection's function.

    Raises:
        OptionError: anything else.
    """
    if given is None:
        return free
    if all(callable(getattr(given, verb, None)) for verb in ("numbers", "place", "project", "check")):
        return given  # type: ignore[no-any-return]
    if callable(given):
        return Projected(given)
    raise OptionError(
        f"project[{name!r}] must be a space (sk.joint.nodes, centred, symmetric_hollow) or a function, got {given!r}."
    )


def _beside(mask: Tensor, x: Tensor) -> Tensor:
    """mask (B, N) shaped to multiply x (B, N, ...)."""
    return mask.to(x).reshape(*mask.shape, *[1] * (x.ndim - 2))


def _mask(mask: Tensor | None) -> str:
    return "" if mask is None else f"; the mask is of {mask.shape[1]} nodes"
