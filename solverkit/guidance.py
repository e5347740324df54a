"""Denoisers around denoisers: classifier-free and classifier guidance, clipping, dynamic thresholding.

Each returns a denoiser with the schedule, shape and device of the one inside, so they nest and go wherever a denoiser goes:

    d = sk.guidance.classifier_free(net.with_inputs(class_labels=3), net.with_inputs(class_labels=10), scale=2.0)
    d = sk.guidance.dynamic_threshold(d)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from .denoiser import Denoiser, DenoiserLike
from .errors import DenoiserError, OptionError, ScheduleError
from .level import Level
from .schedule import Schedule


class Wrapped:
    """Base of the denoisers in this module: what they take over from the one inside."""

    def __init__(self, denoiser: DenoiserLike) -> None:
        if not isinstance(getattr(denoiser, "schedule", None), Schedule) or not callable(denoiser):
            raise DenoiserError(
                f"expected a denoiser (from sk.wrap or sk.load) with a .schedule, got {type(denoiser).__name__}; "
                "wrap a bare network first: sk.wrap(net, prediction, schedule)."
            )
        self.denoiser = denoiser
        self.schedule = denoiser.schedule
        self.shape: tuple[int, ...] | None = getattr(denoiser, "shape", None)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return torch.device(getattr(self.denoiser, "device", "cpu"))

    def __call__(self, x: torch.Tensor, level: float) -> torch.Tensor:
        raise NotImplementedError


class ClassifierFree(Wrapped):
    """D_u + scale (D_c - D_u); see `classifier_free`."""

    def __init__(
        self, conditional: DenoiserLike, unconditional: DenoiserLike, scale: float, batched: bool, rescale: float
    ) -> None:
        super().__init__(conditional)
        other = Wrapped(unconditional)
        if other.schedule != self.schedule:
            raise ScheduleError(
                f"guidance mixes two predictions of one process, but the schedules differ: {self.schedule} and "
                f"{other.schedule}. Wrap both networks with the same schedule."
            )
        if self.shape is not None and other.shape is not None and self.shape != other.shape:
            raise DenoiserError(f"the two denoisers make samples of different shapes: {self.shape} and {other.shape}.")
        self.scale, self.rescale, self.batched = _number("scale", scale), _number("rescale", rescale), batched
        if not 0 <= self.rescale <= 1:
            raise OptionError(f"rescale must be in [0, 1] (0 leaves guidance as it is), got {rescale!r}.")
        self.conditional, self.unconditional = conditional, unconditional
        if batched:
            _require_stackable(conditional, unconditional)

    def __call__(self, x: torch.Tensor, level: float) -> torch.Tensor:
        conditional, unconditional = self._batch(x, level) if self.batched else self._two_passes(x, level)
        guided = unconditional + self.scale * (conditional - unconditional)
        if self.rescale == 0 or guided[0].numel() < 2:
            return guided
        factor = _std(conditional) / _std(guided).clamp_min(torch.finfo(guided.dtype).tiny)
        return guided * (1 + self.rescale * (factor - 1))  # Lin et al. 2024, eq. 15-16

    def _two_passes(self, x: torch.Tensor, level: float) -> tuple[torch.Tensor, torch.Tensor]:
        return self.conditional(x, level), self.unconditional(x, level)

    def _batch(self, x: torch.Tensor, level: float) -> tuple[torch.Tensor, torch.Tensor]:
        assert isinstance(self.conditional, Denoiser) and isinstance(self.unconditional, Denoiser)
        both = self.conditional.with_inputs(
            **{name: _stack(name, c, self.unconditional.inputs[name], x) for name, c in self.conditional.inputs.items()}
        )
        out = both(torch.cat([x, x]), level)
        self.conditional.calls += 1
        conditional, unconditional = out.chunk(2)
        return conditional, unconditional


def classifier_free(
    conditional: DenoiserLike, unconditional: DenoiserLike, scale: float, batched: bool = False, rescale: float = 0.0
) -> ClassifierFree:
    """Classifier-free guidance D = D_u + scale (D_c - D_u) (Ho and Salimans 2022, eq. 6 with scale = 1 + w).

    Two passes through the network, counted as two evaluations a sample, batched or not.

    Args:
        conditional, unconditional: Denoisers of one schedule, e.g. `d.with_inputs(class_labels=...)` twice.
        scale: 1 is the conditional denoiser, 0 the unconditional one.
        batched: One pass over 2B samples; both must wrap the same network with the same names of inputs.
        rescale: phi of Lin et al. 2024, eq. 15-16, applied to the denoised prediction of each sample: 0 leaves it as it is,
            1 gives it the standard deviation of the conditional one. They suggest 0.7.

    Raises:
        ScheduleError: two schedules that differ.
        DenoiserError: shapes that differ, something that is no denoiser, or inputs that do not stack.
        OptionError: rescale outside [0, 1], or a scale that is no number.
    """
    return ClassifierFree(conditional, unconditional, scale, batched, rescale)


class Classifier(Wrapped):
    """D + scale s^2 / alpha grad log p(y | x); see `classifier`."""

    def __init__(
        self, denoiser: DenoiserLike, log_prob: Callable[[torch.Tensor, Level], torch.Tensor], scale: float
    ) -> None:
        super().__init__(denoiser)
        if not callable(log_prob):
            raise OptionError(f"log_prob must be a function (x, level) -> (B,), got {type(log_prob).__name__}.")
        self.log_prob, self.scale = log_prob, _number("scale", scale)

    def __call__(self, x: torch.Tensor, level: float) -> torch.Tensor:
        level = self.schedule.at(level)
        if level.alpha == 0:
            raise DenoiserError(
                "classifier guidance is infinite where alpha = 0 (pure noise): D + s^2 / alpha grad log p. Start the grid "
                "below it (levels=, or ratio_max= of the grid)."
            )
        denoised = self.denoiser(x, level)
        if level == 0 or self.scale == 0:
            return denoised
        return denoised + self.scale * float(level) ** 2 / level.alpha * self._gradient(x, level)

    def _gradient(self, x: torch.Tensor, level: Level) -> torch.Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            y = x.detach().clone().requires_grad_()
            log_p = self.log_prob(y, level)
            if not isinstance(log_p, torch.Tensor) or log_p.shape != (len(x),):
                given = tuple(log_p.shape) if isinstance(log_p, torch.Tensor) else type(log_p).__name__
                raise DenoiserError(f"log_prob must return one number a sample, shape ({len(x)},), got {given}.")
            gradient = torch.autograd.grad(log_p.sum(), y, allow_unused=True)[0] if log_p.requires_grad else None
        if gradient is None:
            raise DenoiserError(
                "log_prob has no gradient with respect to x: compute it from x with differentiable torch functions, "
                "without torch.no_grad, .detach(), .item(), argmax or numpy."
            )
        return gradient.to(x.dtype)


def classifier(
    denoiser: DenoiserLike, log_prob: Callable[[torch.Tensor, Level], torch.Tensor], scale: float = 1.0
) -> Classifier:
    """Classifier guidance D' = D + scale s^2 / alpha grad_x log p(y | x) (Dhariwal and Nichol 2021, eq. 10, 14).

    Adding scale grad log p to the score (alpha D - x) / s^2 is that. Any differentiable log-likelihood will do (diffusion
    posterior sampling, a loss with its sign turned).

    Args:
        denoiser: The unconditional denoiser.
        log_prob: log_prob(x, level) -> (B,), differentiable in x (B, ...), which is in the frame of the run: a classifier
            that was trained on the model's own noised x wants x * level.scale, and level.time.
        scale: Multiplies the gradient.

    Raises:
        DenoiserError: no gradient with respect to x, a result that is not (B,), or alpha = 0.
        OptionError: log_prob cannot be called, or a scale that is no number.
    """
    return Classifier(denoiser, log_prob, scale)


class Clip(Wrapped):
    """D restricted to [low, high]; see `clip`."""

    def __init__(self, denoiser: DenoiserLike, low: float, high: float) -> None:
        super().__init__(denoiser)
        self.low, self.high = _number("low", low), _number("high", high)
        if not self.low < self.high:
            raise OptionError(f"clip needs low < high, got {low!r} and {high!r}.")

    def __call__(self, x: torch.Tensor, level: float) -> torch.Tensor:
        return self.denoiser(x, level).clamp(self.low, self.high)


def clip(denoiser: DenoiserLike, low: float = -1.0, high: float = 1.0) -> Clip:
    """Clip the denoised prediction to the range of the data (Ho et al. 2020, released code).

    Raises:
        OptionError: low is not below high.
    """
    return Clip(denoiser, low, high)


class DynamicThreshold(Wrapped):
    """D clipped at its own quantile; see `dynamic_threshold`."""

    def __init__(self, denoiser: DenoiserLike, quantile: float, maximum: float) -> None:
        super().__init__(denoiser)
        self.quantile, self.maximum = _number("quantile", quantile), _number("maximum", maximum)
        if not 0 < self.quantile <= 1:
            raise OptionError(f"quantile must be in (0, 1], got {quantile!r}.")
        if not self.maximum > 0:
            raise OptionError(f"maximum must be positive, got {maximum!r}.")

    def __call__(self, x: torch.Tensor, level: float) -> torch.Tensor:
        denoised = self.denoiser(x, level)
        size = denoised.flatten(1).abs().to(torch.promote_types(denoised.dtype, torch.float32))
        threshold = torch.quantile(size, self.quantile, dim=1).clamp_min(self.maximum).to(denoised.dtype)
        threshold = threshold.view(-1, *[1] * (denoised.ndim - 1))
        return denoised.clamp(-threshold, threshold) * (self.maximum / threshold)


def dynamic_threshold(denoiser: DenoiserLike, quantile: float = 0.995, maximum: float = 1.0) -> DynamicThreshold:
    """Dynamic thresholding (Saharia et al. 2022, section 2.3): s = max(quantile of |D|, maximum); D clipped to [-s, s] and
    scaled by maximum / s. Per sample.

    Args:
        denoiser: Of data in [-maximum, maximum].
        quantile: Of |D| over one sample.
        maximum: The largest |x_0| of the data.

    Raises:
        OptionError: quantile outside (0, 1] or maximum not positive.
    """
    return DynamicThreshold(denoiser, quantile, maximum)


class Posterior(Wrapped):
    """D plus the gradient of a measurement's log-likelihood; see `posterior`."""

    def __init__(
        self, denoiser: DenoiserLike, measure: Callable[[torch.Tensor], torch.Tensor], values: torch.Tensor,
        scale: float, noise_std: float,
    ) -> None:  # fmt: skip
        super().__init__(denoiser)
        if not callable(measure):
            raise OptionError(f"measure must be a function of x_0 (B, ...), got {type(measure).__name__}.")
        self.measure, self.values = measure, values
        self.scale, self.noise_std = _number("scale", scale), _number("noise_std", noise_std)

    def __call__(self, x: torch.Tensor, level: float) -> torch.Tensor:
        level = level if isinstance(level, Level) else self.schedule.at(level)
        if level.alpha == 0:  # x says nothing about x_0, so neither does the measurement
            return self.denoiser(x, level)
        with torch.enable_grad():
            inside = x.detach().requires_grad_(True)
            denoised = self.denoiser(inside, level)
            measured = self.measure(denoised)
            if measured.shape[1:] != self.values.shape[1:] or len(self.values) not in (1, len(measured)):
                raise OptionError(
                    f"the measurement of x_0 has shape {tuple(measured.shape)}, values has {tuple(self.values.shape)}."
                )
            miss = (measured - self.values.to(measured)).flatten(1).square().sum()
            if not miss.requires_grad:
                raise DenoiserError(
                    "the measurement of the denoised prediction has no gradient with respect to x: the network or the "
                    "measurement is not differentiable. For a linear orthogonal measurement use solverkit.constraints."
                )
            gradient, pull = torch.autograd.grad(miss, (inside, denoised))
        s2, a2 = float(level) ** 2, level.alpha**2
        variance = self.noise_std**2 + s2 / (a2 + s2)  # of values given x, for data of unit variance
        # score + grad log p(values | x), with score = (alpha D - x) / s^2 and log p = -miss / (2 variance). The gradient is
        # the posterior covariance times the pull on D; a network's errors at high noise may make more of it than it can be.
        moved = (s2 / level.alpha) * gradient
        longest = torch.linalg.vector_norm(pull.flatten(1), dim=1)
        length = torch.linalg.vector_norm(moved.flatten(1), dim=1).clamp_min(torch.finfo(moved.dtype).tiny)
        moved = moved * (longest / length).clamp_max(1.0).reshape(-1, *[1] * (x.ndim - 1))
        return denoised.detach() - (self.scale / (2 * variance)) * moved


