"""The proofs of every registered decoder, and of a wrong decoder of each kind that they catch."""

from __future__ import annotations

import pytest
import torch

import solverkit as sk
from solverkit.proofs import token_law, token_runs
from solverkit.registry.registry import DecoderCard
from solverkit.testing import check_sampler, parametrize_with_checks
from solverkit.tokens import numbered, top


@parametrize_with_checks(sk.decoders().values())
def test_proofs(card, options, check):
    check(card, options)


def plain(model, x, grid, noise):
    for k, s, t in numbered(grid):
        revealed = noise.happens((s - t) / s, k, x == model.mask)
        x = torch.where(revealed, noise.token(model(x, s), k, revealed), x)
    return x


def too_slow(model, x, grid, noise):
    for k, s, t in numbered(grid):
        revealed = noise.happens(1.0 if t == 0 else 0.5 * (s - t) / s, k, x == model.mask)
        x = torch.where(revealed, noise.token(model(x, s), k, revealed), x)
    return x


def tempered(model, x, grid, noise):
    for k, s, t in numbered(grid):
        revealed = noise.happens((s - t) / s, k, x == model.mask)
        x = torch.where(revealed, noise.token(1.1 * model(x, s), k, revealed), x)
    return x


def likely_first(model, x, grid, noise):
    for k, s, _ in numbered(grid):
        masked, log_c = x == model.mask, model(x, s)
        drawn = noise.token(log_c, k, masked)
        kept = top(log_c.gather(-1, drawn[..., None])[..., 0], masked, 1 if k < grid.run_steps - 1 else 99)
        x = torch.where(kept, drawn, x)
    return x


def remembering(model, x, grid, noise):
    log_c = model(x, grid[0])
    for k, s, t in numbered(grid):
        revealed = noise.happens((s - t) / s, k, x == model.mask)
        x = torch.where(revealed, noise.token(log_c, k, revealed), x)
    return x


def over_the_prompt(model, x, grid, noise):
    return noise.token(0 * model(x, grid[0]).nan_to_num(), 0, torch.ones_like(x, dtype=torch.bool))


def unfinished(model, x, grid, noise):
    revealed = noise.happens(0.5, 0, x == model.mask)
    return torch.where(revealed, noise.token(model(x, grid[0]), 0, revealed), x)


def torch_random(model, x, grid, noise):
    out = plain(model, x, grid, noise)
    torch.rand(1)
    return out


def in_place(model, x, grid, noise):
    model(x, grid[0])
    x[x == model.mask] = 0
    return x


def first_seed(model, x, grid, noise):
    out = plain(model, x, grid, noise)
    return torch.where(model.free, out[:1].expand_as(out), out)


def greedy_budget(model, x, grid, noise):
    for k, s, t in numbered(grid):
        log_c = model(x, s)
        revealed = noise.happens((s - t) / s, k, x == model.mask)
        x = torch.where(revealed, noise.token(log_c, k, revealed), x)
        model.model(x.clone(), s)
    return x


def idle_option(model, x, grid, noise, strength: float = 1.0):
    return plain(model, x, grid, noise)


WRONG = [
    (too_slow, {"exact": "one-token"}, token_law.check_token_law),
    (plain, {"order": 2}, token_law.check_token_law),
    (plain, {"exact": "one-token"}, token_law.check_token_law),
    (tempered, {}, token_law.check_token_product),
    (tempered, {"order": 1}, token_law.check_token_law),
    (likely_first, {}, token_law.check_token_product),
    (likely_first, {"exact": "one-token"}, token_law.check_token_law),
    (plain, {"biased": True}, token_law.check_token_product),
    (remembering, {"order": 1}, token_law.check_token_law),
    (over_the_prompt, {}, token_runs.check_token_prompt),
    (unfinished, {}, token_runs.check_token_prompt),
    (torch_random, {}, token_runs.check_token_input),
    (in_place, {}, token_runs.check_token_input),
    (first_seed, {}, token_runs.check_token_independence),
    (greedy_budget, {}, token_runs.check_token_nfe),
    (idle_option, {}, token_runs.check_token_options),
]


@pytest.mark.parametrize(("fn", "fields", "check"), WRONG, ids=lambda v: getattr(v, "__name__", ""))
def test_a_wrong_decoder_is_caught(fn, fields, check):
    card = DecoderCard(fn.__name__, fn, skip=4, **fields)
    options = {"strength": 2.0} if fn is idle_option else {}
    with pytest.raises((sk.testing.CheckError, sk.errors.OptionError)) as found:
        check(card, options)
    assert getattr(found.value, "cause", "refused")


def test_a_right_decoder_passes_by_name_and_by_card():
    assert all(result.passed for result in check_sampler("ancestral"))
    assert all(result.passed for result in check_sampler(sk.decoders()["euler"]))


def test_a_cache_that_is_wrong_is_caught(monkeypatch):
    from solverkit.tokens.asked import AskedTokens

    def stale(self, x, level):
        return (
            torch.zeros(len(x), dtype=torch.bool)
            if self._seen is not None and self.model.cache
            else torch.ones(len(x), dtype=torch.bool)
        )

    monkeypatch.setattr(AskedTokens, "_changed", stale)
    with pytest.raises(AssertionError, match="cache"):
        token_runs.check_token_cache(DecoderCard("plain", plain, skip=4), {})
