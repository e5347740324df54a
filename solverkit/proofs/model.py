"""What a registered model must be: a function of its input alone, right at both ends, and the same when it is opened again.

Continuous models, token models and systems of components are asked alike: states by name, at three levels.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import FingerprintError, SolverKitError
from ..joint.grids import joint_grids
from ..model.fingerprint import fingerprint
from ..process.level import Level
from ..process.residual import Residual
from ..registry.registry import ModelCard, SamplerCard
from ..run.sampling import sample
from .finding import at_most, holds
from .growth import EULER

ROWS = 3
MOST = 80.0  # the highest finite ratio that stands for the middle's upper end
STEPS = 8
DRAWS = 2000
NETWORK = 0.05  # the error of epsilon that a trained network may have
_NOTHING = SamplerCard("none", lambda model, x, grid, noise: x, skip=4)


class Question(NamedTuple):
    """States (ROWS, ...) by name, the level (or levels by name) that they are asked at, and where that is, in words."""

    states: dict[str, Tensor]
    level: Any
    where: str


def opened(card: ModelCard, options: Mapping[str, Any]) -> Any:
    """The model; of a system that draws its masks for each run, one with every node."""
    model = card.fn(**card.check(options))
    holds(
        callable(model), f"the function answers {type(model).__name__}, which cannot be called",
        "the function returns the bare network or nothing: return sk.wrap(net, prediction, schedule)",
    )  # fmt: skip
    if callable(getattr(model, "mask", None)):
        return model.with_nodes(mask=torch.ones(next(iter(model.components.values())).shape[0]))
    return model


def is_tokens(model: Any) -> bool:
    return getattr(model, "kind", "") == "tokens"


def is_system(model: Any) -> bool:
    return hasattr(model, "components")


def questions(model: Any, dtype: torch.dtype = torch.float32) -> list[Question]:
    """One at the most noise, one in the middle, one at the least."""
    if is_tokens(model):
        return [_tokens(model, share) for share in (1.0, 0.5, 0.1)]
    parts = model.components if is_system(model) else {"x": model}
    lead = model.lead_schedule if is_system(model) else model.schedule
    high, low = lead.ratio_max, lead.ratio_min
    middle = math.sqrt(min(high, MOST) * low)
    ratios = {"at the most noise": high, "in the middle": middle, "at the least noise": low}
    levels: list[dict[str, Level]]
    if is_system(model):
        grids = joint_grids(model, _NOTHING, None, None, None, [*ratios.values(), 0.0], {})
        levels = [{name: grids[name][i] for name in parts} for i in range(len(ratios))]
    else:
        levels = [{"x": lead.level(ratio)} for ratio in ratios.values()]
    asked = []
    for i, (where, level) in enumerate(zip(ratios, levels)):
        states = {}
        for name, part in parts.items():
            x = noise(_shape(part), dtype, i) * math.hypot(level[name].alpha, level[name])
            states[name] = part.space.project(x, model.mask) if is_system(model) else x
        asked.append(Question(states, level if is_system(model) else level["x"], where))
    return asked


def _shape(part: Any) -> tuple[int, ...]:
    holds(
        part.shape is not None, "the model does not say the shape of a sample, so that nobody can ask for one",
        "shape= is missing: sk.wrap(net, ..., shape=(3, 64, 64))",
    )  # fmt: skip
    return tuple(part.shape)


def noise(shape: tuple[int, ...], dtype: torch.dtype, seed: int, rows: int = ROWS) -> Tensor:
    return torch.randn(rows, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def _tokens(model: Any, share: float) -> Question:
    generator = torch.Generator().manual_seed(0)
    size = (ROWS, model.length or 16)
    ids = torch.randint(0, min(model.vocabulary, model.mask or model.vocabulary), size, generator=generator)
    if model.mask is not None:
        ids = torch.where(torch.rand(size, generator=generator) < share, model.mask, ids)
    return Question({"x": ids}, share, f"at a noise share of {share:g}")


def ask(model: Any, question: Question, rows: slice = slice(None)) -> dict[str, Tensor]:
    """The answers by name, to some of the rows."""
    states = {name: x[rows] for name, x in question.states.items()}
    with torch.no_grad():
        answer = model(states, question.level) if is_system(model) else {"x": model(states["x"], question.level)}
    return dict(answer)


def check_model_shape(card: ModelCard, options: Mapping[str, Any]) -> None:
    """An answer has the shape and the dtype of the state, float32 and float64; of tokens a log-probability for "
    "each symbol."""
    model = opened(card, options)
    for dtype in (torch.float32, torch.float64):
        for question in questions(model, dtype):
            for name, answer in ask(model, question).items():
                x = question.states[name]
                shape, kind = tuple(x.shape), x.dtype
                if is_tokens(model):
                    shape, kind = (*shape, model.vocabulary), answer.dtype
                holds(
                    isinstance(answer, Tensor) and tuple(answer.shape) == shape,
                    f"{question.where}: {tuple(answer.shape)} is answered to a state of shape {tuple(x.shape)}",
                    "the network's output is not an image of its input (a class, a tuple, doubled channels)",
                )
                holds(
                    answer.dtype == kind and answer.is_floating_point(),
                    f"{question.where}: {answer.dtype} is answered to a state of {x.dtype}",
                    "a denoiser of one's own must cast its answer back to x.dtype: states are float32, or "
                    "float64 on request",
                )


