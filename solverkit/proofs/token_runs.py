"""What every decoder must do in a run: keep the prompt, fill the rest, count honestly, draw by key, leave no trace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..grid.named import make_grid
from ..model.counting import counting
from ..registry.registry import DecoderCard
from ..run.noise import sample_seeds
from ..run.sampling import sample
from ..tokens.asked import AskedTokens
from ..tokens.noise import TokenNoise
from ..tokens.targets import MarkovChain, exact_model, markov
from .finding import at_most, holds

LENGTH, SYMBOLS = 9, 3
PROMPT = "tokens are drawn at every position: draw where x == model.mask (or model.free) alone"
CACHE = "the decoder does not ask in order, or changes the answer that it was given"
BATCH = "a number is taken over the batch (the largest, the mean), or one sequence's draw is used for all"
AROUND = "the decoder asks model.model or a network of its own: ask model(x, s)"
IN_PLACE = "an operation in place: x[where] = ...; write torch.where(where, new, x)"
GLOBAL = "torch.rand, multinomial or np.random in the decoder: draws come from `noise` alone"


def chain(card: DecoderCard, **fields: Any) -> Any:
    """A short chain of the decoder's kind of noise."""
    target = markov(LENGTH, SYMBOLS, card.process).target  # type: ignore[attr-defined,arg-type]
    return exact_model(MarkovChain(target.initial, target.transition, LENGTH, card.process), **fields)  # type: ignore[arg-type]


def drawn(card: DecoderCard, model: Any, options: Mapping[str, Any], steps: int = LENGTH, n: int = 5, **given: Any) -> Any:
    """A run on a chain."""
    return sample(model, card, steps=steps, num_samples=n, **{"seed": 3, **given}, **options)


def check_token_prompt(card: DecoderCard, options: Mapping[str, Any]) -> None:
    """Given tokens stay, at the start and in the middle; everything else is filled with real ids at noise level 0."""
    model = chain(card)
    prompt = torch.tensor([2, -1, -1, 0, -1, -1, -1, -1, 1])
    for steps in (5, 9, 20):
        for one in (model, model.with_prompt(prompt)):
            x = drawn(card, one, options, steps).x
            holds(
                bool(((x >= 0) & (x < SYMBOLS)).all()),
                f"{steps} steps left masks, or made ids that the model does not have",
                "the last step (t = 0) must reveal all that is masked",
            )  # fmt: skip
        kept = torch.equal(x[:, prompt >= 0], prompt[prompt >= 0].expand(len(x), -1))
        holds(kept, f"{steps} steps changed the prompt", PROMPT)
        whole = sample(model.with_prompt(torch.tensor([0, 1, 2] * 3)), card, steps=steps, num_samples=2, **options)
        holds(whole.x.tolist() == [[0, 1, 2] * 3] * 2, "a sequence that is given whole was changed", PROMPT)


def check_token_cache(card: DecoderCard, options: Mapping[str, Any]) -> None:
    """A cached run is the uncached one bit for bit, and counts fewer rows or as many."""
    for steps in (5, 24):
        cached, plain = (drawn(card, chain(card, cache=cache), options, steps) for cache in (True, False))
        holds(torch.equal(cached.x, plain.x), f"{steps} steps: the cache changes the samples", CACHE)
        same = torch.equal(cached.reports["revealed"], plain.reports["revealed"])
        holds(same, "the cache changes when tokens are revealed", CACHE)
        text = f"the cached run evaluated {cached.nfe:g} rows a sequence, the plain one {plain.nfe:g}"
        at_most(cached.nfe, plain.nfe, text, CACHE)


