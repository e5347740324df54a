"""The conformance kit must be able to fail: samplers that are wrong on purpose, and the check that catches each."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch

import solverkit as sk
from solverkit.registry.registry import SamplerCard


def r_of(s, t):
    return t * s.alpha / (t.alpha * s)


def exact(x, m, s, t):
    return (t / s) * x + t.alpha * (1 - r_of(s, t)) * m


def forgets_the_step_ratio(model, x, grid, noise):
    previous = None
    for s, t in grid.steps():
        m = model(x, s)
        x = exact(x, m, s, t)
        if previous is not None and t > 0 and math.isfinite(s.lam):
            x = x + t.alpha * (1 - r_of(s, t)) / 2 * (m - previous)
        previous = m
    return x


def heun_off_by_a_percent(model, x, grid, noise):
    for s, t in grid.steps():
        d = (x - model(x, s)) / s
        y = x + (t - s) * d
        if t > 0:
            y = x + (t - s) * (0.49 * d + 0.51 * ((y - model(y, t)) / t))
        x = y
    return x


def doubled_noise(model, x, grid, noise):
    for s, t in grid.steps():
        m, r = model(x, s), r_of(s, t)
        x = (t / s * r) * x + t.alpha * (1 - r * r) * m
        if t > 0:
            x = x + 2 * t * math.sqrt(1 - r * r) * noise(s, t)
    return x


def one_draw_for_all_steps(model, x, grid, noise):
    z = noise(grid[0], grid[-1])
    for s, t in grid.steps():
        m, r = model(x, s), r_of(s, t)
        x = (t / s * r) * x + t.alpha * (1 - r * r) * m
        if t > 0:
            x = x + t * math.sqrt(1 - r * r) * z
    return x


def forgets_the_last_denoising(model, x, grid, noise):
    for s, t in grid.steps():
        m = model(x, s)
        x = exact(x, m, s, t) if t > 0 else x
    return x


def ignores_its_option(model, x, grid, noise, strength: float = 1.0):
    for s, t in grid.steps():
        x = exact(x, model(x, s), s, t)
    return x


def one_choice_is_dead(model, x, grid, noise, mode: Literal["a", "b", "c"] = "a"):
    for s, t in grid.steps():
        x = exact(x, model(x, s), s, t)
        if mode == "b":
            x = 1.01 * x
    return x


@sk.op
def centred(x):
    return x - 0.01 * x.mean(dim=0, keepdim=True)


def batch_statistics(model, x, grid, noise):
    for s, t in grid.steps():
        m = model(x, s)
        x = exact(centred(x), m, s, t)
    return x


@sk.op
def jitter(x):
    return x + 0.01 * torch.randn(x.shape)


def global_randomness(model, x, grid, noise):
    for s, t in grid.steps():
        m = model(x, s)
        x = exact(jitter(x), m, s, t)
    return x


def loses_edits(model, x, grid, noise):
    """Carries a copy of the state that no edit reaches; the evaluated one only feeds a slope."""
    hidden = sk.keep(x)
    for s, t in grid.steps():
        m = model(x, s)
        hidden = sk.keep(exact(hidden, m, s, t))
        x = 1.0 * hidden
    return x


def in_place(model, x, grid, noise):
    for s, t in grid.steps():
        m = model(x, s)
        m.mul_(1.0).add_(1e-3)
        x = exact(x, m, s, t)
    return x


CASES = [
    (forgets_the_step_ratio, {"order": 2}, "order"),
    (heun_off_by_a_percent, {"order": 2}, "order"),
    (doubled_noise, {}, "law"),
    (one_draw_for_all_steps, {}, "law"),
    (forgets_the_last_denoising, {"order": 1}, "ends"),
    (ignores_its_option, {"order": 1}, "options"),
    (one_choice_is_dead, {}, "options"),
    (batch_statistics, {}, "independence"),
    (global_randomness, {}, "input_untouched"),
    (loses_edits, {"order": 1}, "edits"),
    (in_place, {"traceable": False}, "input_untouched"),
]


@pytest.mark.parametrize(("sampler", "fields", "caught_by"), CASES, ids=lambda c: getattr(c, "__name__", None))
def test_a_broken_sampler_is_caught(sampler, fields, caught_by):
    card = SamplerCard(sampler.__name__, sampler, skip=4, **fields)
    failed = [result.name for result in sk.testing.check_sampler(card) if not result.passed]
    assert caught_by in failed, failed


def test_a_right_sampler_passes():
    def euler(model, x, grid, noise):
        for s, t in grid.steps():
            x = exact(x, model(x, s), s, t)
        return x

    results = sk.testing.check_sampler(SamplerCard("euler-again", euler, skip=4, order=1))
    assert [r.name for r in results if not r.passed] == []
    assert len(results) == len(sk.testing.CHECKS)


def test_whatever_a_sampler_raises_is_a_failed_check():
    def broken(model, x, grid, noise):
        raise KeyError("nothing")

    results = sk.testing.check_sampler(SamplerCard("broken", broken, skip=4, order=1))
    assert not results[0].passed and "KeyError" in results[0].detail
