"""Constraints on a run: what is known of x_0 replaces the state's own, at each level, before the network looks.

    known = sk.constraints.inpaint(image, mask)
    sk.sample(denoiser, "dpmpp-2m", nfe=20, shape=image.shape, constrain=known)

A constraint is called as constrain(x, level, draw) with x = alpha x_0 + s eps (B, ...). With orthonormal rows A and known
values c = A x_0 it sets A x to alpha c + s A z and leaves everything orthogonal to the rows alone. Replacement is cheap and
biased: the unknown part is drawn given a noisy known part, not the known part itself (`repaint` mends some of it by
repeating steps; `guidance.posterior` follows the gradient of the measurement instead).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from ..errors import OptionError
from ..model.inputs import Rows, cut, row_index
from ..process.level import Level
from .chain import chain_noise
from .noise import CONSTRAINT, Noise, SampleNoise, sample_seeds

NoiseKind = Literal["fresh", "fixed", "chain"]
Map = Callable[[torch.Tensor], torch.Tensor]


class Replacement:
    """A x <- alpha c + s A z for an orthogonal measurement A. Build it with `inpaint`, `observe` or `colorize`.

    Attributes:
        measure, lift: A and its transpose, on batches. `lift` may answer in any shape of a sample's size.
        known: c, one row or one a sample.
        noise: "fresh" draws z anew at each level (Song et al. 2021, appendix I.2); "fixed" keeps one z for the whole run,
            so that the known part follows the forward process of one noise, as the probability flow does; "chain" draws
            one trajectory of the forward process, whose noises at two levels t < s are correlated by t / s (the
            unconditional mode of CSDI).
        spread: What the noise z becomes among the measured values; A z if None.
        part: part(index, total) -> the same constraint for some samples of a batch, where more than c has one row a sample.
    """

    def __init__(
        self, measure: Map, lift: Map, known: torch.Tensor, noise: NoiseKind = "fresh", spread: Map | None = None,
        part: Callable[[Rows, int], Replacement] | None = None,
    ) -> None:  # fmt: skip
        if noise not in ("fresh", "fixed", "chain"):
            raise OptionError(f"noise must be 'fresh', 'fixed' or 'chain', got {noise!r}.")
        self.measure, self.lift, self.known, self.noise = measure, lift, known, noise
        self.spread, self.part = measure if spread is None else spread, part

    def __call__(self, x: torch.Tensor, level: Level, draw: Any) -> torch.Tensor:
        """The state (B, ...) with its measured part replaced."""
        if self.noise == "chain":
            z = chain_noise(draw, level)
        else:
            z = draw.fixed() if self.noise == "fixed" else draw(level, level)
        return self._replaced(x, level.alpha, float(level) * self.spread(z))

    def finish(self, x: torch.Tensor) -> torch.Tensor:
        """At noise level 0: the known values themselves."""
        return self._replaced(x, 1.0, 0.0)

    def rows(self, start: int | Sequence[int], stop: int | None = None, total: int | None = None) -> Replacement:
        """The constraint on some samples of a batch of `total`; see `Denoiser.rows`."""
        index, total = row_index(start, stop, total)
        if self.part is not None:
            return self.part(index, total)
        return Replacement(self.measure, self.lift, cut(self.known, index, total), self.noise, self.spread)

    def _replaced(self, x: torch.Tensor, alpha: float, noise: torch.Tensor | float) -> torch.Tensor:
        measured = self.measure(x)
        try:
            change = (alpha * _like(self.known, x) + noise - measured).expand_as(measured)
        except RuntimeError:
            raise OptionError(
                f"the known values have shape {tuple(self.known.shape)}, a measured state has {tuple(measured.shape)}: "
                "they must be one sample's, or one a sample of the batch."
            ) from None
        return x + self.lift(change).reshape(x.shape)

    def __repr__(self) -> str:
        return f"Replacement(known=<{'x'.join(map(str, self.known.shape))}>, noise={self.noise!r})"


def inpaint(known: torch.Tensor, mask: torch.Tensor, noise: NoiseKind = "fresh") -> Replacement:
    """Keep `known` where mask is 1 (images with holes, series with missing values).

    A soft mask m in (0, 1) blends at every level: the state of a noised x_0 becomes that of the noised blend
    (1 - m) x_0 + m c, at the level's own variance,

        x <- (1 - m) x + m alpha c + g s z,   g = (m (2 - m))^(1/2) for fresh noise, m for fixed noise

    (fresh noise is independent of the state's, so that (1 - m)^2 + g^2 = 1; a fixed noise is the one that the state already
    carries). The result is blended once more with the known values themselves. As it is repeated, a soft mask holds the
    values tighter the more levels a run has: it is for a seam of a few pixels. For a measurement that is half trusted take
    `guidance.posterior` with its noise_std.

    Args:
        known: Data, (B, ...) or (1, ...), in the model's own coordinates at noise level 0.
        mask: 0 (unknown) to 1 (known), or bool, a shape that broadcasts to known's.
        noise: See `Replacement`.

    Raises:
        OptionError: a mask of another shape or with other values.
    """
    values = mask if mask.is_floating_point() else mask.float()
    if not bool(((values >= 0) & (values <= 1)).all()):  # false for NaN too
        raise OptionError("a mask holds numbers from 0 (unknown) to 1 (known); divide 8-bit masks by 255.")
    try:
        fits = torch.broadcast_shapes(mask.shape, known.shape) == known.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise OptionError(f"the mask's shape {tuple(mask.shape)} does not broadcast to known's {tuple(known.shape)}.")

    def masked(x: torch.Tensor) -> torch.Tensor:
        return x * _like(values, x)

    def spread(z: torch.Tensor) -> torch.Tensor:
        m = _like(values, z)
        return z * (m if noise == "fixed" else (m * (2 - m)).sqrt())

    def part(index: Rows, total: int) -> Replacement:
        of_samples = mask.ndim == known.ndim
        return inpaint(cut(known, index, total), cut(mask, index, total) if of_samples else mask, noise)

    return Replacement(masked, lambda change: change, masked(known), noise, spread, part)


def observe(matrix: torch.Tensor, values: torch.Tensor, noise: NoiseKind = "fresh") -> Replacement:
    """Keep A x_0 = values for a matrix A with orthonormal rows.

    Args:
        matrix: (m, d), A A^T = I; d is the number of elements of a sample.
        values: (B, m) or (1, m).
        noise: See `Replacement`.

    Raises:
        OptionError: rows that are not orthonormal, or values of another length.
    """
    if matrix.ndim != 2 or values.ndim != 2 or values.shape[1] != matrix.shape[0]:
        raise OptionError(f"need matrix (m, d) and values (B, m), got {tuple(matrix.shape)} and {tuple(values.shape)}.")
    rows = matrix.detach().cpu().double()
    off = float((rows @ rows.T - torch.eye(len(rows), dtype=torch.float64)).abs().max())
    if not off <= 1e-4:
        raise OptionError(
            f"the rows of the measurement are not orthonormal (A A^T differs from I by {off:.2g}): replacement would move "
            "what was not measured. Orthonormalise them (torch.linalg.qr(A.T).Q.T, and the values with them), or use "
            "guidance.posterior, which takes any measurement."
        )

    def measure(x: torch.Tensor) -> torch.Tensor:
        if x[0].numel() != matrix.shape[1]:
            raise OptionError(f"the measurement is of {matrix.shape[1]} elements, and a sample has {x[0].numel()}.")
        return x.flatten(1) @ _like(matrix, x).T

    def lift(c: torch.Tensor) -> torch.Tensor:
        return c @ _like(matrix, c)

    return Replacement(measure, lift, values, noise)


def colorize(grey: torch.Tensor, noise: NoiseKind = "fresh") -> Replacement:
    """Keep the grey part of colour images (B, 3, H, W) and let the colours be drawn (Song et al. 2021, appendix I.3).

    Args:
        grey: (B, 1, H, W), the mean of the three channels in the model's own coordinates.
        noise: See `Replacement`.

    Raises:
        OptionError: another shape.
    """
    if grey.ndim != 4 or grey.shape[1] != 1:
        raise OptionError(f"grey must be (B, 1, H, W), got {tuple(grey.shape)}.")

    def measure(x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] != 3:
            raise OptionError(f"colorize is for three channels, got samples of shape {tuple(x.shape[1:])}.")
        return x.sum(1, keepdim=True) / 3**0.5

    def lift(c: torch.Tensor) -> torch.Tensor:
        return (c / 3**0.5).expand(-1, 3, *c.shape[2:])

    return Replacement(measure, lift, grey * 3**0.5, noise)


def _like(v: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """In x's dtype on x's device; cast first, so that no device sees float64 beside a float32 x."""
    return v.to(x.dtype).to(x.device)


class Together:
    """Several constraints one after the other; see `together`."""

    def __init__(self, constraints: Sequence[Any]) -> None:
        self.constraints = tuple(constraints)

    def __call__(self, x: torch.Tensor, level: Level, draw: Any) -> torch.Tensor:
        for constraint in self.constraints:
            x = constraint(x, level, draw)
        return x

    def finish(self, x: torch.Tensor) -> torch.Tensor:
        """At noise level 0, by those constraints that finish."""
        for constraint in self.constraints:
            x = getattr(constraint, "finish", lambda y: y)(x)
        return x

    def rows(self, start: int | Sequence[int], stop: int | None = None, total: int | None = None) -> Together:
        """The constraints on some samples of a batch; those without `rows` as they are."""
        return Together([c.rows(start, stop, total) if hasattr(c, "rows") else c for c in self.constraints])

    def __repr__(self) -> str:
        return f"Together({', '.join(map(repr, self.constraints))})"


def together(*constraints: Any) -> Together:
    """Several constraints one after the other."""
    return Together(constraints)


def pipeline_callback(constraint: Any, seed: int | Sequence[int] = 0) -> Callable[..., dict[str, Any]]:
    """A constraint as `callback_on_step_end` of a diffusers pipeline with a `SolverKitScheduler`.

    It edits the latents after each step, that is before the next evaluation that starts one; the very first evaluation sees
    the pipeline's own latents.

    Args:
        constraint: Of this module, in the space of the latents.
        seed: Of its noise, as in `sk.sample`.

    Raises (when called):
        OptionError: another scheduler.
    """
    made: dict[str, Noise] = {}

    def callback(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        run = getattr(pipe.scheduler, "_run", None)
        if run is None:
            raise OptionError(f"the pipeline has a {type(pipe.scheduler).__name__}; a constraint needs SolverKitScheduler.")
        latents, place, table = tensors["latents"], run.step_index, run.table
        level = table.level(place)
        if index == 0 or "noise" not in made:
            draw = SampleNoise(sample_seeds(seed, len(latents)), latents.shape[1:], torch.float32, latents.device)
            made["noise"] = Noise(lambda ordinal, s, t: draw(CONSTRAINT + ordinal, s, t))
        scale, ended = table.convention.scale(level), place >= table.plan.nfe
        if ended or table.plan.boundary[place]:
            x = latents.float() / scale
            x = constraint.finish(x) if ended and float(level) == 0 else constraint(x, level, made["noise"])
            tensors["latents"] = (x * scale).to(latents.dtype)
        return {"latents": tensors["latents"]}

    return callback
