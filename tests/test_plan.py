"""Plans: what is traced, what is refused, and how wrappers drive an inner plan."""

from __future__ import annotations

import copy
import math
import pickle
import threading

import numpy as np
import pytest
import torch

import solverkit as sk
from solverkit.errors import TraceError
from solverkit.problems import mixture
from solverkit.run.noise import SampleNoise, sample_seeds


@sk.op
def langevin(x, denoised, z, s, snr):
    """One Langevin step by the SNR rule, per sample (module level, so that a plan can be pickled)."""
    score = (denoised - x) / s**2

    def norm(v):
        return v.flatten(1).norm(dim=1).view(-1, *[1] * (v.ndim - 1))

    step = 2 * (snr * norm(z) / norm(score)) ** 2
    return x + step * score + (2 * step).sqrt() * z


@sk.op
def total(states, weight):
    return weight * sum(states)


def corrected(inner):
    """Predictor-corrector around any traceable sampler: a Langevin step at each step boundary of its plan."""

    def sampler(model, x, grid, noise, snr=0.1):
        plan = sk.trace(inner, grid)
        x, state = sk.begin(plan, x, noise.draw)
        for level, boundary in zip(plan.levels, plan.boundary):
            if boundary:
                grid.begin_step()
                x = langevin(x, model(x, level), noise(level, level), level, snr)
            x, state = sk.advance(plan, state, x, model(x, level), noise.draw)
        return x

    return sampler


def grid_of(n=6, schedule=None):
    return sk.make_grid("karras", schedule or sk.EDM(), n)


def drive(plan, model, x, seed=0):
    draw = SampleNoise(sample_seeds(seed, len(x)), x.shape[1:], x.dtype)
    x, state = sk.begin(plan, x, draw)
    for level in plan.levels:
        x, state = sk.advance(plan, state, x, model(x, level), draw)
    return x


def test_heun_reads_as_written():
    def heun(model, x, grid, noise):
        for s, t in grid.steps():
            d = (x - model(x, s)) / s
            y = x + (t - s) * d
            if t > 0:
                d = (d + (y - model(y, t)) / t) / 2
                y = x + (t - s) * d
            x = y
        return x

    plan = sk.trace(heun, grid_of(4))
    assert plan.nfe == 7
    assert plan.boundary == (True, False, True, False, True, False, True)
    assert plan.table()[0].update.startswith("x = ")
    target = mixture(dim=3, modes=2)
    x = 80 * torch.randn(2, 3, dtype=torch.float64)
    ours = sk.sample(target, heun, x=x, grid=grid_of(4)).x
    assert torch.equal(ours, sk.sample(target, "heun", x=x, grid=grid_of(4)).x)


@pytest.mark.parametrize("inner", ["euler", "dpmpp-2m", "heun", "unipc", "ddpm", "dpmpp-3s"])
def test_wrapper_pull_equals_plan(inner):
    target, grid = mixture(dim=4, modes=3), grid_of(6)
    x = 80 * torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wrapper = corrected(inner)
    plan = sk.trace(wrapper, grid)
    base = sk.trace(inner, grid)
    assert plan.nfe == base.nfe + sum(base.boundary)
    assert sum(plan.boundary) == sum(base.boundary)
    pulled = sk.sample(target, wrapper, x=x, grid=grid).x
    pushed = drive(pickle.loads(pickle.dumps(plan)), target, x)
    assert (pulled - pushed).abs().max() <= 4e-12


def test_op_takes_lists_and_floats():
    def sampler(model, x, grid, noise):
        d = model(x, grid[0])
        return total([x, d, 0.5 * x], weight=2.0)

    target, grid = mixture(dim=3, modes=2), grid_of(2)
    x = torch.randn(2, 3, dtype=torch.float64)
    assert torch.allclose(drive(sk.trace(sampler, grid), target, x), 2 * (1.5 * x + target(x, grid[0])))


def refused(body, words):
    def sampler(model, x, grid, noise):
        d = model(x, grid[0])
        return body(x, d, grid)

    with pytest.raises(TraceError, match=words):
        sk.trace(sampler, grid_of(2))


def add_in_place(x, d, grid):
    x += d
    return x


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (add_in_place, "write x = x"),
        (lambda x, d, g: x if x > d else d, "pull-only"),
        (lambda x, d, g: x if x else d, "pull-only"),
        (lambda x, d, g: x * d, "@sk.op"),
        (lambda x, d, g: x * torch.ones(3), "@sk.op"),
        (lambda x, d, g: torch.ones(3) * x, "@sk.op"),
        (lambda x, d, g: torch.tanh(x), "@sk.op"),
        (lambda x, d, g: np.tanh(x), "@sk.op|numpy"),
        (lambda x, d, g: np.ones(3) * x, "@sk.op"),
        (lambda x, d, g: x**2, "@sk.op"),
        (lambda x, d, g: x * x.shape[0], "shape"),
        (lambda x, d, g: x + 1.0, "only states"),
        (lambda x, d, g: x @ d, "@sk.op"),
        (lambda x, d, g: x * math.nan, "nan"),
        (lambda x, d, g: 3.0, "final state"),
    ],
)
def test_refusals(body, words):
    if words == "@sk.op|numpy":
        with pytest.raises((TraceError, TypeError)):
            sk.trace(lambda model, x, grid, noise: np.tanh(model(x, grid[0])), grid_of(2))
        return
    refused(body, words)