def check_token_independence(card: DecoderCard, options: Mapping[str, Any]) -> None:
    """A sample is the same alone, in a batch, and in batches of another size; its draws are no one else's."""
    if options.get("released") and "mean of the batch" in (card.fn.__doc__ or ""):
        return
    model = chain(card)
    together = drawn(card, model, options)
    for i, seed in enumerate(sample_seeds(3, 5)):
        alone = drawn(card, model, options, n=1, seed=[seed])
        holds(torch.equal(alone.x[0], together.x[i]), f"sample {i} depends on its batch", BATCH)
        same = torch.equal(alone.reports["revealed"][0], together.reports["revealed"][i])
        holds(same, f"sample {i}: revealed by its batch", BATCH)
    holds(torch.equal(drawn(card, model, options, batch_size=2).x, together.x), "samples depend on batch_size", BATCH)
    acts = not torch.equal(drawn(card, model, options, seed=4).x, together.x)
    holds(acts, "another seed draws the same samples", "draws come from elsewhere than `noise`")


def check_token_nfe(card: DecoderCard, options: Mapping[str, Any]) -> None:
    """Counted rows = what the network saw; a budget is a ceiling; a network that is told a time is never answered from
    memory."""
    model = chain(card)
    for nfe in (LENGTH, 2 * LENGTH):
        with counting() as count:
            result = sample(model, card, nfe=nfe, num_samples=4, **options)
        text = f"counted {result.nfe:g} rows a sequence, the network saw {count.rows / 4:g}"
        holds(result.nfe == count.rows / 4, text, AROUND)
        text = f"asked for {nfe} evaluations, spent {result.nfe:g}"
        holds(result.nfe >= 1, text, "the decoder never asks its model")
        at_most(result.nfe, nfe, text, "a step asks more than once: `evaluations` of the card says how often")
        asked = result.reports["rows asked"] >= result.nfe
        holds(asked, "more rows were evaluated than asked for: around the model", AROUND)
        revealed = model.mask is None or bool((result.reports["revealed"] >= 0).all())
        holds(revealed, "a free token was revealed by no evaluation", "the decoder fills tokens without asking its model")


def check_token_input(card: DecoderCard, options: Mapping[str, Any]) -> None:
    """The start, the states that the network saw, its answers and global randomness are left as they were."""
    model = chain(card)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    start = torch.full((3, LENGTH), model.mask) if model.mask is not None else torch.zeros(3, LENGTH, dtype=torch.long)

    class Watched(AskedTokens):
        def __call__(self, x: torch.Tensor, level: Any, complete: bool = False) -> torch.Tensor:
            answer = super().__call__(x, level, complete)
            seen.extend([(x, x.clone()), (answer, answer.clone())])
            return answer

    before, torch_state, numpy_state = start.clone(), torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index,union-attr]
    asked = Watched(model, start, torch.ones_like(start, dtype=torch.bool))
    noise = TokenNoise(sample_seeds(0, 3), LENGTH)
    card.fn(asked, start, make_grid("uniform", model.process, LENGTH), noise, **options)
    holds(torch.equal(start, before), "the decoder changed x in place", IN_PLACE)
    same = all(torch.equal(a, b) for a, b in seen)
    holds(same, "the decoder changed an evaluated state or an answer in place", IN_PLACE)
    holds(torch.equal(torch.get_rng_state(), torch_state), "the decoder used or set torch's global generator", GLOBAL)
    numpy_same = bool((np.random.get_state()[1] == numpy_state).all())  # type: ignore[index]
    holds(numpy_same, "the decoder used numpy's global generator", GLOBAL)


def check_token_options(card: DecoderCard, options: Mapping[str, Any]) -> None:
    """A variant's options act: its samples are not those of the defaults, on a chain of short or of long memory."""
    if options:
        acts = any(_acts(card, options, power) for power in (3, 12))
        holds(acts, f"{dict(options)} changes nothing", "an option that is declared and never read")


def _acts(card: DecoderCard, options: Mapping[str, Any], power: int) -> bool:
    target = markov(24, 5, card.process).target  # type: ignore[attr-defined,arg-type]
    sharp = target.transition**power / (target.transition**power).sum(dim=1, keepdim=True)
    masked = card.process == "absorbing"
    model = exact_model(MarkovChain(target.initial, sharp, 24, card.process, own=not masked))  # type: ignore[arg-type]
    base, other = (sample(model, card, steps=12, num_samples=16, **given).x for given in ({}, options))  # type: ignore[arg-type]
    return not torch.equal(base, other)