def check_model_finite(card: ModelCard, options: Mapping[str, Any]) -> None:
    """No NaN and no infinity from the most noise to the least; log-probabilities of tokens sum to 1."""
    model = opened(card, options)
    for question in questions(model):
        for name, answer in ask(model, question).items():
            good = answer < math.inf if is_tokens(model) else answer.isfinite()
            holds(
                bool(good.all()),
                f"{question.where}: {int((~good).sum())} of {answer.numel()} values of {name} are not finite",
                "a division by alpha where it is 0 (flows and zero terminal SNR start there) or by sigma where "
                "it is 0; or half precision that overflows",
            )  # fmt: skip
            if is_tokens(model):
                off = float((answer.double().logsumexp(-1)).abs().max())
                at_most(
                    off, 1e-4, f"{question.where}: probabilities sum to e^{off:.1e}",
                    "logits are returned where log-probabilities are expected: sk.wrap_tokens normalises them",
                )  # fmt: skip


def check_model_independence(card: ModelCard, options: Mapping[str, Any]) -> None:
    """The answer to a state does not depend on the rest of its batch: to 1e-4 of the largest value."""
    model = opened(card, options)
    for question in questions(model):
        together = ask(model, question)
        for i in range(ROWS):
            for name, alone in ask(model, question, slice(i, i + 1)).items():
                there = together[name][i : i + 1]
                scale = max(1.0, float(there[there.isfinite()].abs().max()))
                off = float((alone - there).nan_to_num().abs().max()) / scale
                at_most(
                    off, 1e-4,
                    f"{question.where}: the answer to row {i} differs by {off:.1e} alone and in a batch of {ROWS}",
                    "the network is in training mode (batch norm: net.eval()), normalises over the batch, or "
                    "gets one label for all rows",
                )  # fmt: skip


def check_model_repeats(card: ModelCard, options: Mapping[str, Any]) -> None:
    """The same question has the same answer, bit for bit; the state and global randomness are left alone."""
    model = opened(card, options)
    for question in questions(model):
        before, state = {name: x.clone() for name, x in question.states.items()}, torch.get_rng_state()
        first, second = ask(model, question), ask(model, question)
        same = all(torch.equal(first[name], second[name]) for name in first)
        kept = all(torch.equal(x, question.states[name]) for name, x in before.items())
        holds(kept, f"{question.where}: the model changed the state", "an operation in place on x: write x = x * c")
        holds(
            same, f"{question.where}: the same question has another answer",
            "dropout (net.eval()), noise in the network, or an answer that depends on how often it was asked",
        )  # fmt: skip
        drawn = torch.equal(torch.get_rng_state(), state)
        holds(drawn, f"{question.where}: the model used torch's global generator", "torch.randn or dropout in the network")


def check_model_denoises(card: ModelCard, options: Mapping[str, Any]) -> None:
    """x_0 + noise is answered by something nearer to x_0 than 1.5 times what the state itself or the mean would be.

    Of 16 samples (the target's own, or those that Euler makes of the model), at four levels from the least noise, where the
    answer is nearly the state, to the most, where it is nearly the mean. A posterior mean is at most 1 times as far. An
    error of 5 % in epsilon is allowed for: sigma / alpha times that is what it makes of x_0.
    """
    model = opened(card, options)
    if is_tokens(model) or is_system(model) or getattr(model, "prior", None) is not None:
        return
    if isinstance(model.schedule, Residual):  # its states are differences to its input
        return
    x0 = _samples(model)
    holds(
        bool(x0.isfinite().all()), "Euler from the most noise ends in NaN or infinity",
        "the prediction type is another one: an error that grows from step to step",
    )  # fmt: skip
    spread = float((x0 - x0.mean(0)).square().mean().sqrt()) * math.sqrt(len(x0) / (len(x0) - 1))
    high, low = model.schedule.ratio_max, model.schedule.ratio_min
    at_most(
        spread, 0.5 * high, f"samples spread by {spread:.3g}, and a run starts at sigma / alpha = {high:.3g}",
        "the answer leaves the noise in: a wrong prediction type, or a schedule that ends too early for such data",
    )  # fmt: skip
    top = min(high, MOST)
    for ratio in (low, low * (top / low) ** 0.5, low * (top / low) ** 0.75, high):
        level = model.schedule.level(ratio)
        x = (level.alpha * x0 + float(level) * noise(tuple(x0.shape[1:]), torch.float32, 7, len(x0))).float()
        with torch.no_grad():
            off = float((model(x, level).double() - x0).square().mean().sqrt())
        nearest = min(spread, level.ratio)
        small = NETWORK * level.ratio if level.ratio < math.inf else 0.0
        at_most(
            off, max(1.5 * nearest, small),
            f"at sigma / alpha = {level.ratio:.3g} the answer is {off:.3g} from x_0; the nearer of the state and the mean "
            f"is {nearest:.3g} away",
            "another prediction type or sign (epsilon, v, x_0, velocity and its time), another schedule than the "
            "training's, or a time that is told in another unit",
        )  # fmt: skip


