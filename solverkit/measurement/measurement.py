"""What was measured: y = A x_0 + noise_std z."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import OptionError
from .linear import Linear


@dataclass(frozen=True, eq=False)
class Measurement:
    """y = A x_0 + noise_std z, z unit normal.

    Attributes:
        operator: A.
        values: y, (B, *measured), or (1, *measured) for all samples alike.
        noise_std: Standard deviation of each value's noise, at least 0.

    Raises:
        OptionError: values of another shape, NaN among them, or a noise_std that is negative or no number.
    """

    operator: Linear
    values: Tensor
    noise_std: float

    def __post_init__(self) -> None:
        if not isinstance(self.operator, Linear):
            raise OptionError(
                f"operator must be a linear operator (sk.inverse.inpainting(mask), sk.inverse.Linear(forward, adjoint, "
                f"shape)), got {type(self.operator).__name__}."
            )
        measured = self.operator.measured
        if not isinstance(self.values, Tensor) or tuple(self.values.shape[1:]) != measured or not self.values.ndim:
            given = tuple(self.values.shape) if isinstance(self.values, Tensor) else type(self.values).__name__
            raise OptionError(
                f"values must be what {self.operator.name!r} measures, a tensor (B, *{measured}) or (1, *{measured}); got "
                f"{given}."
            )
        if not bool(torch.isfinite(self.values).all()):
            raise OptionError("values hold NaN or inf: leave what was not measured out of the operator (a mask).")
        std = self.noise_std
        if isinstance(std, bool) or not isinstance(std, (int, float)) or not 0 <= std < math.inf:
            raise OptionError(f"noise_std must be a number >= 0, the standard deviation of a value's noise; got {std!r}.")

    def missed(self, denoised: Tensor) -> Tensor:
        """y - A D, (B, *measured).

        Raises:
            OptionError: values of another number of samples.
        """
        y = self.values.to(denoised.dtype).to(denoised.device)
        if len(y) not in (1, len(denoised)):
            raise OptionError(f"there are values of {len(y)} samples for a batch of {len(denoised)}: one a sample, or one.")
        return y - self.operator(denoised)

    def rows(self, index: slice | Sequence[int], total: int) -> Measurement:
        """The measurement of some samples of a batch of `total`."""
        if len(self.values) != total or total == 1:
            return self
        own = self.values[index] if isinstance(index, slice) else self.values[torch.tensor(index)]
        return Measurement(self.operator, own, self.noise_std)

    def __repr__(self) -> str:
        return f"Measurement({self.operator!r}, {len(self.values)} samples, noise_std={self.noise_std:g})"
