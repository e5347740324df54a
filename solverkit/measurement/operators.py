"""Linear operators that people measure with: holes, fewer pixels, blur, random projections."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import OptionError
from .linear import Linear


def inpainting(mask: Tensor) -> Linear:
    """The entries of a sample where the mask is true, (B, m).

    Args:
        mask: Bool, of one sample's shape; true is measured.

    Raises:
        OptionError: a mask that is not boolean, or measures nothing.
    """
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        given = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise OptionError(f"mask must be a boolean tensor of a sample's shape, true where it is measured; got {given}.")
    where = mask.detach().cpu().flatten().nonzero().flatten()
    if not len(where):
        raise OptionError("the mask is false everywhere: nothing is measured.")
    shape, d = tuple(mask.shape), mask.numel()

    def adjoint(v: Tensor) -> Tensor:
        out = v.new_zeros(len(v), d)
        return out.index_copy(1, where.to(v.device), v).reshape(-1, *shape)

    return Linear(lambda x: x.flatten(1)[:, where.to(x.device)], adjoint, shape, gram=1.0, name="inpainting")


def _image(shape: Sequence[int], what: str) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise OptionError(f"{what} is of images (C, H, W), got the shape {tuple(shape)}; flat samples: .over(shape).")
    return int(shape[0]), int(shape[1]), int(shape[2])


def average_pool(shape: Sequence[int], factor: int) -> Linear:
    """Means of patches of factor x factor pixels: super-resolution by that factor.

    (C, H, W) -> (C, H / factor, W / factor).

    Raises:
        OptionError: sizes that the factor does not divide.
    """
    c, h, w = _image(shape, "average_pool")
    if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1 or h % factor or w % factor:
        raise OptionError(f"factor must be a whole number that divides {h} and {w}, got {factor!r}.")

    def adjoint(v: Tensor) -> Tensor:
        return v.repeat_interleave(factor, -1).repeat_interleave(factor, -2) / factor**2

    return Linear(
        lambda x: F.avg_pool2d(x, factor), adjoint, (c, h, w), gram=1 / factor**2, name=f"average pool by {factor}"
    )


def blur(shape: Sequence[int], std: float, width: int | None = None) -> Linear:
    """A Gaussian blur of each channel, zero beyond the edge. (C, H, W) -> (C, H, W).

    Args:
        shape: Of one image.
        std: Of the Gaussian, in pixels.
        width: Pixels of the kernel, odd; three standard deviations to each side if None.

    Raises:
        OptionError: std that is not positive, or an even width.
    """
    c, h, w = _image(shape, "blur")
    if isinstance(std, bool) or not isinstance(std, (int, float)) or not 0 < std < math.inf:
        raise OptionError(f"std must be a positive number of pixels, got {std!r}.")
    width = 2 * math.ceil(3 * std) + 1 if width is None else width
    if isinstance(width, bool) or not isinstance(width, int) or width < 1 or width % 2 == 0:
        raise OptionError(f"width must be an odd number of pixels, got {width!r}.")
    line = torch.exp(-0.5 * (torch.arange(width, dtype=torch.float64) - width // 2) ** 2 / std**2)
    line = line / line.sum()
    kernel = (line[:, None] * line)[None, None]

    def forward(x: Tensor) -> Tensor:
        own = kernel.to(x.dtype).to(x.device)
        return F.conv2d(x.reshape(-1, 1, h, w), own, padding=width // 2).reshape(x.shape)

    return Linear(forward, forward, (c, h, w), name=f"blur of {std:g}")  # a symmetric kernel is its own adjoint


def random_projection(shape: Sequence[int], rows: int, seed: int = 0) -> Linear:
    """Inner products with `rows` random orthonormal vectors. shape -> (rows,).

    Raises:
        OptionError: more rows than a sample has elements, or none.
    """
    d = math.prod(shape)
    if isinstance(rows, bool) or not isinstance(rows, int) or not 1 <= rows <= d:
        raise OptionError(f"rows must be a whole number from 1 to the {d} elements of a sample, got {rows!r}.")
    generator = torch.Generator().manual_seed(seed)
    A = torch.linalg.qr(torch.randn(d, rows, dtype=torch.float64, generator=generator)).Q.T.contiguous()
    return matrix(A, shape, gram=1.0, name=f"{rows} random projections")


def matrix(A: Tensor, shape: Sequence[int], gram: float | None = None, name: str = "matrix") -> Linear:
    """A matrix (m, d) on samples of d elements. shape -> (m,).

    Raises:
        OptionError: a matrix that does not fit.
    """
    given, d = tuple(shape), math.prod(shape)
    if not isinstance(A, Tensor) or A.ndim != 2 or A.shape[1] != d:
        has = tuple(A.shape) if isinstance(A, Tensor) else type(A).__name__
        raise OptionError(f"a matrix (m, {d}) is needed for samples of shape {given}, got {has}.")
    A = A.detach().cpu().double()

    def like(x: Tensor) -> Tensor:
        return A.to(x.dtype).to(x.device)

    return Linear(
        lambda x: x.flatten(1) @ like(x).T, lambda v: (v @ like(v)).reshape(-1, *given), given, gram=gram, name=name
    )
