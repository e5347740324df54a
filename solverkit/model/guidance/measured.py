"""Denoisers that know a linear measurement: E[x_0 | x, y] in the place of E[x_0 | x], by one approximation or another.

Each is D' = D + C A^T (A C A^T + noise_std^2 I)^(-1) (y - A D) with its own C for the covariance of x_0 given x:

    pigdm      r^2 I inside the brackets, s^2 / alpha J^T outside        exact for data N(0, I)
    mmps       s^2 / alpha J^T, systems by conjugate gradients            exact for every Gaussian
    tmpd       the same outside, its row sums inside
    diffpir    a multiple of I, no gradient                               exact for data N(m, v I) with rho="exact"

J = dD/dx; s^2 / alpha J is the covariance itself, for every law (Efron 2011). r^2 = s^2 / (alpha^2 + s^2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ...errors import OptionError
from ...measurement.conjugate_gradients import conjugate_gradients
from ...measurement.linear import Linear
from ...measurement.measurement import Measurement
from ...process.level import Level, from_ratio
from ..denoiser import DenoiserLike
from ..inputs import row_index
from ..linearised import linearised
from .wrapped import Wrapped, number, rows_of

NEARLY_PURE = 1e3  # sigma / alpha that stands for alpha = 0, where D depends on x no more and J / alpha is 0 / 0


class Measured(Wrapped):
    """A denoiser as it is, that carries what was measured; see `measured`.

    Attributes:
        measurement: y = A x_0 + noise.
    """

    def __init__(self, denoiser: DenoiserLike, measurement: Measurement) -> None:
        super().__init__(denoiser)
        if self.shape is not None and tuple(self.shape) != measurement.operator.shape:
            raise OptionError(
                f"the operator takes samples of shape {measurement.operator.shape}, the denoiser makes "
                f"{tuple(self.shape)}; with as many elements: operator.over(shape)."
            )
        self.measurement = measurement

    def __call__(self, x: Tensor, level: Any) -> Tensor:
        return self.denoiser(x, level)

    def around(self, denoiser: DenoiserLike, measurement: Measurement) -> Measured:
        """The same around another denoiser and measurement."""
        return Measured(denoiser, measurement)

    def rows(self, start: int | Sequence[int], stop: int | None = None, total: int | None = None) -> Measured:
        """The same for some samples of a batch: of their inputs, with their values."""
        index, total = row_index(start, stop, total)
        return self.around(rows_of(self.denoiser, start, stop, total), self.measurement.rows(index, total))

    def _level(self, level: Any) -> Level:
        level = self.schedule.at(level)
        return level if level.alpha > 0 else self.schedule.at(from_ratio(NEARLY_PURE, level.frame), snap=False)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.denoiser!r}, {self.measurement!r})"


class Pulled(Measured):
    """D' = D + s^2 / alpha J^T A^T w: what `pigdm`, `mmps` and `tmpd` have in common.

    Attributes:
        limit: Largest variance of the data in any direction, or None.
    """

    def __init__(self, denoiser: DenoiserLike, measurement: Measurement, limit: float | None) -> None:
        super().__init__(denoiser, measurement)
        if limit is not None and not number("limit", limit) > 0:
            raise OptionError(f"limit must be positive, the largest variance of the data in any direction; got {limit!r}.")
        self.limit = limit

    def _moved(self, pull: Callable[[Tensor], Tensor], unit: float, weight: Tensor) -> Tensor:
        """unit J^T A^T weight, no longer than limit |A^T weight|."""
        back = self.measurement.operator.adjoint(weight)
        moved = unit * pull(back)
        if self.limit is None:
            return moved
        longest = self.limit * torch.linalg.vector_norm(back.flatten(1), dim=1)
        length = torch.linalg.vector_norm(moved.flatten(1), dim=1).clamp_min(torch.finfo(moved.dtype).tiny)
        return moved * (longest / length).clamp_max(1.0).reshape(-1, *[1] * (moved.ndim - 1))


class PiGDM(Pulled):
    """See `pigdm`."""

    def __call__(self, x: Tensor, level: Any) -> Tensor:
        at, m = self._level(level), self.measurement
        if at == 0:
            return self.denoiser(x, at)
        denoised, pull = linearised(self.denoiser, x, at)
        s2 = float(at) ** 2
        r2 = s2 / (at.alpha**2 + s2)
        weight = m.operator.solve(m.missed(denoised), r2, m.noise_std**2)
        return denoised + self._moved(pull, s2 / at.alpha, weight)

    def around(self, denoiser: DenoiserLike, measurement: Measurement) -> PiGDM:
        return PiGDM(denoiser, measurement, self.limit)


class MMPS(Pulled):
    """See `mmps`."""

    def __init__(
        self, denoiser: DenoiserLike, measurement: Measurement, iterations: int, limit: float | None
    ) -> None:  # fmt: skip
        super().__init__(denoiser, measurement, limit)
        if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
            raise OptionError(f"iterations must be a whole number of at least 1, got {iterations!r}.")
        self.iterations = iterations

    def __call__(self, x: Tensor, level: Any) -> Tensor:
        at, m = self._level(level), self.measurement
        if at == 0:
            return self.denoiser(x, at)
        denoised, pull = linearised(self.denoiser, x, at)
        unit = float(at) ** 2 / at.alpha

        def covariance(v: Tensor) -> Tensor:
            return unit * m.operator(pull(m.operator.adjoint(v))) + m.noise_std**2 * v

        weight = conjugate_gradients(covariance, m.missed(denoised), self.iterations)
        return denoised + self._moved(pull, unit, weight)

    def around(self, denoiser: DenoiserLike, measurement: Measurement) -> MMPS:
        return MMPS(denoiser, measurement, self.iterations, self.limit)


class TMPD(Pulled):
    """See `tmpd`."""

    def __call__(self, x: Tensor, level: Any) -> Tensor:
        at, m = self._level(level), self.measurement
        if at == 0:
            return self.denoiser(x, at)
        denoised, pull = linearised(self.denoiser, x, at)
        unit, missed = float(at) ** 2 / at.alpha, m.missed(denoised)
        sums = unit * m.operator(pull(m.operator.adjoint(torch.ones_like(missed))))
        s2 = float(at) ** 2
        least = 1e-3 * s2 / (at.alpha**2 + s2)  # a row of negative correlations may sum to nothing or less
        variance = sums.clamp_min(least) + m.noise_std**2
        return denoised + self._moved(pull, unit, missed / variance)

    def around(self, denoiser: DenoiserLike, measurement: Measurement) -> TMPD:
        return TMPD(denoiser, measurement, self.limit)


class DiffPIR(Measured):
    """See `diffpir`."""

    def __init__(
        self, denoiser: DenoiserLike, measurement: Measurement, rho: Literal["exact", "released"], lam: float,
        variance: float,
    ) -> None:  # fmt: skip
        super().__init__(denoiser, measurement)
        if rho not in ("exact", "released"):
            raise OptionError(f"rho must be 'exact' or 'released', got {rho!r}.")
        self.rho, self.lam, self.variance = rho, number("lam", lam), number("variance", variance)
        if not (self.lam > 0 and self.variance > 0):
            raise OptionError(f"diffpir needs lam > 0 and variance > 0, got {lam} and {variance}.")

    def __call__(self, x: Tensor, level: Any) -> Tensor:
        level, m = self.schedule.at(level), self.measurement
        denoised = self.denoiser(x, level)
        if level == 0:
            return denoised
        precision = (level.alpha / float(level)) ** 2  # 1 / s^2 of x / alpha
        rho = precision + 1 / self.variance if self.rho == "exact" else self.lam * precision
        if rho == 0:  # released, at alpha = 0: y alone
            return denoised + m.operator.adjoint(m.operator.solve(m.missed(denoised), 1.0, 0.0))
        # argmin |y - A x|^2 / noise_std^2 + rho |x - D|^2
        return denoised + m.operator.adjoint(m.operator.solve(m.missed(denoised), 1.0, rho * m.noise_std**2))

    def around(self, denoiser: DenoiserLike, measurement: Measurement) -> DiffPIR:
        return DiffPIR(denoiser, measurement, self.rho, self.lam, self.variance)


def measured(denoiser: DenoiserLike, operator: Linear, values: Tensor, noise_std: float) -> Measured:
    """A denoiser as it is, that carries y = A x_0 + noise_std z to samplers that ask for it (dps, daps, red-diff).

    Args:
        denoiser: Of the data alone.
        operator: A, of `solverkit.inverse`.
        values: y, (B, *measured) or (1, *measured).
        noise_std: Standard deviation of each value's noise.

    Raises:
        OptionError: shapes that do not fit, or a noise_std that is negative.
    """
    return Measured(denoiser, Measurement(operator, values, noise_std))


def pigdm(
    denoiser: DenoiserLike, operator: Linear, values: Tensor, noise_std: float, limit: float | None = None
) -> PiGDM:
    """D' = D + s^2 / alpha J^T A^T (r^2 A A^T + noise_std^2)^(-1) (y - A D), r^2 = s^2 / (alpha^2 + s^2).

    One product with the Jacobian an evaluation. Exact at every level for data N(0, I); other data want unit variance.
    Source: Song et al. 2023 (PiGDM).

    Args:
        denoiser, operator, values, noise_std: As `measured`.
        limit: Largest variance of the data in any direction: the correction C v is then no longer than limit |v|. At high
            noise s^2 / alpha multiplies a network's errors, and without a limit runs may leave the data; 1 is a start.

    Raises:
        OptionError: as `measured`; a limit that is not positive.
        DenoiserError: a network without gradient.
    """
    return PiGDM(denoiser, Measurement(operator, values, noise_std), limit)


def mmps(
    denoiser: DenoiserLike, operator: Linear, values: Tensor, noise_std: float, iterations: int = 5,
    limit: float | None = None,
) -> MMPS:  # fmt: skip
    """D' = D + C A^T (A C A^T + noise_std^2)^(-1) (y - A D), C = s^2 / alpha J^T, by conjugate gradients.

    At most iterations + 1 products with the Jacobian an evaluation. Exact at every level for every Gaussian once iterations
    reach the number of values. Source: Rozet et al. 2024 (MMPS), arXiv 2405.13712.

    Args:
        denoiser, operator, values, noise_std: As `measured`.
        iterations: Most iterations of conjugate gradients.
        limit: As of `pigdm`.

    Raises:
        OptionError: as `measured`.
        DenoiserError: a network without gradient.
    """
    return MMPS(denoiser, Measurement(operator, values, noise_std), iterations, limit)


def tmpd(
    denoiser: DenoiserLike, operator: Linear, values: Tensor, noise_std: float, limit: float | None = None
) -> TMPD:
    """As `mmps` with the row sums of A C A^T for the matrix in the brackets: two products an evaluation.

    Exact where A C A^T is diagonal. Source: Boys et al. 2023 (TMPD), arXiv 2310.06721. Arguments and errors as `pigdm`.
    """
    return TMPD(denoiser, Measurement(operator, values, noise_std), limit)


def diffpir(
    denoiser: DenoiserLike, operator: Linear, values: Tensor, noise_std: float,
    rho: Literal["exact", "released"] = "exact", lam: float = 1.0, variance: float = 1.0,
) -> DiffPIR:  # fmt: skip
    """D' = argmin |y - A x_0|^2 / noise_std^2 + rho |x_0 - D|^2: no gradient of the network.

    rho is the precision of x_0 given x. "exact": alpha^2 / s^2 + 1 / variance, that of data N(m, variance I), for which
    D' is E[x_0 | x, y]. "released": lam alpha^2 / s^2, which trusts the values too much at high noise. The published run is
    the sampler `cps` with eta = 2 / pi asin(zeta^(1/2)): x+ = alpha D' + s ((1 - zeta)^(1/2) eps + zeta^(1/2) z).
    Source: Zhu et al. 2023 (DiffPIR), arXiv 2305.08995, Algorithm 1.

    Args:
        denoiser, operator, values, noise_std: As `measured`.
        rho, lam, variance: As above.

    Raises:
        OptionError: as `measured`; lam or variance that are not positive.
    """
    return DiffPIR(denoiser, Measurement(operator, values, noise_std), rho, lam, variance)
