"""The one model interface: d(x, level) -> E[x_0 | x], whatever the network predicts and however it is told the noise.

x arrives in the frame of the run (see `level.py`); the network sees its own x = k x and its own time. What it answers is
turned into the denoised prediction by the weights of `prediction.py`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch

from ..errors import DenoiserError, SolverKitError, UnknownNameError
from ..process.level import Level
from ..process.schedule import VE, Flow, Schedule
from .answer import answered, fit_channels
from .counting import Count, counted, record
from .finite import require_finite
from .inputs import batched, cut, row_index
from .placement import OwnDtype, computes_in, own_device
from .prediction import PREDICTIONS, denoised_weights, input_scale, meant

__all__ = ["Denoiser", "DenoiserLike", "describe", "fit_channels", "require_finite", "wrap"]


Prior = Callable[[torch.Tensor], torch.Tensor]


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
        takes_rows: It can be asked at one level a row.
        prior: A source that is not Gaussian, as a function of unit normal noise; None for a Gaussian one.
        source: The bundled name or the folder that it was opened from; None where it was built by hand.
    """

    takes_rows = True
    prior: Prior | None = None
    source: str | None = None

    def __init__(
        self,
        net: Callable[..., Any],
        prediction: str,
        schedule: Schedule,
        inputs: dict[str, Any],
        shape: tuple[int, ...] | None = None,
        sigma_train: float | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.net, self.prediction, self.schedule, self.inputs = net, prediction, schedule, inputs
        self.shape, self.sigma_train = shape, sigma_train
        self._dtype, self._device, self._own, self._count = dtype, device, OwnDtype(), Count()

    @property
    def name(self) -> str:
        """What the network is called in messages: its own name, or that of its class."""
        return str(getattr(self.net, "name", type(self.net).__name__))

    @property
    def calls(self) -> int:
        """Passes through the network since it was wrapped, those for parts of a batch (`rows`) included."""
        return self._count.passes

    @property
    def device(self) -> torch.device:
        """Where the network is: what was said, else where its parameters are, else the CPU."""
        return self._device or own_device(self.net) or torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype | None:
        """What the network computes in: what was said, else its own; None where that is not known, and it gets x's."""
        return self._own.of(self.net) if self._dtype is None else self._dtype

    def with_inputs(self, **inputs: Any) -> Denoiser:
        """The same network with other fixed inputs (they replace those of the same name)."""
        other = Denoiser(
            self.net, self.prediction, self.schedule, {**self.inputs, **inputs}, self.shape, self.sigma_train,
            self._dtype, self._device,
        )  # fmt: skip
        other.prior, other.source = self.prior, self.source
        return other

    def rows(self, start: int | Sequence[int], stop: int | None = None, total: int | None = None) -> Denoiser:
        """The denoiser of some samples of a batch: inputs that have one row a sample are cut to those samples.

        Args:
            start, stop: Samples start .. stop - 1; or a sequence of indices as `start`.
            total: Samples in the whole batch. An input whose first dimension is `total` has one row a sample.

        Raises:
            DenoiserError: rows that are not among them.
        """
        index, total = row_index(start, stop, total)
        return self.view(**{name: cut(value, index, total) for name, value in self.inputs.items()})

    def view(self, **inputs: Any) -> Denoiser:
        """As `with_inputs`; the passes are counted as this denoiser's own."""
        view = self.with_inputs(**inputs)
        view._count = self._count
        return view

    def __call__(self, x: torch.Tensor, level: float | Sequence[float]) -> torch.Tensor:
        """E[x_0 | x] for x of shape (B, ...) in the frame. Dtype and shape of x.

        Args:
            x: The state.
            level: A `Level` (or s as a plain float) for all rows, or a tuple of them, one a row.

        Raises:
            DenoiserError: the network refuses x or answers in another shape.
        """
        if not isinstance(x, torch.Tensor) or x.ndim == 0:
            given = "a tensor without dimensions" if isinstance(x, torch.Tensor) else type(x).__name__
            raise DenoiserError(f"x must be a tensor of shape (B, ...), got {given}.")
        if isinstance(level, (tuple, list)):
            if len(level) != len(x):
                raise DenoiserError(f"{len(level)} levels were given for {len(x)} rows: one level, or one a row.")
            levels = [self.schedule.at(s) for s in level]
            k, c, w_own, w_net = (per_row(w, x) for w in zip(*(self._weights(one) for one in levels)))
            own = x * k
            out = self._ask(own * c, [one.time for one in levels])
            record(len(x), x, level)
            self._require_gradient(own, out)
            return out.to(x.dtype) * w_net + own * w_own
        one = self.schedule.at(level)  # type: ignore[arg-type]
        scale, c_in, w_x, w_out = self._weights(one)
        own = x if scale == 1.0 else x * scale
        out = self._ask(own if c_in == 1.0 else own * c_in, one.time)
        record(len(x), x, level)
        self._require_gradient(own, out)
        answer = out.to(x.dtype) * w_out  # a new tensor: a network may reuse its output's memory
        return answer if w_x == 0 else answer.add_(own, alpha=w_x)

    def _weights(self, level: Level) -> tuple[float, float, float, float]:
        """(k, c_in, w_x, w_out): the network's x = k x, is asked at c_in of it, and D = w_x x + w_out out."""
        alpha, sigma = level.alpha * level.scale, float(level) * level.scale
        parameter = self.sigma_train if self.prediction == "autoencoder" else getattr(self.schedule, "sigma_data", 0.5)
        w_x, w_out = denoised_weights(self.prediction, alpha, sigma, parameter or 1.0)
        if self.prediction == "flow_prediction" and getattr(self.schedule, "data_at", 0) == 1:
            w_out = -w_out  # dx/dt in a time that runs to the data: x_0 - eps
        return level.scale, input_scale(self.prediction, sigma, parameter or 1.0), w_x, w_out

    def _require_gradient(self, own: torch.Tensor, out: torch.Tensor) -> None:
        if own.requires_grad and torch.is_grad_enabled() and not out.requires_grad:
            raise DenoiserError(
                f"{self.name}'s answer has no gradient with respect to its input, and one is asked for (a divergence, or "
                "guidance by a gradient). Is it run under no_grad or detached? Divergences can be had with "
                "divergence='finite-difference'."
            )

    def _ask(self, x: torch.Tensor, time: float | list[float]) -> torch.Tensor:
        dtype = self.dtype or x.dtype
        args: list[torch.Tensor] = [x.to(dtype)]
        if self.prediction != "autoencoder":
            args.append(self._told(time, dtype, x))
        try:
            out = self.net(*args, **{name: batched(value, x) for name, value in self.inputs.items()})
        except SolverKitError:
            raise
        except Exception as error:
            raise DenoiserError(self._explain(error, x, args)) from error
        counted(self._count, len(x))
        return answered(out, x, self.name)

    def _told(self, time: float | list[float], dtype: torch.dtype, x: torch.Tensor) -> torch.Tensor:
        """The time (B,): integers where the network knows only those, else at least float32 (999 is no bfloat16 number)."""
        kind = torch.float64 if dtype == torch.float64 else torch.float32
        times = time if isinstance(time, list) else [time]
        if self.schedule.integer_time:
            kind, times = torch.long, [round(t) for t in times]
        if len(times) == 1:
            return torch.full((len(x),), times[0], dtype=kind, device=x.device)
        return torch.tensor(times, dtype=kind, device=x.device)

    def _explain(self, error: Exception, x: torch.Tensor, args: list[torch.Tensor]) -> str:
        time = None if len(args) == 1 else f"{float(args[1][0]):.6g}"
        text = f"{self.name} refused x of shape {tuple(x.shape)}, {args[0].dtype}, at time {time}: "
        text += f"{type(error).__name__}: {error}"
        for name, value in self.inputs.items():
            if isinstance(value, torch.Tensor) and value.ndim and len(value) not in (1, len(x)):
                text += f" (the input {name!r} has {len(value)} rows for {len(x)} samples)"
            embedding = getattr(self.net, "class_embedding", None)
            if name == "class_labels" and isinstance(embedding, torch.nn.Embedding):
                text += f" (class_labels must be integers in 0..{embedding.num_embeddings - 1})"
        if not self.schedule.integer_time and ("Long" in str(error) or "indices" in str(error)):
            text += " If the network knows only integer timesteps, say so in its schedule: sk.VP(..., integer_time=True)."
        if any(words in str(error).lower() for words in ("dtype", "scalar type", "input type")):
            text += self._explain_dtype(args)
        if isinstance(error, TypeError) and "missing" in str(error):
            text += " If it is a flow map, which is told a second time: sk.wrap_map(net, told, schedule)."
        if "nference tensor" in str(error):
            text += " The network or an input was made under torch.inference_mode: make it outside, or use torch.no_grad."
        return text

    def _explain_dtype(self, args: list[torch.Tensor]) -> str:
        said = (
            "as dtype= said" if self._dtype is not None else "its own dtype" if self.dtype is not None else "as the state"
        )
        text = f" It is given x in {args[0].dtype} ({said}; another: sk.wrap(..., dtype=torch.bfloat16))"
        if len(args) == 1 or args[1].dtype == args[0].dtype:
            return f"{text}."
        return (
            f"{text} and its time in {args[1].dtype}, so that large times stay exact. A network that multiplies the bare "
            "time by its weights wants it in x's dtype: sk.wrap(lambda x, t, **k: net(x, t.to(x.dtype), **k), ...)."
        )

    def __repr__(self) -> str:
        more = "".join(f", {name}={_brief(value)}" for name, value in self.inputs.items())
        return f"Denoiser({self.name}, {self.prediction}, {describe(self.schedule)}{more})"


def per_row(values: Sequence[float], x: torch.Tensor) -> torch.Tensor:
    """Numbers, one a row, as a tensor that multiplies x (B, ...): (B, 1, ...) in x's dtype on its device."""
    return torch.tensor(values, dtype=x.dtype, device=x.device).reshape(-1, *[1] * (x.ndim - 1))


def describe(schedule: Schedule) -> str:
    """A schedule in one line: its class and what differs from the defaults, long tables by their length."""
    fields = dataclasses.fields(schedule) if dataclasses.is_dataclass(schedule) else ()
    own = [(f.name, getattr(schedule, f.name)) for f in fields if getattr(schedule, f.name) != f.default]
    return f"{type(schedule).__name__}({', '.join(f'{name}={_brief(value)}' for name, value in own)})"


def _brief(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"<{'x'.join(map(str, value.shape)) or 'one number'}>"
    if isinstance(value, (tuple, list, dict)) and len(value) > 4:
        return f"<{len(value)} entries>"
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else f"<{type(value).__name__}>"


def wrap(
    net: Callable[..., Any],
    prediction: str = "epsilon",
    schedule: Schedule | None = None,
    *,
    shape: tuple[int, ...] | None = None,
    sigma: float | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    prior: Prior | None = None,
    **fixed_kwargs: Any,
) -> Denoiser:
    """Adapt a pretrained network (a torch module is switched to eval mode).

    Args:
        net: Called as net(x, time, **fixed_kwargs), x of shape (B, ...) in the network's own coordinates and dtype, time of
            shape (B,); for prediction="autoencoder" as net(x). Returns a tensor, a tuple that begins with it, or an object
            with `.sample`; twice the channels are a learned variance, which is dropped.
        prediction: One of `PREDICTIONS` (see `prediction.py`, also for the sign of a velocity).
        schedule: What the network was trained on: `sk.VP()`, `sk.SubVP()`, `sk.VE()`, `sk.EDM()`, `sk.Flow()`.
        shape: Shape of one sample, so that `sk.sample(..., num_samples=n)` knows it.
        sigma: The corruption level of a denoising autoencoder.
        dtype, device: What the network computes in, and where. By default they are its own `dtype` where it has one (never
            below 16 bits: float8 is storage), else those of its parameters, found behind lambdas, closures, partials and
            bound methods too; where nothing says them it gets x as it is.
        prior: The source of a flow that does not start from a Gaussian, as a function of unit normal noise (B, ...) -> x.
            Stochastic samplers, constraints with noise and likelihoods refuse such a model.
        fixed_kwargs: Passed to every call; an int (a label) is repeated for the batch.

    Raises:
        UnknownNameError: a prediction type that does not exist; names of other projects are told what they mean here.
        DenoiserError: a combination that means nothing, or a dtype that no network computes in.
    """
    if not callable(net):
        raise DenoiserError(f"net must be callable as net(x, time), got {type(net).__name__}.")
    if prediction not in PREDICTIONS:
        raise UnknownNameError("prediction type", prediction, PREDICTIONS, meant(prediction, isinstance(schedule, Flow)))
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
    if dtype is not None and not computes_in(dtype):
        raise DenoiserError(f"dtype must be what the network computes in, 16 bits or more (torch.bfloat16), got {dtype!r}.")
    try:
        place = None if device is None else torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise DenoiserError(f"device={device!r}: {error}") from None
    if isinstance(net, torch.nn.Module):
        net.eval()
    if prior is not None and not callable(prior):
        raise DenoiserError(f"prior must be a function of unit normal noise (B, ...), got {type(prior).__name__}.")
    denoiser = Denoiser(net, prediction, schedule, fixed_kwargs, shape, sigma, dtype, place)
    denoiser.prior = prior
    return denoiser
