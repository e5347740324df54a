"""The one model interface: d(x, level) -> E[x_0 | x], whatever the network predicts and however it is told the noise.

x arrives in the frame of the run (see `level.py`); the network sees its own x = k x and its own time. What it answers is
turned into the denoised prediction by the weights of `prediction.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch

from ..errors import DenoiserError, NonFiniteError, SolverKitError, UnknownNameError
from ..process.level import Level
from ..process.schedule import VE, Schedule
from .counting import record
from .prediction import PREDICTIONS, denoised_weights, input_scale


@runtime_checkable
class DenoiserLike(Protocol):
    """What samplers and guidance need of a denoiser."""

    schedule: Schedule

    def __call__(self, x: torch.Tensor, level: float) -> torch.Tensor: ...


class Denoiser:
    """A network behind the one interface. Build it with `wrap`.

    Attributes:
        net: The network.
        prediction: One of `PREDICTIONS`.
        schedule: What it was trained on.
        inputs: Fixed keyword arguments of every call (labels, masks, text embeddings).
        shape: Shape of one sample, where known.
        calls: Passes through the network since it was wrapped.
    """

    def __init__(
        self,
        net: Callable[..., Any],
        prediction: str,
        schedule: Schedule,
        inputs: dict[str, Any],
        shape: tuple[int, ...] | None = None,
        sigma_train: float | None = None,
    ) -> None:
        self.net, self.prediction, self.schedule, self.inputs = net, prediction, schedule, inputs
        self.shape, self.sigma_train, self.calls = shape, sigma_train, 0
        self.name = getattr(net, "name", type(net).__name__)

    @property
    def device(self) -> torch.device:
        """Where the network's parameters are."""
        parameter = self._parameter()
        return torch.device("cpu") if parameter is None else parameter.device

    def _parameter(self) -> torch.Tensor | None:
        parameters = getattr(self.net, "parameters", None)
        if not callable(parameters):
            return None
        return next((p for p in parameters() if p.is_floating_point()), None)

    def with_inputs(self, **inputs: Any) -> Denoiser:
        """The same network with other fixed inputs (they replace those of the same name)."""
        return Denoiser(self.net, self.prediction, self.schedule, {**self.inputs, **inputs}, self.shape, self.sigma_train)

    def __call__(self, x: torch.Tensor, level: float) -> torch.Tensor:
        """E[x_0 | x] for x of shape (B, ...) in the frame, at a `Level` (or s as a plain float). Dtype and shape of x.

        Raises:
            DenoiserError: the network refuses x or answers in another shape.
        """
        if not isinstance(x, torch.Tensor) or x.ndim == 0:
            given = "a tensor without dimensions" if isinstance(x, torch.Tensor) else type(x).__name__
            raise DenoiserError(f"x must be a tensor of shape (B, ...), got {given}.")
        level = self.schedule.at(level)
        alpha, sigma = level.alpha * level.scale, float(level) * level.scale
        own = x if level.scale == 1.0 else x * level.scale
        parameter = self.sigma_train if self.prediction == "autoencoder" else getattr(self.schedule, "sigma_data", 0.5)
        w_x, w_out = denoised_weights(self.prediction, alpha, sigma, parameter or 1.0)
        c_in = input_scale(self.prediction, sigma, parameter or 1.0)
        time = None if self.prediction == "autoencoder" else level.time
        out = self._ask(own if c_in == 1.0 else own * c_in, time)
        if own.requires_grad and torch.is_grad_enabled() and not out.requires_grad:
            raise DenoiserError(
                f"{self.name}'s answer has no gradient with respect to its input, and one is asked for (a divergence, or "
                "guidance by a gradient). Is it run under no_grad or detached? Divergences can be had with "
                "divergence='finite-difference'."
            )
        answer = out.to(x.dtype) * w_out  # a new tensor: a network may reuse its output's memory
        return answer if w_x == 0 else answer.add_(own, alpha=w_x)

    def _ask(self, x: torch.Tensor, time: float | None) -> torch.Tensor:
        parameter = self._parameter()
        dtype = x.dtype if parameter is None else parameter.dtype
        args: list[torch.Tensor] = [x.to(dtype)]
        if time is not None:
            if self.schedule.integer_time:
                args.append(torch.full((len(x),), round(time), dtype=torch.long, device=x.device))
            else:
                wide = torch.float64 if dtype == torch.float64 else torch.float32
                args.append(torch.full((len(x),), time, dtype=wide, device=x.device))
        try:
            out = self.net(*args, **{name: self._batched(value, x) for name, value in self.inputs.items()})
        except SolverKitError:
            raise
        except Exception as error:
            raise DenoiserError(self._explain(error, x, time)) from error
        self.calls += 1
        record(len(x))
        out = getattr(out, "sample", out)
        out = out[0] if isinstance(out, (tuple, list)) else out
        if not isinstance(out, torch.Tensor):
            raise DenoiserError(f"{self.name} returned {type(out).__name__}, expected a tensor (or .sample).")
        return fit_channels(out, x, self.name)

    def _batched(self, value: Any, x: torch.Tensor) -> Any:
        """A scalar input (one label for all) becomes one a sample; everything else passes through."""
        if isinstance(value, bool) or value is None:
            return value
        if isinstance(value, int):
            return torch.full((len(x),), value, dtype=torch.long, device=x.device)
        if isinstance(value, torch.Tensor) and value.ndim == 0 and not value.is_floating_point():
            return value.to(x.device).expand(len(x))
        return value

    def _explain(self, error: Exception, x: torch.Tensor, time: float | None) -> str:
        text = f"{self.name} refused x of shape {tuple(x.shape)}, {x.dtype}, at time {time}: "
        text += f"{type(error).__name__}: {error}"
        for name, value in self.inputs.items():
            if isinstance(value, torch.Tensor) and value.ndim and len(value) not in (1, len(x)):
                text += f" (the input {name!r} has {len(value)} rows for {len(x)} samples)"
            embedding = getattr(self.net, "class_embedding", None)
            if name == "class_labels" and isinstance(embedding, torch.nn.Embedding):
                text += f" (class_labels must be integers in 0..{embedding.num_embeddings - 1})"
        if not self.schedule.integer_time and ("Long" in str(error) or "indices" in str(error)):
            text += " If the network knows only integer timesteps, say so in its schedule: sk.VP(..., integer_time=True)."
        return text

    def __repr__(self) -> str:
        return f"Denoiser({self.name}, prediction={self.prediction!r}, schedule={self.schedule})"


