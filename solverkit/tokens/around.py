"""Token models around token models: temperature, top-k, top-p, classifier-free guidance, a planner.

Each of them works with every decoder, and none is an option of one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import OptionError


class Around:
    """answer(model, x, level) in the place of a model's own answer; everything else is the model's.

    Args:
        model: A token model.
        answer: (model, x, level) -> log-probabilities (B, L, V).
    """

    def __init__(self, model: Any, answer: Callable[[Any, Tensor, Any], Tensor]) -> None:
        if getattr(model, "kind", None) != "tokens":
            raise OptionError(f"expected a token model (sk.wrap_tokens, sk.load), got a {type(model).__name__}.")
        self.model, self.answer = model, answer

    def __getattr__(self, name: str) -> Any:
        if name in ("model", "answer"):
            raise AttributeError(name)
        return getattr(self.model, name)

    def __call__(self, x: Tensor, level: Any) -> Tensor:
        return self.answer(self.model, x, level)

    def with_prompt(self, prompt: Any, length: int | None = None) -> Around:
        inside = type(self).__new__(type(self))
        vars(inside).update(vars(self), model=self.model.with_prompt(prompt, length))
        return inside

    def sampled_by(self, sampler: Any, nfe: int | None, steps: int | None, **given: Any) -> Any:
        from .sampling import sample_tokens

        return sample_tokens(self, sampler, nfe, steps, **given)

    def bounded_by(self, x: Tensor, method: str, draws: int | None, seed: Any, batch_size: int | None) -> Any:
        from .likelihood import token_bound

        return token_bound(self, x, method, draws, seed, batch_size)


def temperature(model: Any, value: float) -> Around:
    """p^(1 / value), normalised; 0 is the likeliest token alone (the first of equal ones)."""
    if not 0 <= value < math.inf:
        raise OptionError(f"a temperature must be a number >= 0, got {value!r}.")

    def answer(inner: Any, x: Tensor, level: Any) -> Tensor:
        log_p = inner(x, level)
        if value > 0:
            return (log_p / value).log_softmax(dim=-1)  # type: ignore[no-any-return]
        best = log_p.argmax(dim=-1, keepdim=True)
        return torch.full_like(log_p, -math.inf).scatter_(-1, best, 0.0)

    return Around(model, answer)


def top_k(model: Any, k: int) -> Around:
    """The k likeliest tokens of each position (the first of equal ones), normalised."""
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise OptionError(f"top_k needs a whole number k >= 1, got {k!r}.")

    def answer(inner: Any, x: Tensor, level: Any) -> Tensor:
        log_p = inner(x, level)
        kept = log_p.argsort(dim=-1, descending=True, stable=True)[..., :k]
        rest = torch.full_like(log_p, -math.inf)
        return rest.scatter_(-1, kept, log_p.gather(-1, kept)).log_softmax(dim=-1)

    return Around(model, answer)


def top_p(model: Any, p: float) -> Around:
    """The fewest likeliest tokens that together reach p (Holtzman et al. 2020), normalised."""
    if not 0 < p <= 1:
        raise OptionError(f"top_p needs 0 < p <= 1, got {p!r}.")

    def answer(inner: Any, x: Tensor, level: Any) -> Tensor:
        log_p = inner(x, level)
        ranked, ids = log_p.sort(dim=-1, descending=True, stable=True)
        before = ranked.double().exp().cumsum(dim=-1) - ranked.double().exp()
        ranked = torch.where(before < p, ranked, -math.inf)
        return torch.empty_like(log_p).scatter_(-1, ids, ranked).log_softmax(dim=-1)

    return Around(model, answer)


def classifier_free(model: Any, scale: float) -> Around:
    """u + (1 + scale) (c - u) in log-probabilities, u with the prompt masked (Nie et al. 2025, LLaDA). Two rows each."""
    if model.process.noise != "absorbing":
        raise OptionError("classifier_free masks the prompt, and a uniform process has no mask: use an absorbing one.")
    if model.prompt is None:
        raise OptionError("classifier_free guides towards a prompt: give one first, model.with_prompt(...).")

    def answer(inner: Any, x: Tensor, level: Any) -> Tensor:
        given = (inner.prompt >= 0).to(x.device).expand_as(x)
        both = inner(torch.cat([x, torch.where(given, inner.mask, x)]), level)
        c, u = both.chunk(2)
        mixed = u + (1 + scale) * (c - u)
        return torch.where(c == -math.inf, c, mixed).log_softmax(dim=-1)

    return Around(model, answer)


def planned(model: Any, planner: Any) -> Around:
    """A model whose decoders choose positions by the log-probabilities of another one (P2's planner, Peng et al. 2025).

    Only a decoder that asks for a plan (`p2`) uses it, one evaluation of the planner more a step.
    """
    inside = Around(model, lambda inner, x, level: inner(x, level))
    if getattr(planner, "vocabulary", None) != inside.vocabulary:
        raise OptionError(f"the planner must be a token model of the same vocabulary, {inside.vocabulary}.")
    vars(inside)["planner"] = planner
    return inside
