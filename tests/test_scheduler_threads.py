"""Loops in pools of threads are right; two loops on one scheduler are refused or right, never silently wrong."""

from __future__ import annotations

import asyncio
import copy
import itertools
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from scheduler_loop import flow, make, network, noise, run

from solverkit.errors import SolverKitError

SAMPLERS = ["unipc", "dpmpp-2m", "euler", "heun", "euler-ancestral", "rk4"]


async def asynchronous(scheduler, x, steps=6):
    """A server's loop: each call wherever a thread is free."""
    generator = torch.Generator().manual_seed(0)
    await asyncio.to_thread(scheduler.set_timesteps, steps)
    for t in scheduler.timesteps:
        output = network(await asyncio.to_thread(scheduler.scale_model_input, x, t), t)
        x = (await asyncio.to_thread(scheduler.step, output, t, x, generator=generator)).prev_sample
    return x


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_asyncio_to_thread(sampler):
    assert torch.equal(asyncio.run(asynchronous(make(sampler), noise())), run(make(sampler)))


def test_many_asynchronous_loops_with_a_scheduler_each():
    async def together():
        return await asyncio.gather(*(asynchronous(make("unipc"), noise(seed=i)) for i in range(6)))

    for i, end in enumerate(asyncio.run(together())):
        assert torch.equal(end, run(make("unipc"), x=noise(seed=i)))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_pool_of_four_with_a_copy_each(sampler):
    first = make(sampler)
    first.set_timesteps(6)
    expected = [run(make(sampler), x=noise(seed=i)) for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(lambda i: run(copy.deepcopy(first), x=noise(seed=i)), range(8)))
    assert all(torch.equal(a, b) for a, b in zip(ends, expected))


@pytest.mark.parametrize("make_one", [make, flow], ids=["vp", "flow"])
@pytest.mark.parametrize("sampler", ["unipc", "heun"])
def test_one_run_step_by_step_in_a_pool(sampler, make_one):
    scheduler, x = make_one(sampler), noise()
    with ThreadPoolExecutor(4) as pool:
        pool.submit(scheduler.set_timesteps, 6).result()
        for t in scheduler.timesteps:
            output = network(pool.submit(scheduler.scale_model_input, x, t).result(), t)
            x = pool.submit(scheduler.step, output, t, x).result().prev_sample
    assert torch.equal(x, run(make_one(sampler)))


class Loop:
    """A pipeline's loop that can be stopped between any two of its calls."""

    def __init__(self, scheduler, seed, steps, pool=None):
        self.scheduler, self.x, self.steps, self.pool = scheduler, noise(seed=seed), steps, pool
        self.generator, self.error, self.todo, self.done = torch.Generator().manual_seed(0), None, None, 0

    def call(self, function, *arguments, **options):
        return (
            function(*arguments, **options)
            if self.pool is None
            else self.pool.submit(function, *arguments, **options).result()
        )

    def forward(self):
        """One call further; False where the loop has ended or failed."""
        try:
            if self.todo is None:
                self.call(self.scheduler.set_timesteps, self.steps)
                self.todo = list(self.scheduler.timesteps)
            elif self.done < len(self.todo):
                t = self.todo[self.done]
                self.done += 1
                shown = self.call(self.scheduler.scale_model_input, self.x, t)
                self.x = self.call(self.scheduler.step, network(shown, t), t, self.x, generator=self.generator).prev_sample
            else:
                return False
        except SolverKitError as error:
            self.error = error
            return False
        return True

    @property
    def ended(self):
        return self.error is None and self.todo is not None and self.done == len(self.todo)


def interleaved(sampler, order, steps, pools, make_one=make):
    """Two loops on one scheduler in the order of the calls; what is left of each runs at the end."""
    scheduler = make_one(sampler)
    loops = [Loop(scheduler, seed, n, pool) for seed, n, pool in zip((0, 1), steps, pools)]
    alive = [True, True]
    for which in itertools.chain(order, [0] * 20, [1] * 20):
        alive[which] = alive[which] and loops[which].forward()
    return loops


def judged(sampler, loops, make_one=make):
    """How many loops ended; each of them right, each other with an error that says what to do."""
    for seed, loop in enumerate(loops):
        if loop.ended:
            expected = run(make_one(sampler), loop.steps, noise(seed=seed))
            assert torch.equal(loop.x, expected), "silently wrong"
        else:
            assert "deepcopy" in str(loop.error) or "finished" in str(loop.error), loop.error
    return sum(loop.ended for loop in loops)


ORDERS = sorted(set(itertools.permutations([0, 0, 0, 1, 1, 1])))  # the first six calls; then one ends, then the other


@pytest.mark.parametrize("steps", [(4, 4), (3, 5)])
@pytest.mark.parametrize("sampler", ["unipc", "heun"])
@pytest.mark.parametrize("kind", ["two threads", "a thread and the main one", "one thread", "a pool"])
def test_two_interleaved_loops_are_never_silently_wrong(kind, sampler, steps):
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two, ThreadPoolExecutor(4) as four:
        pools = {
            "two threads": (one, two), "a thread and the main one": (one, None), "one thread": (None, None),
            "a pool": (four, four),
        }[kind]  # fmt: skip
        for order in ORDERS:
            judged(sampler, interleaved(sampler, order, steps, pools))


@pytest.mark.parametrize("make_one", [make, flow], ids=["vp", "flow"])
@pytest.mark.parametrize("sampler", ["unipc", "heun", "dpmpp-2m"])
def test_random_interleavings(sampler, make_one):
    chosen = random.Random(0)
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two:
        for _ in range(12):
            order = [chosen.randrange(2) for _ in range(16)]
            steps = chosen.choice([(4, 4), (5, 4), (4, 8), (6, 6)])
            judged(
                sampler,
                interleaved(sampler, order, steps, chosen.choice([(one, two), (None, one), (None, None)]), make_one),
                make_one,
            )


@pytest.mark.parametrize("kind", ["two threads", "one thread"])
def test_one_loop_after_the_other_is_right(kind):
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two:
        pools = (one, two) if kind == "two threads" else (None, None)
        loops = interleaved("unipc", [0] * 8 + [1] * 8, (4, 6), pools)
        assert judged("unipc", loops) == 2


def test_racing_pools_on_one_scheduler_fail_loudly():
    """Whatever the threads of a pool do at the same time, a result that is returned is right."""
    scheduler = make("unipc")
    expected = [run(make("unipc"), x=noise(seed=i)) for i in range(12)]

    def work(i):
        loop = Loop(scheduler, i, 6)
        while loop.forward():
            pass
        return loop

    with ThreadPoolExecutor(4) as pool:
        for i, loop in enumerate(pool.map(work, range(12))):
            if loop.ended:
                assert torch.equal(loop.x, expected[i])
    assert torch.equal(run(scheduler), run(make("unipc")))
