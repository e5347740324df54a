"""Decoders beside diffusers' discrete schedulers, step by step on the same uniforms.

    python benchmarks/tokens_parity.py

diffusers draws with torch.multinomial and torch.randint from a generator. Here both are replaced for the length of a step
by the inverse of the distribution function at this project's uniforms, so that equal formulas give equal tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import diffusers
import torch
from solverkit_plugins.tokens.thresholds import block_refinement, entropy_bounded
from solverkit_plugins.tokens.uniform import posterior_step, select, sweep
from torch import Tensor

import solverkit as sk
from solverkit.run.noise import sample_seeds
from solverkit.tokens import TokenNoise
from solverkit.tokens.asked import AskedTokens
from solverkit.tokens.noise import HAPPENS, TOKEN, inverted
from solverkit.tokens.targets import markov

SEQUENCES, STEPS = 64, 16


@contextmanager
def same_uniforms(noise: TokenNoise, k: int) -> Iterator[None]:
    """torch.multinomial and torch.randint at the uniforms of step k."""

    def multinomial(p: Tensor, num_samples: int, generator: Any = None) -> Tensor:
        if p.shape[-1] == 3 and len(p) == SEQUENCES * noise.length:  # routes: two events
            first, second = (noise.uniform(HAPPENS, k).flatten() for _ in range(2))
            stays = second < p[:, 1].double() / (p[:, 1] + p[:, 2]).double().clamp(min=1e-300)
            return torch.where(first < p[:, 0].double(), 0, torch.where(stays, 1, 2))[:, None]
        u = noise.uniform(TOKEN, k)
        u = u.flatten() if len(p) == u.numel() else u[noise.chosen]  # type: ignore[attr-defined]
        return inverted(p.double().log(), u)[:, None]

    def randint(low: int, high: int, size: Any, **_: Any) -> Tensor:
        return inverted(torch.zeros(SEQUENCES * noise.length, high), noise.uniform(TOKEN, k).flatten()).view(size)

    with mock.patch("torch.multinomial", multinomial), mock.patch("torch.randint", randint):
        yield


def noises(length: int) -> tuple[TokenNoise, TokenNoise]:
    seeds = sample_seeds(0, SEQUENCES)
    return TokenNoise(seeds, length), TokenNoise(seeds, length)


def discrete_ddim() -> None:
    model = markov(12, 5, "uniform")
    names = {"random": "random", "max": "lowest_maxprob", "margin": "lowest_log_margin", "current": "lowest_current_prob"}
    grid = sk.make_grid("uniform", model.process, STEPS)
    for selection, theirs in names.items():
        scheduler = diffusers.DiscreteDDIMScheduler(corrector_selection=theirs, corrector_k=1)
        scheduler.set_timesteps(STEPS)
        mine, other = noises(12)
        x = torch.randint(5, (SEQUENCES, 12), generator=torch.Generator().manual_seed(0))
        asked = AskedTokens(model, x, torch.ones_like(x, dtype=torch.bool))
        steps, sweeps = 0, 0
        for k, (s, t) in enumerate(grid.steps()):
            y = posterior_step(asked, x, asked(x, s), s, t, k, mine)
            with same_uniforms(other, k):
                z = scheduler.step(model(x, s), k, x, temperature=1.0).prev_sample
            steps += int((y != z).sum())
            if t > 0:
                swept = sweep(asked, y, t, 1, selection, 1.0, k, mine)

                def positions(sample: Tensor, log_p: Tensor, generator: Any) -> Tensor:
                    every = torch.ones_like(sample, dtype=torch.bool)
                    other.chosen = select(log_p, sample, every, selection, 1.0, k, other)  # type: ignore # noqa: B023
                    return other.chosen.nonzero()[:, 1:]  # type: ignore # noqa: B023

                with same_uniforms(other, k), mock.patch.object(scheduler, "_select_positions", positions):
                    z = scheduler.step_correct(model(y, t), k, y).prev_sample
                sweeps += int((swept != z).sum())
                y = swept
            x = y
        total = SEQUENCES * 12 * STEPS
        print(f"DiscreteDDIM, {STEPS} steps, {SEQUENCES} x 12 tokens, corrector {theirs}: {steps} of {total} tokens differ "
              f"after the predictor, {sweeps} after the corrector")  # fmt: skip


def frozen(length: int, vocabulary: int, sharp: float) -> tuple[sk.TokenModel, Callable[[Tensor], Tensor]]:
    """A random network: logits that depend on the neighbours and on the place (so that no two are tied)."""
    generator = torch.Generator().manual_seed(1)
    table = sharp * torch.randn(3, vocabulary + 1, vocabulary, generator=generator, dtype=torch.float64)
    place = sharp * torch.randn(length, vocabulary, generator=generator, dtype=torch.float64)

    def net(x: Tensor) -> Tensor:
        return place + table[0][x] + table[1][x.roll(1, 1)] + table[2][x.roll(-1, 1)]

    return sk.wrap_tokens(net, mask=vocabulary, vocabulary=vocabulary, length=length), net


def entropy_bound() -> None:
    model, net = frozen(32, 8, 3.0)
    x = torch.randint(9, (SEQUENCES, 32), generator=torch.Generator().manual_seed(2))
    x[:, ::2] = 8
    for gamma in (0.05, 0.5, 2.0):
        mine, other = noises(32)
        free = x == 8
        asked = AskedTokens(model, x, free)
        grid = sk.Grid((model.process.at(1.0), model.process.at(0.5)), model.process)
        y = entropy_bounded(asked, x, grid, mine, gamma=gamma)
        scheduler = diffusers.EntropyBoundScheduler(t_max=1.0, t_min=1.0, entropy_bound=gamma)
        scheduler.set_timesteps(8)
        logits = net(x)
        logits[~free] += 1e4 * torch.nn.functional.one_hot(x[~free].clamp(max=7), 8)  # entropy 0 where a token is known
        with same_uniforms(other, 0):
            out = scheduler.step(logits, 0, x)
        accepted = out.accepted_index & free
        masked = int(((y != 8) & free).sum())
        differ = int((accepted != ((y != 8) & free)).sum()) + int((out.sampled_tokens != y)[accepted].sum())
        print(f"EntropyBound, gamma {gamma}: {masked} of {int(free.sum())} masked positions accepted, {differ} differ")


def refinement() -> None:
    model, net = frozen(32, 8, 3.0)
    for confidence in (0.6, 0.95):
        mine, other = noises(32)
        scheduler = diffusers.BlockRefinementScheduler(block_length=32, threshold=confidence)
        scheduler.set_timesteps(8)
        x = torch.full((SEQUENCES, 32), 8)
        asked = AskedTokens(model, x, torch.ones_like(x, dtype=torch.bool))
        grid, differ, steps = sk.make_grid("uniform", model.process, 8), 0, 0
        for k in range(8):
            piece = sk.Grid(grid.levels[k : k + 2], grid.schedule, before=k)
            y = block_refinement(asked, x, piece, mine, confidence=confidence)
            if torch.equal(y, x):
                break
            with same_uniforms(other, k):
                z = scheduler.step(net(x), k, x, mask_token_id=8, temperature=1.0).prev_sample
            differ, steps, x = differ + int((y != z).sum()), steps + 1, y
        print(f"BlockRefinement, threshold {confidence}, {SEQUENCES} x 32 tokens, {steps} steps: {differ} tokens differ")


def main() -> None:
    torch.set_num_threads(1)
    print(f"diffusers {diffusers.__version__}")
    discrete_ddim()
    entropy_bound()
    refinement()


if __name__ == "__main__":
    main()
