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
from ..process.level import Level

NoiseKind = Literal["fresh", "fixed"]
Map = Callable[[torch.Tensor], torch.Tensor]


class Replacement:
    """A x <- alpha c + s A z for an orthogonal measurement A. Build it with `inpaint`, `observe` or `colorize`.

    Attributes:
        measure, lift: A and its transpose, on batches.
        known: c.
        noise: "fresh" draws z anew at each level (Song et al. 2021, appendix I.2); "fixed" keeps one z for the whole run,
            so that the known part follows the forward process of one noise, as the probability flow does.
    """

    def __init__(self, measure: Map, lift: Map, known: torch.Tensor, noise: NoiseKind = "fresh") -> None:
        if noise not in ("fresh", "fixed"):
            raise OptionError(f"noise must be 'fresh' or 'fixed', got {noise!r}.")
        self.measure, self.lift, self.known, self.noise = measure, lift, known, noise

    def __call__(self, x: torch.Tensor, level: Level, draw: Any) -> torch.Tensor:
        """The state (B, ...) with its measured part replaced."""
        z = draw.fixed() if self.noise == "fixed" else draw(level, level)
        return self._replaced(x, level.alpha, float(level) * self.measure(z))

    def finish(self, x: torch.Tensor) -> torch.Tensor:
        """At noise level 0: the known values themselves."""
        return self._replaced(x, 1.0, 0.0)

    def _replaced(self, x: torch.Tensor, alpha: float, noise: torch.Tensor | float) -> torch.Tensor:
        measured = self.measure(x)
        try:
            return x + self.lift((alpha * self.known.to(x) + noise - measured).expand_as(measured))
        except RuntimeError:
            raise OptionError(
                f"the known values have shape {tuple(self.known.shape)}, a measured state has {tuple(measured.shape)}: "
                "they must be one sample's, or one a sample of the batch."
            ) from None


def inpaint(known: torch.Tensor, mask: torch.Tensor, noise: NoiseKind = "fresh") -> Replacement:
    """Keep `known` where mask is 1 (images with holes, series with missing values).

    Args:
        known: Data, (B, ...) or (1, ...), in the model's own coordinates at noise level 0.
        mask: 0 or 1 (or bool), a shape that broadcasts to known's.
        noise: See `Replacement`.

    Raises:
        OptionError: a mask of another shape or with other values.
    """
    values = mask.float()
    if not bool(((values == 0) | (values == 1)).all()):
        raise OptionError("a mask holds 0 (unknown) and 1 (known) only.")
    try:
        fits = torch.broadcast_shapes(mask.shape, known.shape) == known.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise OptionError(f"the mask's shape {tuple(mask.shape)} does not broadcast to known's {tuple(known.shape)}.")

    def masked(x: torch.Tensor) -> torch.Tensor:
        return x * values.to(x)

    return Replacement(masked, masked, masked(known), noise)


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
    gram = matrix.double() @ matrix.double().T
    off = float((gram - torch.eye(len(gram), dtype=torch.float64)).abs().max())
    if off > 1e-4:
        raise OptionError(
            f"the rows of the measurement are not orthonormal (A A^T differs from I by {off:.2g}): replacement would move "
            "what was not measured. Orthonormalise them (torch.linalg.qr(A.T).Q.T, and the values with them), or use "
            "guidance.posterior, which takes any measurement."
        )
    shape: list[torch.Size] = []

    def measure(x: torch.Tensor) -> torch.Tensor:
        if x[0].numel() != matrix.shape[1]:
            raise OptionError(f"the measurement is of {matrix.shape[1]} elements, and a sample has {x[0].numel()}.")
        shape[:] = [x.shape[1:]]
        return x.flatten(1) @ matrix.to(x).T

    def lift(c: torch.Tensor) -> torch.Tensor:
        return (c @ matrix.to(c)).reshape(len(c), *shape[0])

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


def together(*constraints: Any) -> Any:
    """Several constraints one after the other."""

    class Together:
        def __call__(self, x: torch.Tensor, level: Level, draw: Any) -> torch.Tensor:
            for constraint in constraints:
                x = constraint(x, level, draw)
            return x

        def finish(self, x: torch.Tensor) -> torch.Tensor:
            for constraint in constraints:
                x = getattr(constraint, "finish", lambda y: y)(x)
            return x

    return Together()


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
    from .noise import CONSTRAINT, Noise, SampleNoise, sample_seeds

    made: dict[str, Noise] = {}

    def callback(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        run = getattr(pipe.scheduler, "_run", None)
        if run is None:
            raise OptionError(f"the pipeline has a {type(pipe.scheduler).__name__}; a constraint needs SolverKitScheduler.")
        latents, place = tensors["latents"], run.step_index
        level = run.level(place)
        if index == 0 or "noise" not in made:
            draw = SampleNoise(sample_seeds(seed, len(latents)), latents.shape[1:], torch.float32, latents.device)
            made["noise"] = Noise(lambda ordinal, s, t: draw(CONSTRAINT + ordinal, s, t))
        scale, ended = run.convention.scale(level), place >= run.plan.nfe
        if ended or run.plan.boundary[place]:
            x = latents.float() / scale
            x = constraint.finish(x) if ended and float(level) == 0 else constraint(x, level, made["noise"])
            tensors["latents"] = (x * scale).to(latents.dtype)
        return {"latents": tensors["latents"]}

    return callback
