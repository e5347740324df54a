"""Transitions of plans and rollouts: log-probabilities, importance ratios, replay, KL in closed form, gradients."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from test_students import SCHEDULES, diagonal

import solverkit as sk
from solverkit.errors import OptionError, TraceError
from solverkit.plan.transitions import deviation

STOCHASTIC = ("ddim:eta=1", "ddpm", "euler-ancestral", "flow-sde", "cps", "dpmpp-2m-sde", "renoise", "tcd")


def plan_of(name, schedule, n=6):
    return sk.trace(name, sk.make_grid("flow" if schedule.frame else "karras", schedule, n))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["EDM", "VP", "Flow"])
@pytest.mark.parametrize("name", STOCHASTIC)
def test_log_prob_is_that_of_torch_and_replay_is_bit_equal(schedule, name):
    target = diagonal(schedule)
    run = sk.rollout(target, plan_of(name, schedule), 4, dtype=torch.float64)
    plain = sk.sample(target, name, grid=run.plan.grid, num_samples=4, dtype=torch.float64)
    assert torch.allclose(run.x, plain.x, rtol=0, atol=1e-12)
    found = run.transitions(reduce="sum")
    assert sum(t.std > 0 for t in found) >= len(found) - 1
    for t in found:
        if t.std == 0:
            assert t.log_prob is None and torch.equal(t.mean, t.x)
            continue
        normal = torch.distributions.Normal(t.mean, t.std)
        assert torch.allclose(t.log_prob, normal.log_prob(t.x).sum(1), rtol=1e-12, atol=1e-12)
        assert torch.allclose(t.score, (t.mean - t.x) / t.std**2, rtol=0, atol=0)
    again = run.transitions(target, reduce="sum")
    assert all(torch.equal(a.mean, b.mean) for a, b in zip(found, again))
    assert torch.equal(run.log_prob(reduce="sum"), run.log_prob(target, reduce="sum"))
    assert torch.allclose(run.log_prob(reduce="mean") * 3, run.log_prob(reduce="sum"), rtol=1e-12)


class Perturbed:
    def __init__(self, exact, by):
        self.exact, self.by, self.schedule, self.shape = exact, by, exact.schedule, exact.shape

    def __call__(self, x, level):
        return self.exact(x, level) * (1 + self.by)


@pytest.mark.parametrize("name", ["euler-ancestral", "flow-sde", "cps"])
def test_the_importance_identity(name):
    target = diagonal(sk.Flow())
    run = sk.rollout(target, plan_of(name, sk.Flow()), 20000, dtype=torch.float64)
    ratio = (run.log_prob(Perturbed(target, 0.01), reduce="sum") - run.log_prob(reduce="sum")).sum(0).exp()
    error = float(ratio.std()) / math.sqrt(len(ratio))
    assert error < 0.05 and abs(float(ratio.mean()) - 1) < 4 * error


def test_the_sum_of_the_kl_of_the_steps_in_closed_form():
    """E[log p - log p'] over a run is the sum over its steps of E|mean - mean'|^2 / (2 std^2), here by the exact law."""
    target, other = diagonal(sk.Flow()), Perturbed(diagonal(sk.Flow()), 0.1)
    plan = plan_of("flow-sde", sk.Flow())
    run = sk.rollout(target, plan, 20000, dtype=torch.float64)
    by_samples = (run.log_prob(reduce="sum") - run.log_prob(other, reduce="sum")).sum(0)
    mean, S = target.target.means[0], target.target.eigenvalues[0]
    m, V, kl = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64), 0.0
    for t in run.transitions(reduce="sum"):
        s = plan.levels[t.evaluation]
        K = s.alpha * S / (s.alpha**2 * S + s**2)
        terms = dict(plan.segments[t.evaluation + 1].x)
        w_x, w_d = float(terms.get(0, 0.0)), float(terms[1])
        second = (mean + K * (m - s.alpha * mean)) ** 2 + K**2 * V  # E[D^2]
        if t.std > 0:
            kl = kl + (w_d * 0.1) ** 2 * second.sum() / (2 * t.std**2)
        a, b = w_x + w_d * K, w_d * (mean - K * s.alpha * mean)
        m, V = a * m + b, a * a * V + t.std**2
    error = float(by_samples.std()) / math.sqrt(len(by_samples))
    assert abs(float(by_samples.mean()) - float(kl)) < 4 * error and error < 0.05 * float(kl)


def test_gradients_reach_the_network():
    net = torch.nn.Linear(3, 3).double()
    denoiser = sk.wrap(lambda x, t: net(x), "sample", sk.Flow(), shape=(3,), dtype=torch.float64)
    run = sk.rollout(denoiser, plan_of("cps", sk.Flow(), 4), 5, dtype=torch.float64)
    assert not run.x.requires_grad
    run.log_prob(denoiser, reduce="sum").sum().backward()
    first = net.weight.grad.clone()
    step = 1e-6
    with torch.no_grad():
        net.weight[0, 1] += step
        up = run.log_prob(denoiser, reduce="sum").sum()
        net.weight[0, 1] -= 2 * step
        down = run.log_prob(denoiser, reduce="sum").sum()
    assert float((up - down) / (2 * step)) == pytest.approx(float(first[0, 1]), rel=1e-5)


def test_windows_of_stochastic_steps():
    grid = sk.make_grid("flow", sk.Flow(), 6)
    plan = sk.mixed(sk.trace("flow-sde", grid), sk.trace("euler", grid), range(1, 3))
    run = sk.rollout(diagonal(sk.Flow()), plan, 3, dtype=torch.float64)
    assert [t.std > 0 for t in run.transitions(reduce="sum")] == [False, True, True, False, False, False]
    assert run.log_prob(reduce="sum").shape == (2, 3)
    with pytest.raises(OptionError, match="among 0"):
        sk.mixed(sk.trace("flow-sde", grid), sk.trace("euler", grid), [6])
    with pytest.raises(TraceError, match="keeps earlier"):
        sk.mixed(sk.trace("flow-sde", grid), sk.trace("dpmpp-2m", grid), [1])


def test_states_are_rounded_before_the_run_goes_on():
    plan = plan_of("flow-sde", sk.Flow())
    run = sk.rollout(diagonal(sk.Flow()), plan, 3, storage=torch.bfloat16)
    assert all(torch.equal(x, x.to(torch.bfloat16).to(x.dtype)) for x in run.states)
    assert torch.equal(run.log_prob(reduce="sum"), run.log_prob(diagonal(sk.Flow()), reduce="sum"))


def test_what_is_no_gaussian_transition_is_refused():
    grid = sk.make_grid("karras", sk.EDM(), 4)
    run = sk.rollout(diagonal(sk.EDM()), sk.trace("pc", grid), 2)
    with pytest.raises(TraceError, match="no Gaussian transition"):
        run.transitions(reduce="sum")
    with pytest.raises(OptionError, match="no step of this run draws"):
        sk.rollout(diagonal(sk.EDM()), sk.trace("euler", grid), 2).log_prob(reduce="sum")
    with pytest.raises(OptionError, match="'sum' or 'mean'"):
        sk.rollout(diagonal(sk.EDM()), sk.trace("ddpm", grid), 2).log_prob(reduce="max")


@pytest.mark.parametrize(("steps", "before", "last"), [(10, 0.309, 0.218), (28, None, 0.079)])
def test_the_noise_that_one_step_of_flow_sde_leaves_as_released(steps, before, last):
    """From exactly the noise that the network is told, with a perfect answer: .309 where .25 is told, .218 at 0."""
    grid = sk.make_grid("flow:shift=3", sk.Flow(), steps)
    plan, left = sk.trace("flow-sde", grid, released=True), []
    for j, s in enumerate(grid.levels[:-1]):  # D = 0: x is noise alone
        left.append(math.hypot(dict(plan.segments[j + 1].x)[0] * s, deviation(plan, j)))
    assert left[-1] == pytest.approx(last, abs=5e-4)
    if before is not None:
        assert grid[-2] == pytest.approx(0.25) and left[-2] == pytest.approx(before, abs=5e-4)
    kept = sk.trace("cps", grid)
    for j, (s, t) in enumerate(pairwise(grid)):
        weight = dict(kept.segments[j + 1].x).get(0, 0.0)
        assert math.hypot(weight * s, deviation(kept, j)) == pytest.approx(float(t), abs=1e-12)


@pytest.mark.parametrize(("steps", "left"), [(10, 0.2279), (28, 0.0817)])
def test_the_noise_that_flow_sde_leaves_as_released(steps, left):
    """A perfect answer, always 0: what is left at the end is noise. Shift 3, as the code runs it."""
    grid = sk.make_grid("flow:shift=3", sk.Flow(), steps)
    zero = sk.wrap(lambda x, t: torch.zeros_like(x), "sample", sk.Flow())
    x = sk.sample(zero, "flow-sde", grid=grid, shape=(1, 200, 200), released=True).x
    assert float(x.std()) == pytest.approx(left, abs=0.004)
    assert float(sk.sample(zero, "flow-sde", grid=grid, shape=(1, 8, 8)).x.abs().max()) < 0.35
    assert float(sk.sample(zero, "cps", grid=grid, shape=(1, 8, 8)).x.abs().max()) == 0


def pipeline(sampler, **options):
    from tiny_pipelines import PIPELINES

    tiny = PIPELINES["ddpm"]()
    tiny.pipe.scheduler = sk.SolverKitScheduler.from_config(
        tiny.pipe.scheduler.config, sampler=sampler, sampler_options=options, clip_sample=False
    )
    tiny.pipe.set_progress_bar_config(disable=True)
    return tiny.pipe


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "flow-sde", "cps", "dpmpp-2m-sde"])
def test_a_stock_pipeline_tells_the_probability_of_its_steps(sampler):
    """The samples are what they are without the record; told again from the stored latents, each figure is bit for bit."""
    pipe = pipeline(sampler, **({"eta": 1.0} if sampler == "ddim" else {}))
    run = {"num_inference_steps": 5, "output_type": "pt", "batch_size": 2}
    plain = pipe(**run, generator=torch.Generator().manual_seed(0)).images
    with sk.recorded(pipe.scheduler, reduce="sum") as steps:
        told = pipe(**run, generator=torch.Generator().manual_seed(0)).images
    assert (plain == told).all() and len(steps) == 5 and "step" not in vars(pipe.scheduler)
    pipe.scheduler.set_timesteps(5)
    for step, t in zip(steps, pipe.scheduler.timesteps):
        assert (step.log_prob is None) == (step.std == 0)
        if step.std > 0:
            normal = torch.distributions.Normal(step.prev_sample_mean, step.std)
            wanted = normal.log_prob(step.prev_sample).flatten(1).sum(1)
            assert torch.allclose(step.log_prob, wanted, rtol=1e-4, atol=1e-3)
        with torch.no_grad():
            output = pipe.unet(pipe.scheduler.scale_model_input(step.sample, t), t).sample
        again = pipe.scheduler.step(output, t, step.sample, prev_sample=step.prev_sample, log_prob="sum")
        assert torch.equal(again.prev_sample, step.prev_sample) and again.std == step.std
        assert torch.equal(again.prev_sample_mean, step.prev_sample_mean)
        assert step.std == 0 or torch.equal(again.log_prob, step.log_prob)
    assert sum(step.std > 0 for step in steps) >= 4


def test_gradients_reach_the_network_through_a_schedulers_step():
    pipe = pipeline("flow-sde")
    pipe.unet.requires_grad_(True)
    with sk.recorded(pipe.scheduler, reduce="mean") as steps:
        pipe(num_inference_steps=3, generator=torch.Generator().manual_seed(0))
    pipe.scheduler.set_timesteps(3)
    total = 0.0
    for step, t in zip(steps[:2], pipe.scheduler.timesteps):
        output = pipe.unet(step.sample, t).sample
        total = total + pipe.scheduler.step(output, t, step.sample, prev_sample=step.prev_sample, log_prob="mean").log_prob
    total.sum().backward()
    assert any(float(p.grad.abs().max()) > 0 for p in pipe.unet.parameters() if p.grad is not None)


def test_what_a_schedulers_step_cannot_tell():
    def scheduler(sampler):
        made = sk.SolverKitScheduler(sampler=sampler)
        made.set_timesteps(5)
        return made, torch.zeros(1, 1, 4, 4)

    ours, x = scheduler("flow-sde")
    for given, words in (
        ({"log_prob": "max"}, "'sum' or 'mean'"), ({"log_prob": "sum", "return_dict": False}, "return_dict"),
        ({"prev_sample": x}, "log_prob="), ({"log_prob": "sum", "prev_sample": x[..., :2]}, "shape"),
    ):  # fmt: skip
        with pytest.raises(OptionError, match=words):
            ours.step(x, ours.timesteps[0], x, **given)
    ours, x = scheduler("pc")
    with pytest.raises(TraceError, match="no Gaussian transition"):
        ours.step(x, ours.timesteps[0], x, log_prob="sum")


def test_flow_sde_takes_a_start_near_pure_noise_for_one_at_it():
    """Wan's and HiDream's layouts start at 1 - 1e-6, where g of the formula would be 700."""
    plans = [sk.trace("flow-sde", sk.Grid(tuple(sk.Flow().at(f) for f in (top, 0.8, 0.4, 0.0)), sk.Flow()))
             for top in (1.0, 1 - 1e-6)]
    assert deviation(plans[1], 0) == pytest.approx(deviation(plans[0], 0), rel=1e-5) and deviation(plans[0], 0) < 1
