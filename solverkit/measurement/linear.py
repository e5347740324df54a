"""A linear operator with its adjoint, as functions on batches; that they belong together is checked where it is made."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import OptionError
from .conjugate_gradients import conjugate_gradients

Map = Callable[[Tensor], Tensor]

PROBES = 4
DENSE = 2048  # the largest A A^T that is decomposed; above, its systems are solved by conjugate gradients
ITERATIONS = 200
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


class Linear:
    """A: x (B, *shape) -> A x (B, *measured), with A^T.

    Args:
        forward: x -> A x on batches.
        adjoint: v -> A^T v on batches, with <A u, v> = <u, A^T v>.
        shape: Shape of one sample.
        gram: c where A A^T = c I (masks, means of patches, orthonormal rows): systems are then solved by a division.
        name: What it is called in messages.
        dtype: What it is checked in, float64 or float32: float32 where it holds a network.

    Attributes:
        shape, measured: Shapes of one sample and of its measurement.
        gram, name: As above.

    Raises:
        OptionError: not linear, an adjoint that is not A's, or a gram that is not A's; with the figure.
    """

    def __init__(
        self, forward: Map, adjoint: Map, shape: Sequence[int], *, gram: float | None = None, name: str = "linear",
        dtype: torch.dtype = torch.float64,
    ) -> None:  # fmt: skip
        if not callable(forward) or not callable(adjoint):
            raise OptionError("an operator needs two functions on batches, forward (x -> A x) and adjoint (v -> A^T v).")
        if dtype not in TOLERANCE:
            raise OptionError(f"an operator is checked in float64 or float32, got {dtype!r}.")
        self._forward, self._adjoint, self.shape = forward, adjoint, tuple(int(n) for n in shape)
        self.gram, self.name = gram, name
        self.measured = self._checked(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """A x, (B, *measured).

        Raises:
            OptionError: x is no batch of samples of this shape.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise OptionError(
                f"the operator {self.name!r} takes samples of shape {self.shape}, got a batch {tuple(x.shape)}; for "
                "samples of another shape with as many elements say operator.over(shape)."
            )
        return self._forward(x)

    def adjoint(self, v: Tensor) -> Tensor:
        """A^T v, (B, *shape).

        Raises:
            OptionError: v is no batch of measurements.
        """
        if tuple(v.shape[1:]) != self.measured:
            raise OptionError(f"the operator {self.name!r} measures {self.measured}, got a batch {tuple(v.shape)}.")
        return self._adjoint(v)

    def solve(self, v: Tensor, a: float, b: float) -> Tensor:
        """(a A A^T + b I)^(-1) v, (B, *measured), a, b >= 0; with b = 0 the pseudo-inverse, so that A^T of it is the
        smallest x with a A x = v."""
        if self.gram is not None:
            return v / (a * self.gram + b)
        if math.prod(self.measured) > DENSE:
            return conjugate_gradients(lambda w: a * self(self.adjoint(w)) + b * w, v, ITERATIONS)
        values, vectors = self._eigen
        weights = a * values + b
        inverse = torch.where(weights > 1e-10 * weights.max(), 1 / weights, 0.0)
        U = vectors.to(v.dtype).to(v.device)
        return (((v.flatten(1) @ U) * inverse.to(v.dtype).to(v.device)) @ U.T).reshape(v.shape)

    def over(self, shape: Sequence[int]) -> Linear:
        """The same operator on samples of another shape with as many elements: flat ones of an image's operator."""
        if math.prod(shape) != math.prod(self.shape):
            raise OptionError(f"{self.name!r} is of {math.prod(self.shape)} elements; {tuple(shape)} are another number.")
        given = tuple(shape)
        return Linear(
            lambda x: self._forward(x.reshape(-1, *self.shape)), lambda v: self._adjoint(v).reshape(-1, *given), given,
            gram=self.gram, name=self.name,
        )  # fmt: skip

    @functools.cached_property
    def matrix(self) -> Tensor:
        """A, (m, d) float64 on the CPU: for small operators, and for proofs."""
        eye = torch.eye(math.prod(self.shape), dtype=torch.float64)
        columns = [self._forward(part.reshape(-1, *self.shape)).flatten(1) for part in eye.split(512)]
        return torch.cat(columns).T.contiguous()

    @functools.cached_property
    def _eigen(self) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(self.matrix @ self.matrix.T)
        return values.clamp_min(0.0), vectors

    def _checked(self, dtype: torch.dtype) -> tuple[int, ...]:
        generator = torch.Generator().manual_seed(0)
        u = torch.randn(2 * PROBES, *self.shape, dtype=torch.float64, generator=generator).to(dtype)
        with torch.no_grad():
            a_u = self._forward(u)
        if not isinstance(a_u, Tensor) or len(a_u) != len(u):
            given = tuple(a_u.shape) if isinstance(a_u, Tensor) else type(a_u).__name__
            raise OptionError(f"{self.name!r}: forward made {given} of a batch {tuple(u.shape)}; expected (B, ...).")
        v = torch.randn(a_u.shape, dtype=torch.float64, generator=generator).to(a_u.dtype)
        with torch.no_grad():
            at_v, both = self._adjoint(v), self._forward(u[:PROBES] - 2 * u[PROBES:])
        if not isinstance(at_v, Tensor) or at_v.shape != u.shape:
            given = tuple(at_v.shape) if isinstance(at_v, Tensor) else type(at_v).__name__
            raise OptionError(f"{self.name!r}: the adjoint made {given} of {tuple(v.shape)}; expected {tuple(u.shape)}.")

        def worst(difference: Tensor, size: Tensor) -> float:
            return float((difference.abs() / size.clamp_min(1e-30)).max())

        norm = torch.linalg.vector_norm
        size = norm(a_u.flatten(1), dim=1)
        off = worst(
            norm((both - (a_u[:PROBES] - 2 * a_u[PROBES:])).flatten(1), dim=1), size[:PROBES] + 2 * size[PROBES:]
        )
        if not off <= TOLERANCE[dtype]:
            raise OptionError(
                f"{self.name!r} is not linear: A(u - 2 w) differs from A u - 2 A w by {off:.2g} of its size. An offset "
                "belongs to the values; a nonlinear measurement to guidance.posterior."
            )
        there, back = (a_u * v).flatten(1).sum(1), (u * at_v).flatten(1).sum(1)
        off = worst(there - back, size * norm(v.flatten(1), dim=1))
        if not off <= TOLERANCE[dtype]:
            raise OptionError(
                f"the adjoint of {self.name!r} is not that of its forward: <A u, v> and <u, A^T v> differ by {off:.2g} of "
                "|A u| |v|. For a torch function torch.func.vjp gives the adjoint; look at scale and padding."
            )
        if self.gram is not None:
            with torch.no_grad():
                off = worst(norm((self._forward(at_v) - self.gram * v).flatten(1), dim=1), norm(v.flatten(1), dim=1))
            if not off <= TOLERANCE[dtype] * max(1.0, self.gram):
                raise OptionError(f"{self.name!r}: A A^T is not {self.gram:g} I (off by {off:.2g}); leave gram out.")
        return tuple(a_u.shape[1:])

    def __repr__(self) -> str:
        return f"Linear({self.name}, {self.shape} -> {self.measured})"