def _samples(model: Any) -> Tensor:
    target = getattr(model, "target", None)
    if target is not None:
        return target.sample(16, seed=0).double()  # type: ignore[no-any-return]
    return sample(model, EULER, steps=STEPS, num_samples=16, seed=0, dtype=torch.float32).x.double()


def check_model_again(card: ModelCard, options: Mapping[str, Any]) -> None:
    """Opened again, and pickled and read again, it answers the same and has the same fingerprint; calls change neither."""
    model = opened(card, options)
    try:
        own = fingerprint(model)
    except FingerprintError as error:
        holds(False, str(error), "something in the network hides its content, such as a lock, a generator or a file")
        return
    asked = questions(model)
    answers = [ask(model, question) for question in asked]
    holds(
        fingerprint(model) == own, "the fingerprint changes when the model is asked",
        "the network caches something in an attribute: keep it outside the network",
    )  # fmt: skip
    try:
        kept = pickle.loads(pickle.dumps(model))
    except Exception as error:  # pickle raises whatever the object raises
        holds(
            False, f"it cannot be pickled: {type(error).__name__}: {error}",
            "a lambda or a function inside a function: other processes need classes and functions at the top of a module",
        )  # fmt: skip
        return
    for how, other in {"opened again": opened(card, options), "read from its pickle": kept}.items():
        for question, answer in zip(asked, answers):
            for name, value in ask(other, question).items():
                same = torch.equal(value, answer[name])
                holds(
                    same, f"{how}, it answers otherwise {question.where}",
                    "weights that are drawn without a seed of their own, or state that is kept outside the network",
                )  # fmt: skip
        holds(
            fingerprint(other) == own, f"{how}, it has another fingerprint",
            "something that differs from one opening to the next: a time, a path, an address, a counter",
        )  # fmt: skip


def check_model_target(card: ModelCard, options: Mapping[str, Any]) -> None:
    """Of an exact target: the denoiser is (x + s^2 score) / alpha with the score by autograd, and samples have "
    "its moments."""
    model = opened(card, options)
    target = getattr(model, "target", None)
    if target is None or is_tokens(model):
        return
    for question in questions(model, torch.float64)[1:]:
        level, x = question.level, question.states["x"].requires_grad_()
        try:
            (score,) = torch.autograd.grad(model.log_prob(x, level).sum(), x)
        except (AttributeError, SolverKitError):
            break  # it has no density
        wanted = (x.detach() + float(level) ** 2 * score) / level.alpha
        off = float((model(x.detach(), level) - wanted).abs().max()) / max(1.0, float(wanted.abs().max()))
        at_most(
            off, 1e-6, f"{question.where}: the denoiser is {off:.1e} from (x + s^2 grad log p) / alpha",
            "the density and the denoiser are of two distributions: a covariance that is inverted wrongly, or alpha and s "
            "mixed up",
        )  # fmt: skip
    if hasattr(target, "mean") and hasattr(target, "sample"):
        _moments(target)


def _moments(target: Any) -> None:
    drawn = target.sample(DRAWS, seed=0).double().flatten(1)
    mean, covariance = target.mean.flatten(), target.covariance
    error = (drawn.mean(0) - mean).abs() / (covariance.diagonal() / DRAWS).sqrt().clamp(min=1e-12)
    cause = "samples are of another distribution than the moments describe: a square root, or a transpose of the basis"
    at_most(float(error.max()), 6.0, f"the mean of {DRAWS} samples is {float(error.max()):.1f} standard errors off", cause)
    variance = (drawn.var(0) / covariance.diagonal().clamp(min=1e-12) - 1).abs().max()
    at_most(float(variance), 0.4, f"the variances of {DRAWS} samples are off by up to {float(variance):.0%}", cause)


MODEL_CHECKS = (
    check_model_shape, check_model_finite, check_model_independence, check_model_repeats, check_model_denoises,
    check_model_again, check_model_target,
)  # fmt: skip
