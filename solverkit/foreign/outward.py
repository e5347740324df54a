"""Samplers of ours in the form of k-diffusion's functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..errors import GridError, OptionError
from ..grid.grid import Grid
from ..process.level import Level
from ..process.schedule import VE, Flow, Schedule
from ..registry.registry import SamplerCard, resolve
from ..run.asked import Asked
from ..run.noise import FIXED, LARGEST_SEED, Noise, SampleNoise, sample_seeds
from ..run.result import Evaluation


def as_k_diffusion(sampler: str | SamplerCard | Callable[..., Any], flow: bool = False) -> Callable[..., torch.Tensor]:
    """A sampler as a function of k-diffusion's form, for programs that know this form alone.

        sample_unipc = sk.as_k_diffusion("unipc:order=3")
        x = sample_unipc(model, x, sigmas, extra_args={"cond": cond}, callback=report, disable=True)

    `model(x, sigma, **extra_args) -> x_0`, x at sigmas[0] in the model's own scale, sigmas falling; the answer is x at
    sigmas[-1]. `callback` gets a dictionary of x, i, sigma, sigma_hat and denoised once a step, after its first
    evaluation (once an evaluation for a sampler that lays out its own steps). `noise_sampler(sigma, sigma_next)` gives
    draws of unit variance; without it they are keyed by extra_args["seed"] (an integer, or a list, one a sample), which
    is then handed on too, or else by a seed from torch's global generator. Options of the sampler are keyword arguments.

    Args:
        sampler: A name, options behind it if you like, a card, or a function.
        flow: sigmas are those of a flow, in [0, 1], and x = (1 - sigma) x_0 + sigma eps.

    Raises:
        UnknownNameError, OptionError: no such sampler or option; when it is called also: an option that sk.sample finds in
            the denoiser (statistics, a measurement) was not given.
        GridError: sigmas that do not fall, when it is called.
    """
    card = resolve(sampler)

    def sample(
        model: Any, x: torch.Tensor, sigmas: torch.Tensor, extra_args: Mapping[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], None] | None = None, disable: Any = None, noise_sampler: Any = None,
        **options: Any,
    ) -> torch.Tensor:  # fmt: skip
        checked = _checked(card, model, x, options)
        schedule, levels = _levels(sigmas, flow)
        steps = _Steps(callback, sigmas)
        grid = Grid(levels, schedule, on_step=steps.begin)
        asked = Asked(KDiffusionModel(model, schedule, extra_args or {}, x.dtype), grid, len(x), "raise", steps)
        state = (x if x.dtype in (torch.float32, torch.float64) else x.float()) / levels[0].scale
        with torch.no_grad():
            made = card.fn(asked, state.clone(), grid, Noise(_draws(x, state, extra_args or {}, noise_sampler)), **checked)
        return made.to(x.dtype)  # type: ignore[no-any-return]

    sample.__name__ = f"sample_{card.name}"
    sample.__doc__ = card.fn.__doc__
    own = [p for p in inspect.signature(sample).parameters.values() if p.kind is not p.VAR_KEYWORD]
    added = [
        p.replace(kind=p.KEYWORD_ONLY, default=card.preset.get(p.name, p.default)) for p in card.options.values()
    ]
    sample.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    return sample


def _checked(card: SamplerCard, model: Any, x: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The options, after what can be refused before a run was refused."""
    if not callable(model):
        raise OptionError(f"model must be a function (x, sigma, **extra_args) -> x_0, got {type(model).__name__}.")
    if not isinstance(x, torch.Tensor) or x.ndim < 2 or not x.is_floating_point():
        got = getattr(x, "shape", type(x).__name__)
        raise OptionError(f"x must be a batch of states, a float tensor (B, ...), got {got}.")
    missing = [name for name in card.required if name not in options]
    if missing and card.prepare is not None:
        raise OptionError(
            f"sk.sample finds the {missing[0]!r} of {card.name!r} in the denoiser, and a function of (model, x, sigmas) "
            f"cannot: pass {missing[0]}=, or use sk.sample."
        )
    return card.check(options)


def _levels(sigmas: Any, flow: bool) -> tuple[Schedule, tuple[Level, ...]]:
    """The levels that sigmas are, and a process that has levels between them.

    Raises:
        GridError: fewer than two, rising ones, or some out of range.
    """
    values = [float(s) for s in torch.as_tensor(sigmas).flatten()]
    positive = [s for s in values if s > 0]
    if len(values) < 2 or not positive or not all(s >= 0 for s in values):  # not true of NaN
        raise GridError(f"sigmas must be two or more falling numbers >= 0, got {values!r:.80}.")
    if flow:
        if values[0] > 1:
            raise GridError(f"sigmas of a flow lie in [0, 1], got {values[0]:.6g}.")
        return Flow(), tuple(Flow().at(s) for s in values)
    schedule = VE(min(positive), max(positive))
    return schedule, tuple(schedule.at(s) for s in values)


class KDiffusionModel:
    """A model of k-diffusion's form as a denoiser: E[x_0 | x] at a level; told sigma itself."""

    def __init__(self, model: Any, schedule: Schedule, extra_args: Mapping[str, Any], dtype: torch.dtype) -> None:
        self.model, self.schedule, self.extra_args, self.dtype = model, schedule, dict(extra_args), dtype

    def __call__(self, x: torch.Tensor, level: float) -> torch.Tensor:
        sigma = x.new_full((len(x),), float(level), dtype=self.dtype)
        return self.model(x.to(self.dtype), sigma, **self.extra_args).to(x.dtype)  # type: ignore[no-any-return]


class _Steps:
    """Calls the callback once a step, after the step's first evaluation."""

    def __init__(self, callback: Any, sigmas: Any) -> None:
        self.callback, self.sigmas = callback, sigmas
        self.told = self.starts = False  # whether the sampler says where its steps begin; whether one begins now
        self.i = 0

    def begin(self) -> None:
        self.told = self.starts = True

    def __call__(self, evaluation: Evaluation) -> None:
        if self.callback is None or (self.told and not self.starts):
            return
        self.starts = False
        sigma_hat = torch.as_tensor(self.sigmas).new_tensor(float(evaluation.level))
        sigma = self.sigmas[self.i] if self.told and self.i < len(self.sigmas) else sigma_hat
        self.callback(
            {"x": evaluation.x, "i": self.i, "sigma": sigma, "sigma_hat": sigma_hat, "denoised": evaluation.denoised}
        )
        self.i += 1


def _draws(x: torch.Tensor, state: torch.Tensor, extra_args: Mapping[str, Any], noise_sampler: Any) -> Any:
    seed = extra_args.get("seed")
    if seed is None:
        seed = int(torch.randint(LARGEST_SEED, []))
    keyed = SampleNoise(sample_seeds(seed, len(x)), x.shape[1:], state.dtype, x.device)
    if noise_sampler is None:
        return keyed

    def draw(ordinal: int, s: float, t: float) -> torch.Tensor:
        if ordinal >= FIXED:
            return keyed(ordinal, s, t)
        return noise_sampler(x.new_tensor(float(s)), x.new_tensor(float(t))).to(state)  # type: ignore[no-any-return]

    return draw
