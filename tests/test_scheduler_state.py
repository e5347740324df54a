"""SolverKitScheduler's state: copies, pickles, repeated steps, threads, no synchronisation."""

from __future__ import annotations

import copy
import functools
import pickle
import threading

import pytest
import torch
from scheduler_loop import TRACEABLE, asked, edm, flow, loop, make, network, noise, run
from torch.utils._python_dispatch import TorchDispatchMode

from solverkit.errors import SolverKitError


@pytest.mark.parametrize("sampler", TRACEABLE)
def test_copies_and_pickles_go_on_bit_for_bit(sampler):
    scheduler, generator = make(sampler), torch.Generator().manual_seed(1)
    expected = loop_from(scheduler, noise(), generator, 0)
    for copied in (copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))):
        scheduler, generator = make(sampler), torch.Generator().manual_seed(1)
        scheduler.set_timesteps(6)
        x = noise()
        for t in scheduler.timesteps[:3]:
            x = scheduler.step(asked(scheduler, x, t), t, x, generator=generator, return_dict=False)[0]
        other = copied(scheduler)
        assert other._run.table.plan.nfe == scheduler._run.table.plan.nfe
        assert torch.equal(loop(other, x.clone(), scheduler.timesteps[3:], generator), expected)


def loop_from(scheduler, x, generator, start):
    scheduler.set_timesteps(6)
    return loop(scheduler, x, scheduler.timesteps[start:], generator)


@pytest.mark.parametrize("sampler", TRACEABLE)
def test_a_repeated_step_is_the_same_step(sampler):
    expected = run(make(sampler))
    scheduler, generator = make(sampler), torch.Generator().manual_seed(0)
    scheduler.set_timesteps(6)
    x = noise()
    for t in scheduler.timesteps:
        doubled = torch.cat([x, x])
        own = None if scheduler._run.stepper.stochastic else generator
        scheduler.step(asked(scheduler, doubled, t), t, doubled, generator=own)
        scheduler._step_index -= 1
        first = scheduler.step(asked(scheduler, x, t), t, x, generator=generator, return_dict=False)[0]
        scheduler._step_index -= 1
        again = scheduler.step(asked(scheduler, x, t), t, x, generator=generator, return_dict=False)[0]
        assert torch.equal(first, again)
        x = again
    if not scheduler._run.stepper.stochastic:
        assert torch.equal(x, expected)


def test_a_repeated_step_draws_nothing_new():
    scheduler, generator = make("euler-ancestral"), torch.Generator().manual_seed(0)
    scheduler.set_timesteps(6)
    scheduler.step(noise(seed=1), scheduler.timesteps[0], noise(), generator=generator)
    state = generator.get_state()
    scheduler._step_index -= 1
    scheduler.step(noise(seed=1), scheduler.timesteps[0], noise(), generator=generator)
    assert torch.equal(generator.get_state(), state)


def test_snapshots_of_the_dict_are_restored():
    scheduler = make("unipc")
    scheduler.set_timesteps(6)
    views, snapshots = [noise(seed=1), noise(seed=2)], None
    expected = [run(make("unipc"), x=view) for view in views]
    snapshots = [copy.deepcopy(scheduler.__dict__)] * 2
    for t in scheduler.timesteps:
        for i, view in enumerate(views):
            scheduler.__dict__.update(snapshots[i])
            views[i] = scheduler.step(network(view, t), t, view, return_dict=False)[0]
            snapshots[i] = copy.deepcopy(scheduler.__dict__)
    for got, wanted in zip(views, expected):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("sampler", TRACEABLE)
def test_nothing_aliases_the_tensors_of_the_pipeline(sampler):
    expected = run(make(sampler))
    scheduler, generator = make(sampler), torch.Generator().manual_seed(0)
    scheduler.set_timesteps(6)
    buffer, x = torch.zeros(2, 4, 8, 8), noise()
    for t in scheduler.timesteps:
        buffer.copy_(x)
        output = asked(scheduler, buffer, t)
        before = (buffer.clone(), output.clone())
        previous, denoised = scheduler.step(output, t, buffer, generator=generator, return_dict=False)
        assert torch.equal(buffer, before[0]) and torch.equal(output, before[1])
        x = previous.clone()
        for tensor in (buffer, output, previous, denoised):
            tensor.fill_(7.0)
    assert torch.equal(x, expected)