def fit_channels(out: torch.Tensor, x: torch.Tensor, name: str) -> torch.Tensor:
    """Drop a learned variance: the second half of the channels, which stand second, or last for (B, N, C).

    Raises:
        DenoiserError: a shape that is neither x's nor twice its channels.
    """
    if out.shape == x.shape:
        return out
    if out.ndim == x.ndim:
        for axis in (1, -1):
            wanted = list(x.shape)
            wanted[axis] *= 2
            if list(out.shape) == wanted:
                return out.narrow(axis, 0, x.shape[axis])
    raise DenoiserError(
        f"{name} answered in shape {tuple(out.shape)} to x of shape {tuple(x.shape)}; expected the same shape, "
        "or twice the channels (a learned variance, which is dropped)."
    )


def wrap(
    net: Callable[..., Any],
    prediction: str = "epsilon",
    schedule: Schedule | None = None,
    *,
    shape: tuple[int, ...] | None = None,
    sigma: float | None = None,
    **fixed_kwargs: Any,
) -> Denoiser:
    """Adapt a pretrained network (a torch module is switched to eval mode).

    Args:
        net: Called as net(x, time, **fixed_kwargs), x of shape (B, ...) in the network's own coordinates and dtype, time of
            shape (B,); for prediction="autoencoder" as net(x). Returns a tensor, a tuple, or an object with `.sample`.
        prediction: One of `PREDICTIONS` (see `prediction.py`).
        schedule: What the network was trained on: `sk.VP()`, `sk.SubVP()`, `sk.VE()`, `sk.EDM()`, `sk.Flow()`.
        shape: Shape of one sample, so that `sk.sample(..., num_samples=n)` knows it.
        sigma: The corruption level of a denoising autoencoder.
        fixed_kwargs: Passed to every call; an int (a label) is repeated for the batch.

    Raises:
        UnknownNameError: a prediction type that does not exist.
        DenoiserError: a combination that means nothing.
    """
    if not callable(net):
        raise DenoiserError(f"net must be callable as net(x, time), got {type(net).__name__}.")
    if prediction not in PREDICTIONS:
        raise UnknownNameError("prediction type", prediction, PREDICTIONS)
    if prediction == "autoencoder":
        if not isinstance(sigma, (int, float)) or not 0 < sigma < math.inf:
            raise DenoiserError("prediction='autoencoder' needs sigma=, the noise level that it was trained on.")
        schedule = VE(sigma, sigma * 1.0001) if schedule is None else schedule
    if schedule is None:
        raise DenoiserError("schedule is missing: pass what the network was trained on, e.g. schedule=sk.VP().")
    if not isinstance(schedule, Schedule):
        raise DenoiserError(f"schedule must be a sk.Schedule such as sk.VP(), got {type(schedule).__name__}.")
    if prediction in ("edm", "edm_v"):
        if not isinstance(schedule, VE):
            raise DenoiserError(
                f"prediction={prediction!r} (raw F) needs schedule=sk.EDM(); VP networks predict epsilon or v."
            )
        if schedule.told != "arctan":
            schedule = replace(schedule, told="quarter-log")  # c_noise = log(sigma) / 4
    if isinstance(net, torch.nn.Module):
        net.eval()
    return Denoiser(net, prediction, schedule, fixed_kwargs, shape, sigma)


def require_finite(denoised: torch.Tensor, evaluation: int, level: Level) -> None:
    """Raises NonFiniteError naming the evaluation and the level."""
    if not bool(torch.isfinite(denoised).all()):
        rows = (~torch.isfinite(denoised.reshape(len(denoised), -1)).all(1)).nonzero().flatten().tolist()
        raise NonFiniteError(
            f"the network returned NaN or inf at evaluation {evaluation} (s = {float(level):.6g}, time {level.time:.6g}) "
            f"for {len(rows)} of {len(denoised)} samples (first: {rows[0]}). Run it in float32, or check its input."
        )