def test_numpy_floats_are_numbers():
    plan = sk.trace(lambda m, x, g, n: np.float32(0.5) * m(x, g[0]) + np.float64(0.5) * x, grid_of(2))
    assert sorted(plan.segments[-1].x) == [(0, 0.5), (1, 0.5)]


def test_temporary_at_a_boundary_is_caught():
    def sampler(model, x, grid, noise):
        for s, t in grid.steps():
            d = model(1.0 * x, s)
            x = x + (t - s) * ((x - d) / s)
        return x

    with pytest.raises(TraceError, match="temporary"):
        sk.trace(sampler, grid_of(3))


def test_a_state_used_before_the_call_is_caught():
    with pytest.raises(TraceError, match="used x before the call"):
        sk.trace(lambda m, x, g, n: 0.5 * x + 0.5 * m(x, g[0]), grid_of(2))


def test_sampler_that_never_asks():
    with pytest.raises(TraceError, match="never called"):
        sk.trace(lambda model, x, grid, noise: x, grid_of(2))


def test_pull_only_has_no_plan():
    with pytest.raises(TraceError, match="pull-only"):
        sk.trace("dpm-solver-12", grid_of(2))


def test_plan_is_immutable_and_shared_by_copies():
    plan = sk.trace("unipc", grid_of(8))
    assert copy.deepcopy(plan) is plan and copy.copy(plan) is plan
    assert copy.deepcopy({"plan": plan})["plan"] is plan
    with pytest.raises(AttributeError):
        plan.levels = ()
    assert pickle.loads(pickle.dumps(plan)) == plan


def test_history_depth_is_read_off_the_plan():
    assert sk.trace("euler", grid_of(8)).depth == 0
    assert sk.trace("dpmpp-2m", grid_of(8)).depth == 1
    assert sk.trace("dpmpp-3m", grid_of(30)).depth == 2
    widest = max(len(segment.x) for segment in sk.trace("unipc", grid_of(12), order=2).segments)
    assert widest <= 4


def test_finished_plan_and_missing_draw():
    plan, target = sk.trace("ddpm", grid_of(2)), mixture(dim=3, modes=2)
    x, state = sk.begin(plan, torch.randn(1, 3))
    with pytest.raises(TraceError, match="draw"):
        sk.advance(plan, state, x, target(x, plan.levels[0]))
    euler = sk.trace("euler", grid_of(1))
    x, state = sk.begin(euler, x)
    x, state = sk.advance(euler, state, x, x)
    with pytest.raises(TraceError, match="finished"):
        sk.advance(euler, state, x, x)


def test_rewinding_leaves_no_trace():
    plan, target = sk.trace("unipc", grid_of(8)), mixture(dim=3, modes=2)
    start = 80 * torch.randn(2, 3, dtype=torch.float64)
    x, state = sk.begin(plan, start)
    for j, level in enumerate(plan.levels):
        if j == 4:
            sk.advance(plan, state, x + 1, 0 * x)
        x, state = sk.advance(plan, state, x, target(x, level))
    assert torch.equal(x, drive(plan, target, start))


def test_nothing_aliases():
    plan = sk.trace(lambda m, x, g, n: 0 * m(x, g[0]) + x, grid_of(2))
    x = torch.ones(2, 3)
    y, state = sk.begin(plan, x)
    assert y.data_ptr() != x.data_ptr()
    z, _ = sk.advance(plan, state, y, torch.zeros(2, 3))
    assert z.data_ptr() != y.data_ptr()


def test_threads_share_a_plan():
    plan, target = sk.trace("dpmpp-2m-sde", grid_of(10)), mixture(dim=4, modes=3)
    starts = [80 * torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    expected = [drive(plan, target, x, seed=i) for i, x in enumerate(starts)]
    out = [None] * 8

    def work(i):
        for _ in range(5):
            out[i] = drive(plan, target, starts[i], seed=i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(torch.equal(a, b) for a, b in zip(out, expected))


def test_a_draw_used_twice_is_drawn_once_and_two_draws_differ():
    def sampler(model, x, grid, noise):
        d = model(x, grid[0])
        a, b = noise(1.0, 0.5), noise(1.0, 0.5)
        return 0 * x + 0 * d + a + a - b

    plan = sk.trace(sampler, grid_of(2))
    assert plan.draws == 2
    out = drive(plan, lambda x, s: x, torch.zeros(1, 3, dtype=torch.float64))
    draw = SampleNoise([0], (3,), torch.float64)
    assert torch.allclose(out, 2 * draw(0, 1.0, 0.5) - draw(1, 1.0, 0.5))


def test_unused_work_is_dropped():
    def sampler(model, x, grid, noise):
        d = model(x, grid[0])
        noise(1.0, 0.5)
        return x - d

    assert sk.trace(sampler, grid_of(2)).draws == 0