def test_the_plan_is_shared_by_copies_and_constants_move():
    scheduler = make("unipc")
    scheduler.set_timesteps(6)
    assert copy.deepcopy(scheduler)._run.stepper is scheduler._run.stepper


def in_another_thread(work):
    results = []

    def caught():
        try:
            results.append(work())
        except SolverKitError as error:
            results.append(error)

    thread = threading.Thread(target=caught)
    thread.start()
    thread.join()
    return results[0]


def test_two_runs_on_one_scheduler_are_refused():
    scheduler, x = make("dpmpp-2m"), noise()
    scheduler.set_timesteps(6)
    mine = scheduler.timesteps
    scheduler.step(network(x, 1), mine[0], x)
    error = in_another_thread(lambda: scheduler.step(network(x, 1), mine[0], x))  # a loop of its own on this run
    assert isinstance(error, SolverKitError) and "deepcopy" in str(error)

    def replace():
        scheduler.set_timesteps(4)
        return scheduler.step(network(x, 1), scheduler.timesteps[0], x)

    assert not isinstance(in_another_thread(replace), SolverKitError)
    with pytest.raises(SolverKitError, match="another thread"):  # whose run was replaced meanwhile
        scheduler.step(network(x, 1), mine[1], x)
    in_another_thread(lambda: scheduler.set_timesteps(4))
    with pytest.raises(SolverKitError, match="another thread"):
        scheduler.step(network(x, 1), mine[2], x)
    scheduler.set_timesteps(6)
    assert torch.equal(loop(scheduler, noise()), run(make("dpmpp-2m")))


def test_a_run_may_pass_from_thread_to_thread():
    """asyncio.to_thread makes each step wherever a thread is free; nothing races."""
    scheduler, x = make("unipc"), noise()
    in_another_thread(lambda: scheduler.set_timesteps(6))
    for i, t in enumerate(scheduler.timesteps):
        work = functools.partial(scheduler.step, network(x, t), t, x, return_dict=False)
        x = work()[0] if i % 3 == 2 else in_another_thread(work)[0]
    assert torch.equal(x, run(make("unipc")))
    scheduler.set_timesteps(6)  # after a run that ended, and one that was given up
    scheduler.step(x, scheduler.timesteps[0], x)
    assert torch.equal(in_another_thread(lambda: run(scheduler)), run(make("unipc")))
    assert torch.equal(run(scheduler), run(make("unipc")))


def test_eight_threads_share_one_plan():
    first = make("unipc")
    first.set_timesteps(6)
    expected = [run(make("unipc"), x=noise(seed=i)) for i in range(8)]
    results = [None] * 8

    def work(i):
        mine = copy.deepcopy(first)
        assert mine._run.stepper is first._run.stepper
        for _ in range(5):
            results[i] = loop(mine, noise(seed=i))
            mine._step_index = None

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for got, wanted in zip(results, expected):
        assert torch.equal(got, wanted)


class NoSync(TorchDispatchMode):
    """Fails where a value would have to travel from the device."""

    FORBIDDEN = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select", "unique")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in self.FORBIDDEN or (name in ("_to_copy", "copy_") and _leaves(args, kwargs or {})):
            raise AssertionError(f"{func} needs a value of the device")
        return func(*args, **(kwargs or {}))


def _leaves(args, kwargs):
    return kwargs.get("device") is not None and torch.device(kwargs["device"]).type != args[0].device.type


@pytest.mark.parametrize("sampler", TRACEABLE)
def test_step_needs_no_value_of_the_device(sampler):
    with pytest.raises(AssertionError), NoSync():
        noise().sum().item()
    for scheduler in (make(sampler), flow(sampler), edm(sampler)):
        scheduler.set_timesteps(6)
        x = noise() * scheduler.init_noise_sigma
        timesteps = list(scheduler.timesteps)
        outputs = [noise(seed=i) for i in range(len(timesteps))]
        with NoSync():
            for t, output in zip(timesteps, outputs):
                scheduler.scale_model_input(x, t)
                x = scheduler.step(output, t, x, return_dict=False)[0]