def posterior(
    denoiser: DenoiserLike,
    measure: Callable[[torch.Tensor], torch.Tensor],
    values: torch.Tensor,
    scale: float = 1.0,
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
        scale: 1 is the formula; more follows the measurement more strictly.
        noise_std: Standard deviation of the measurement's own noise.

    Raises:
        DenoiserError: a network or a measurement without gradient.
        OptionError: values of another shape.
    """
    return Posterior(denoiser, measure, values, scale, noise_std)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise OptionError(f"{name} must be a finite number, got {value!r}.")
    return float(value)


def _std(x: torch.Tensor) -> torch.Tensor:
    """Standard deviation of each sample, (B, 1, ...)."""
    return x.flatten(1).std(dim=1).view(-1, *[1] * (x.ndim - 1))


def _require_stackable(conditional: DenoiserLike, unconditional: DenoiserLike) -> None:
    advice = "Leave batched=False: two passes cost the same evaluations."
    if not isinstance(conditional, Denoiser) or not isinstance(unconditional, Denoiser):
        raise DenoiserError(f"batched=True needs two denoisers from sk.wrap or sk.load. {advice}")
    if conditional.net is not unconditional.net or conditional.prediction != unconditional.prediction:
        raise DenoiserError(f"batched=True needs one network behind both denoisers (use with_inputs). {advice}")
    if conditional.inputs.keys() != unconditional.inputs.keys():
        raise DenoiserError(
            "batched=True needs inputs of the same names on both sides, got "
            f"{sorted(conditional.inputs)} and {sorted(unconditional.inputs)}. {advice}"
        )


def _stack(name: str, conditional: Any, unconditional: Any, x: torch.Tensor) -> Any:
    """One input for the doubled batch: rows of both, or the value that both share."""
    tensors = isinstance(conditional, torch.Tensor) or isinstance(unconditional, torch.Tensor)
    shared = conditional is unconditional or (not tensors and conditional == unconditional)
    if shared and not (tensors and conditional.ndim > 0 and len(conditional) == len(x)):
        return conditional
    rows = [_rows(value, x) for value in (conditional, unconditional)]
    if rows[0] is not None and rows[1] is not None and rows[0].shape == rows[1].shape:
        return torch.cat([rows[0], rows[1].to(rows[0])])
    raise DenoiserError(
        f"batched=True cannot stack the input {name!r} for {len(x)} samples: expected ints, or tensors of equal shape with "
        f"{len(x)} rows (or one row). Leave batched=False: two passes cost the same evaluations."
    )


def _rows(value: Any, x: torch.Tensor) -> torch.Tensor | None:
    """An input with one row a sample, where it is one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return torch.full((len(x),), value, dtype=torch.long, device=x.device)
    if not isinstance(value, torch.Tensor) or (value.ndim == 0 and value.is_floating_point()):
        return None
    if value.ndim == 0 or len(value) == 1:
        return value.expand(len(x), *value.shape[1:]).to(x.device)
    return value if len(value) == len(x) else None
