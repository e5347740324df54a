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

LENGTH, SYMBOLS = 9, 3


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
            assert bool(((x >= 0) & (x < SYMBOLS)).all()), (
                f"{steps} steps left masks, or made ids that the model does not have"
            )
        assert torch.equal(x[:, prompt >= 0], prompt[prompt >= 0].expand(len(x), -1)), f"{steps} steps changed the prompt"
        whole = sample(model.with_prompt(torch.tensor([0, 1, 2] * 3)), card, steps=steps, num_samples=2, **options)
        assert whole.x.tolist() == [[0, 1, 2] * 3] * 2, "a sequence that is given whole was changed"


def check_token_cache(card: DecoderCard, options: Mapping[str, Any]) -> None:
    """A cached run is the uncached one bit for bit, and counts fewer rows or as many."""
    for steps in (5, 24):
        cached, plain = (drawn(card, chain(card, cache=cache), options, steps) for cache in (True, False))
        assert torch.equal(cached.x, plain.x), f"{steps} steps: the cache changes the samples"
        assert torch.equal(cached.reports["revealed"], plain.reports["revealed"]), (
            "the cache changes when tokens are revealed"
        )
        assert cached.nfe <= plain.nfe, (
            f"the cached run evaluated {cached.nfe:g} rows a sequence, the plain one {plain.nfe:g}"
        )


def check_token_independence(card: DecoderCard, options: Mapping[str, Any]) -> None:
    """A sample is the same alone, in a batch, and in batches of another size; its draws are no one else's."""
    if options.get("released") and "mean of the batch" in (card.fn.__doc__ or ""):
        return
    model = chain(card)
    together = drawn(card, model, options)
    for i, seed in enumerate(sample_seeds(3, 5)):
        alone = drawn(card, model, options, n=1, seed=[seed])
        assert torch.equal(alone.x[0], together.x[i]), f"sample {i} depends on its batch"
        assert torch.equal(alone.reports["revealed"][0], together.reports["revealed"][i]), (
            f"sample {i}: revealed by its batch"
        )
    assert torch.equal(drawn(card, model, options, batch_size=2).x, together.x), "samples depend on batch_size"
    assert not torch.equal(drawn(card, model, options, seed=4).x, together.x), "another seed draws the same samples"


def check_token_nfe(card: DecoderCard, options: Mapping[str, Any]) -> None:
    """Counted rows = what the network saw; a budget is a ceiling; a network that is told a time is never answered from
    memory."""
    model = chain(card)
    for nfe in (LENGTH, 2 * LENGTH):
        with counting() as count:
            result = sample(model, card, nfe=nfe, num_samples=4, **options)
        assert result.nfe == count.rows / 4, f"counted {result.nfe:g} rows a sequence, the network saw {count.rows / 4:g}"
        assert 1 <= result.nfe <= nfe, f"asked for {nfe} evaluations, spent {result.nfe:g}"
        assert result.reports["rows asked"] >= result.nfe, "more rows were evaluated than asked for: around the model"
        assert torch.equal(result.reports["revealed"] >= 0, torch.ones_like(result.x, dtype=torch.bool) if model.mask is
        not None
                           else result.reports["revealed"] >= 0), "a free token was revealed by no evaluation"  # fmt: skip


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
    assert torch.equal(start, before), "the decoder changed x in place"
    assert all(torch.equal(a, b) for a, b in seen), "the decoder changed an evaluated state or an answer in place"
    assert torch.equal(torch.get_rng_state(), torch_state), "the decoder used or set torch's global generator"
    assert (np.random.get_state()[1] == numpy_state).all(), "the decoder used numpy's global generator"  # type: ignore[index]


def check_token_options(card: DecoderCard, options: Mapping[str, Any]) -> None:
    """A variant's options act: its samples are not those of the defaults, on a chain of short or of long memory."""
    if options:
        assert any(_acts(card, options, power) for power in (3, 12)), f"{dict(options)} changes nothing"


def _acts(card: DecoderCard, options: Mapping[str, Any], power: int) -> bool:
    target = markov(24, 5, card.process).target  # type: ignore[attr-defined,arg-type]
    sharp = target.transition**power / (target.transition**power).sum(dim=1, keepdim=True)
    masked = card.process == "absorbing"
    model = exact_model(MarkovChain(target.initial, sharp, 24, card.process, own=not masked))  # type: ignore[arg-type]
    base, other = (sample(model, card, steps=12, num_samples=16, **given).x for given in ({}, options))  # type: ignore[arg-type]
    return not torch.equal(base, other)
