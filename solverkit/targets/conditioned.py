"""The posterior of a Gaussian mixture given a linear measurement: a Gaussian mixture again, in closed form."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import ProblemError
from .exact import ExactDenoiser
from .gaussian_mixture import GaussianMixture

if TYPE_CHECKING:
    from ..measurement.linear import Linear


def conditioned(target: GaussianMixture, A: Tensor, y: Tensor, noise_std: float) -> GaussianMixture:
    """p(x_0 | A x_0 + noise_std z = y).

    Mode k: K = C_k A^T (A C_k A^T + noise_std^2 I)^(-1), mean mu_k + K (y - A mu_k), covariance C_k - K A C_k, and a weight
    that is multiplied by the density of y in it.

    Args:
        target: The prior.
        A: (m, D) float64.
        y: (m,) float64.
        noise_std: At least 0.

    Raises:
        ProblemError: shapes that do not fit, a negative noise_std, or values that no mode can have made.
    """
    if A.ndim != 2 or A.shape[1] != target.dim or y.shape != (len(A),) or not noise_std >= 0:
        raise ProblemError(
            f"a measurement of a target of dimension {target.dim} needs a matrix (m, {target.dim}), values (m,) and "
            f"noise_std >= 0; got {tuple(A.shape)}, {tuple(y.shape)} and {noise_std!r}."
        )
    A, y = A.double(), y.double()
    means, bases, eigenvalues, log_weights = [], [], [], []
    for weight, mu, U, e in zip(target.weights, target.means, target.basis, target.eigenvalues):
        C = (U * (e - target.floor)) @ U.T + target.floor * torch.eye(target.dim, dtype=torch.float64)
        S = A @ C @ A.T + noise_std**2 * torch.eye(len(y), dtype=torch.float64)
        L, failed = torch.linalg.cholesky_ex(S)
        if bool(failed) or float(L.diagonal().min()) < 1e-7 * float(L.diagonal().max()):
            raise ProblemError("the values have no density: noise_std = 0, and rows that depend on each other; say > 0.")
        half = torch.linalg.solve_triangular(L, A @ C, upper=False)
        missed = torch.linalg.solve_triangular(L, (y - A @ mu)[:, None], upper=False)[:, 0]
        means.append(mu + half.T @ missed)
        values, vectors = torch.linalg.eigh(C - half.T @ half)
        bases.append(vectors)
        eigenvalues.append(values.clamp_min(0.0))
        log_weights.append(
            weight.log() - 0.5 * missed.square().sum() - L.diagonal().log().sum() - len(y) / 2 * math.log(2 * math.pi)
        )
    weights = torch.stack(log_weights).softmax(0)
    return GaussianMixture(
        weights, torch.stack(means), torch.stack(bases), torch.stack(eigenvalues), shape=target.shape
    )


def posterior(denoiser: ExactDenoiser, operator: Linear, values: Tensor, noise_std: float) -> ExactDenoiser:
    """The exact denoiser of p(x_0 | y), y = A x_0 + noise_std z: what every posterior sampler approximates.

    Args:
        denoiser: Of the prior, from `gaussian` or `mixture`.
        operator: A, of `solverkit.inverse`.
        values: y of one sample, (1, *measured) or measured.
        noise_std: Standard deviation of each value's noise.

    Raises:
        ProblemError: as `conditioned`.
    """
    y = values.detach().cpu().double()
    if y.numel() != math.prod(operator.measured):
        raise ProblemError(f"values of one sample have shape {operator.measured}, got {tuple(values.shape)}.")
    return ExactDenoiser(conditioned(denoiser.target, operator.matrix, y.flatten(), noise_std), denoiser.schedule)
