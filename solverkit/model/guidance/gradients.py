"""Guidance by a gradient: of a classifier, or of a measurement of the denoised prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ...errors import DenoiserError, OptionError
from ...process.level import Level
from ..counting import record_product
from ..denoiser import DenoiserLike
from ..inputs import cut, outside_inference, row_index
from .scale import Scale, brief, checked_scale, scale_at
from .wrapped import Wrapped, number, rows_of


class Classifier(Wrapped):
    """D + scale s^2 / alpha grad log p(y | x); see `classifier`."""

    def __init__(
        self, denoiser: DenoiserLike, log_prob: Callable[[torch.Tensor, Level], torch.Tensor], scale: Scale
    ) -> None:
        super().__init__(denoiser)
        if not callable(log_prob):
            raise OptionError(f"log_prob must be a function (x, level) -> (B,), got {type(log_prob).__name__}.")
        self.log_prob, self.scale = log_prob, checked_scale("scale", scale)

    def __call__(self, x: torch.Tensor, level: Any) -> torch.Tensor:
        level = self.schedule.at(level)
        if level.alpha == 0:
            raise DenoiserError(
                "classifier guidance is infinite where alpha = 0 (pure noise): D + s^2 / alpha grad log p. Start the grid "
                "below it (levels=, or ratio_max= of the grid)."
            )
        denoised = self.denoiser(x, level)
        scale = scale_at("scale", self.scale, level, x, self.schedule)
        if level == 0 or (isinstance(scale, float) and scale == 0):
            return denoised
        return denoised + scale * (float(level) ** 2 / level.alpha) * self._gradient(x, level)

    def rows(self, start: int | Sequence[int], stop: int | None = None, total: int | None = None) -> Classifier:
        """The guidance of some samples of a batch. A log_prob that has targets of its own for each sample (an object with
        `rows(start, stop, total)`) is cut too; a bare function is taken as it is."""
        scale = cut(self.scale, *row_index(start, stop, total))
        return Classifier(rows_of(self.denoiser, start, stop, total), rows_of(self.log_prob, start, stop, total), scale)

    def __repr__(self) -> str:
        name = getattr(self.log_prob, "__name__", type(self.log_prob).__name__)
        return f"Classifier({self.denoiser!r}, {name}, scale={brief(self.scale)})"

    def _gradient(self, x: torch.Tensor, level: Level) -> torch.Tensor:
        through = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        with torch.inference_mode(False), torch.enable_grad():
            y = x if through and x.requires_grad else x.detach().clone().requires_grad_()
            log_p = self.log_prob(y, level)
            if not isinstance(log_p, torch.Tensor) or log_p.shape != (len(x),):
                given = tuple(log_p.shape) if isinstance(log_p, torch.Tensor) else type(log_p).__name__
                raise DenoiserError(f"log_prob must return one number a sample, shape ({len(x)},), got {given}.")
            gradient = None
            if log_p.requires_grad:
                gradient = torch.autograd.grad(log_p.sum(), y, allow_unused=True, create_graph=through)[0]
                record_product()
        if gradient is None:
            raise DenoiserError(
                "log_prob has no gradient with respect to x: compute it from x with differentiable torch functions, "
                "without torch.no_grad, .detach(), .item(), argmax or numpy."
            )
        return gradient.to(x.dtype)


def classifier(
    denoiser: DenoiserLike, log_prob: Callable[[torch.Tensor, Level], torch.Tensor], scale: Scale = 1.0
) -> Classifier:
    """Classifier guidance D' = D + scale s^2 / alpha grad_x log p(y | x) (Dhariwal and Nichol 2021, eq. 10, 14).

    Adding scale grad log p to the score (alpha D - x) / s^2 is that. Any differentiable log-likelihood will do (diffusion
    posterior sampling, a loss with its sign turned).

    Args:
        denoiser: The unconditional denoiser.
        log_prob: log_prob(x, level) -> (B,), differentiable in x (B, ...), which is in the frame of the run: a classifier
            that was trained on the model's own noised x wants x * level.scale, and level.time.
        scale: Multiplies the gradient: a number, a tensor (B,) with one a sample, or a function of the `Level`.

    Raises:
        DenoiserError: no gradient with respect to x, a result that is not (B,), or alpha = 0.
        OptionError: log_prob cannot be called, or a scale that is no number.
    """
    return Classifier(denoiser, log_prob, scale)


class Posterior(Wrapped):
    """D plus the gradient of a measurement's log-likelihood; see `posterior`."""

    def __init__(
        self, denoiser: DenoiserLike, measure: Callable[[torch.Tensor], torch.Tensor], values: torch.Tensor,
        scale: Scale, noise_std: float,
    ) -> None:  # fmt: skip
        super().__init__(denoiser)
        if not callable(measure):
            raise OptionError(f"measure must be a function of x_0 (B, ...), got {type(measure).__name__}.")
        self.measure, self.values = measure, values
        self.scale, self.noise_std = checked_scale("scale", scale), number("noise_std", noise_std)

    def __call__(self, x: torch.Tensor, level: Any) -> torch.Tensor:
        level = self.schedule.at(level)
        if level.alpha == 0:  # x says nothing about x_0, so neither does the measurement
            return self.denoiser(x, level)
        scale = scale_at("scale", self.scale, level, x, self.schedule)
        through = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        with torch.inference_mode(False), torch.enable_grad():
            inside = x if through and x.requires_grad else x.detach().clone().requires_grad_()
            denoised = self.denoiser(inside, level)
            gradient, pull = self._pulled(inside, denoised, through)
        s2, a2 = float(level) ** 2, level.alpha**2
        variance = self.noise_std**2 + s2 / (a2 + s2)  # of values given x, for data of unit variance
        # score + grad log p(values | x), with score = (alpha D - x) / s^2 and log p = -miss / (2 variance). The gradient is
        # the posterior covariance times the pull on D; a network's errors at high noise may make more of it than it can be.
        moved = (s2 / level.alpha) * gradient
        longest = torch.linalg.vector_norm(pull.flatten(1), dim=1)
        length = torch.linalg.vector_norm(moved.flatten(1), dim=1).clamp_min(torch.finfo(moved.dtype).tiny)
        moved = moved * (longest / length).clamp_max(1.0).reshape(-1, *[1] * (x.ndim - 1))
        return (denoised if through else denoised.detach()) - (scale / (2 * variance)) * moved

    def _pulled(self, x: torch.Tensor, denoised: torch.Tensor, through: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of |measure(D) - values|^2 with respect to x and to D."""
        measured = self.measure(denoised)
        if measured.shape[1:] != self.values.shape[1:] or len(self.values) not in (1, len(measured)):
            raise OptionError(
                f"the measurement of x_0 has shape {tuple(measured.shape)}, values has {tuple(self.values.shape)}."
            )
        values = outside_inference(self.values.to(measured.dtype).to(measured.device))
        miss = (measured - values).flatten(1).square().sum()
        if not miss.requires_grad:
            raise DenoiserError(
                "the measurement of the denoised prediction has no gradient with respect to x: the network or the "
                "measurement is not differentiable. For a linear orthogonal measurement use solverkit.constraints."
            )
        gradient, pull = torch.autograd.grad(miss, (x, denoised), create_graph=through)
        record_product()
        return gradient, pull

    def rows(self, start: int | Sequence[int], stop: int | None = None, total: int | None = None) -> Posterior:
        """The guidance of some samples of a batch: of their inputs, with their values and scales. A measurement that has
        something of its own for each sample (an object with `rows(start, stop, total)`) is cut too."""
        index, total = row_index(start, stop, total)
        return Posterior(
            rows_of(self.denoiser, start, stop, total), rows_of(self.measure, start, stop, total),
            cut(self.values, index, total), cut(self.scale, index, total), self.noise_std,
        )  # fmt: skip

    def __repr__(self) -> str:
        name = getattr(self.measure, "__name__", type(self.measure).__name__)
        return f"Posterior({self.denoiser!r}, {name}, scale={brief(self.scale)}, noise_std={self.noise_std:g})"


def posterior(
    denoiser: DenoiserLike,
    measure: Callable[[torch.Tensor], torch.Tensor],
    values: torch.Tensor,
    scale: Scale = 1.0,
    noise_std: float = 0.05,
) -> Posterior:
    """Diffusion posterior sampling: guide towards measure(x_0) = values, linear or not.

    D' = D - scale s^2 / alpha grad_x |measure(D) - values|^2 / (2 v), with v = noise_std^2 + s^2 / (alpha^2 + s^2). One
    backward pass through the network an evaluation. Chung et al. 2023 (DPS), eq. 13-16, with the variance of Song et al.
    2023 (PiGDM), eq. 8, in place of a tuned step. The correction is never longer than the gradient with respect to D: data
    of unit variance cannot have a larger posterior covariance.

    Args:
        denoiser: A denoiser whose network has a gradient.
        measure: measure(x_0) of a batch (B, ...) -> (B, ...), differentiable.
        values: What was measured, (B, ...) or (1, ...).
        scale: 1 is the formula; more follows the measurement more strictly. A number, a tensor (B,) with one a sample, or a
            function of the `Level`.
        noise_std: Standard deviation of the measurement's own noise.

    Raises:
        DenoiserError: a network or a measurement without gradient.
        OptionError: values of another shape.
    """
    return Posterior(denoiser, measure, values, scale, noise_std)
