"""Gaussian mixtures with full or low rank: their samples, densities, scores and denoisers in closed form.

Mode k of x = alpha x_0 + s eps is N(alpha mu_k, alpha^2 C_k + s^2 I), and everything follows from the eigenvectors of C_k.
The formulas take (alpha, s), so they hold in the sigma frame and in the flow frame alike.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import ProblemError


class GaussianMixture:
    """p(x_0) = sum_k weights_k N(mu_k, C_k) with C_k = U_k diag(eigenvalues_k) U_k^T + floor (I - U_k U_k^T).

    With r < D and floor = 0 each mode lives on an affine subspace: it can be sampled and denoised, but has no
    density until noise is added.

    Args:
        weights: (K,), not negative, sum 1.
        means: (K, D).
        basis: (K, D, r), orthonormal columns, 1 <= r <= D.
        eigenvalues: (K, r), not negative.
        floor: Variance in the directions that the basis does not span; without effect if r = D.
        shape: Shape of one sample, with D elements; (D,) if not given.

    Attributes:
        weights, means, basis, eigenvalues: As above, float64 on the CPU.
        shape: Shape of one sample.

    Raises:
        ProblemError: shapes that do not belong together, or values out of range.
    """

    def __init__(
        self,
        weights: Tensor,
        means: Tensor,
        basis: Tensor,
        eigenvalues: Tensor,
        floor: float = 0.0,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        self.weights, self.means = _constant(weights), _constant(means)
        self.basis, self.eigenvalues = _constant(basis), _constant(eigenvalues)
        self.floor = float(floor)
        self.shape = tuple(self.means.shape[1:]) if shape is None else tuple(shape)
        self._check_parameters()
        self.modes, self.dim, self.rank = self.basis.shape

    def __repr__(self) -> str:
        return f"GaussianMixture({self.modes} modes, shape={self.shape}, rank={self.rank}, floor={self.floor:g})"

    @property
    def mean(self) -> Tensor:
        """Exact mean of the mixture, (D,) float64."""
        return self.weights @ self.means

    @property
    def covariance(self) -> Tensor:
        """Exact covariance of the mixture, within and between modes, (D, D) float64."""
        U, offset = self.basis, self.means - self.mean
        within = torch.einsum("k,kdr,kr,ker->de", self.weights, U, self.eigenvalues - self.floor, U)
        between = torch.einsum("k,kd,ke->de", self.weights, offset, offset)
        return within + self.floor * torch.eye(self.dim, dtype=torch.float64) + between

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """n draws, (n, *shape) float64 on the CPU, reproducible from the seed.

        Raises:
            ProblemError: n < 1.
        """
        if n < 1:
            raise ProblemError(f"sample needs n >= 1, got {n}")
        generator = torch.Generator().manual_seed(seed)
        mode = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        z = torch.randn(n, self.dim, dtype=torch.float64, generator=generator)
        x = self.means[mode]
        for k in range(self.modes):  # one mode at a time: gathering the bases would take n D r numbers
            U, std, rows = self.basis[k], self.eigenvalues[k].sqrt(), mode == k
            along = z[rows] @ U
            x[rows] += (along * std) @ U.T
            if self.rank < self.dim and self.floor > 0:
                x[rows] += math.sqrt(self.floor) * (z[rows] - along @ U.T)
        return x.reshape(n, *self.shape)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, (B,), of x (B, *shape).

        Raises:
            ProblemError: x has the wrong shape, or the modes are degenerate and there is no density.
        """
        return self.noised_log_prob(x, 1.0, 0.0)

    def responsibilities(self, x: Tensor) -> Tensor:
        """P(mode k | x), (B, K), of x (B, *shape); ProblemError as of `log_prob`."""
        y, q = self._project(self._flat(x, 1.0, 0.0), 1.0)
        return self._log_joint(y, q, 1.0, 0.0).softmax(dim=1).to(x.dtype)

    def noised_log_prob(self, x: Tensor, alpha: float, s: float) -> Tensor:
        """log density in nats, (B,), of alpha x_0 + s eps at x (B, *shape)."""
        y, q = self._project(self._flat(x, alpha, s), alpha)
        return self._log_joint(y, q, alpha, s).logsumexp(dim=1).to(x.dtype)

    def noised_score(self, x: Tensor, alpha: float, s: float) -> Tensor:
        """(alpha D - x) / s^2, (B, *shape), the gradient of `noised_log_prob`; no cancellation at small s."""
        y, q = self._project(self._flat(x, alpha, s), alpha)
        responsibility = self._log_joint(y, q, alpha, s).softmax(dim=1)
        v, w = self._variances(alpha, s)
        return -self._lift(responsibility, y, q, 1 / v, 1 / w if self.rank < self.dim else 0.0).reshape(x.shape).to(x.dtype)

    def denoised(self, x: Tensor, alpha: float | Tensor, s: float | Tensor) -> Tensor:
        """E[x_0 | alpha x_0 + s eps = x], (B, *shape); x / alpha at s = 0 and the mean at alpha = 0.

        alpha and s are numbers, or float64 tensors (B,) on the CPU, one a row.
        """
        if isinstance(s, Tensor) and isinstance(alpha, Tensor):
            return self._denoised_rows(x, alpha, s)
        assert not isinstance(alpha, Tensor) and not isinstance(s, Tensor)
        flat = self._flat(x, alpha, s)
        return x / alpha if s == 0 else self._posterior_mean(flat, alpha, s).reshape(x.shape).to(x.dtype)

    def _denoised_rows(self, x: Tensor, alpha: Tensor, s: Tensor) -> Tensor:
        noisy = (s > 0).nonzero().flatten()
        self._flat(x, float(alpha.min()), float(s.max()))
        out = x.clone()  # at s = 0 alpha is 1 in either frame
        if len(noisy):
            at = noisy.to(x.device)
            part = self._flat(x[at], float(alpha.min()), float(s.max()))
            mean = self._posterior_mean(part, alpha[noisy, None, None], s[noisy, None, None])
            out[at] = mean.reshape(len(noisy), *x.shape[1:]).to(x.dtype)
        return out

    def _posterior_mean(self, flat: Tensor, alpha: float | Tensor, s: float | Tensor) -> Tensor:
        """D (B, dim); alpha and s numbers, or (B, 1, 1)."""
        y, q = self._project(flat, alpha)
        responsibility = self._log_joint(y, q, alpha, s).softmax(dim=1)
        v, w = self._variances(alpha, s)
        # D_k = mu_k + alpha C_k (alpha^2 C_k + s^2 I)^(-1) (x - alpha mu_k)
        D = responsibility @ _like(self.means, flat)
        return D + self._lift(responsibility, y, q, alpha * self.eigenvalues / v, alpha * self.floor / w)

    def transport(self, x: Tensor, alpha: float, s: float, alpha_to: float, s_to: float) -> Tensor:
        """Exact solution (B, *shape) of dx/ds = (x - D) / s from (alpha, s) to (alpha_to, s_to), up or down.

        x_to = alpha_to mu + sum_i (v_i' / v_i)^(1/2) u_i u_i^T (x - alpha mu) with v_i = alpha^2 l_i + s^2:
        along every eigenvector the flow keeps the number of standard deviations.

        Raises:
            ProblemError: more than one mode (no closed form), or the start has a direction without variance.
        """
        if self.modes > 1:
            raise ProblemError(
                f"the probability flow of a mixture of {self.modes} modes has no closed form: use a single "
                "Gaussian, or integrate with small steps"
            )
        y, q = self._project(self._flat(x, alpha, s), alpha)
        (v, w), (v_to, w_to) = self._variances(alpha, s), self._variances(alpha_to, s_to)
        self._check_density(v, w)
        assert not isinstance(w, Tensor) and not isinstance(w_to, Tensor)
        one = torch.ones_like(y[:, :, 0])
        out = self._lift(one, y, q, (v_to / v).sqrt(), math.sqrt(w_to / w) if self.rank < self.dim else 0.0)
        return (alpha_to * _like(self.means, out) + out).reshape(x.shape).to(x.dtype)

    def _variances(self, alpha: float | Tensor, s: float | Tensor) -> tuple[Tensor, float | Tensor]:
        """Variances of the noised modes along the basis, (K, r) or (B, K, r) float64, and off it, a number or (B, 1, 1)."""
        return alpha**2 * self.eigenvalues + s**2, alpha**2 * self.floor + s**2

    def _project(self, x: Tensor, alpha: float | Tensor) -> tuple[Tensor, Tensor | None]:
        """x - alpha mu_k along the basis, (B, K, r), and off it, (B, K, D); None if the basis spans all."""
        U = _like(self.basis, x)
        residual = x[:, None] - _like(alpha * self.means, x)
        y = torch.einsum("bkd,kdr->bkr", residual, U)
        # the remainder itself and not |residual|^2 - |y|^2, whose rounding error would be divided by s^2
        return y, None if self.rank == self.dim else residual - torch.einsum("bkr,kdr->bkd", y, U)

    def _lift(self, weight: Tensor, y: Tensor, q: Tensor | None, along: Tensor, off: float | Tensor) -> Tensor:
        """sum_k weight_k (U_k diag(along_k) y_k + off q_k), (B, D)."""
        out = torch.einsum("bkr,kdr->bd", weight[:, :, None] * _like(along, y) * y, _like(self.basis, y))
        if q is None or (not isinstance(off, Tensor) and off == 0):
            return out
        rest = torch.einsum("bk,bkd->bd", weight, q)
        return out + (_like(off, rest)[:, :, 0] if isinstance(off, Tensor) else off) * rest

    def _log_joint(self, y: Tensor, q: Tensor | None, alpha: float | Tensor, s: float | Tensor) -> Tensor:
        """log weights_k + log N(x; alpha mu_k, alpha^2 C_k + s^2 I), (B, K)."""
        v, w = self._variances(alpha, s)
        self._check_density(v, w)
        log_det = v.log().sum(dim=-1)
        square = (y / _like(v.sqrt(), y)).square().sum(dim=2)
        if q is not None:
            off = w[:, :, 0] if isinstance(w, Tensor) else torch.tensor(w, dtype=torch.float64)
            log_det = log_det + (self.dim - self.rank) * off.log()
            square = square + (q / _like(off.sqrt(), q).reshape(-1, 1, 1)).square().sum(dim=2)
        constant = self.weights.log() - 0.5 * (log_det + self.dim * math.log(2 * math.pi))
        return _like(constant, y) - 0.5 * square

    def _flat(self, x: Tensor, alpha: float, s: float) -> Tensor:
        """x as (B, D), at least float32; refuses what does not fit."""
        if not (s >= 0 and alpha >= 0 and alpha + s > 0 and math.isfinite(s)):
            raise ProblemError(
                f"no marginal for s = {s:g}, alpha = {alpha:g}: s must be finite, at least 0, at most 1 in the flow frame"
            )
        if tuple(x.shape[1:]) != self.shape or x.ndim == 0 or not x.is_floating_point():
            raise ProblemError(
                f"this target needs floating-point x of shape (B, {', '.join(map(str, self.shape))}), "
                f"got {x.dtype} of shape {tuple(x.shape)}: add the batch dimension, reshape or cast"
            )
        return x.reshape(len(x), self.dim).to(torch.promote_types(x.dtype, torch.float32))

    def _check_density(self, v: Tensor, w: float | Tensor) -> None:
        if bool((v <= 0).any()) or (self.rank < self.dim and bool(torch.as_tensor(w <= 0).any())):
            raise ProblemError(
                f"at s = 0 this target of rank {self.rank} in {self.dim} dimensions has directions without "
                "variance, so no density, score or inverse flow: ask at s > 0, or give it a floor > 0 and "
                "positive eigenvalues"
            )

    def _check_parameters(self) -> None:
        w, m, U, e = self.weights, self.means, self.basis, self.eigenvalues
        K, D, r = (*U.shape, 0, 0, 0)[:3]
        fits = w.shape == (K,) and m.shape == (K, D) and e.shape == (K, r)
        if U.ndim != 3 or not fits or not 1 <= r <= D or K < 1:
            raise ProblemError(
                "a mixture needs weights (K,), means (K, D), basis (K, D, r) and eigenvalues (K, r) with "
                f"1 <= r <= D, got {tuple(w.shape)}, {tuple(m.shape)}, {tuple(U.shape)}, {tuple(e.shape)}"
            )
        if math.prod(self.shape) != D:
            raise ProblemError(f"a shape of {D} elements is needed, as in the means; got {self.shape}")
        if not (bool((w >= 0).all()) and abs(float(w.sum()) - 1) < 1e-6):
            raise ProblemError(f"weights must be >= 0 and sum to 1, got {w.tolist()}: divide them by their sum")
        finite = bool(e.isfinite().all() and m.isfinite().all()) and math.isfinite(self.floor)
        if not (finite and bool((e >= 0).all()) and self.floor >= 0):
            raise ProblemError(
                "means must be finite, variances finite and at least 0; the smallest eigenvalue is "
                f"{float(e.min()):g}, the floor {self.floor:g}"
            )
        error = float((U.transpose(1, 2) @ U - torch.eye(r, dtype=torch.float64)).abs().max())
        if not error < 1e-6:
            raise ProblemError(f"the basis must be orthonormal, U^T U is off by {error:.2g}: use torch.linalg.qr")


def _constant(v: Tensor) -> Tensor:
    return v.detach().to("cpu", torch.float64)


def _like(v: Tensor, x: Tensor) -> Tensor:
    """A constant in x's dtype on x's device; cast first, so that no device sees float64 beside a float32 x."""
    return v.to(x.dtype).to(x.device)
