"""Transitions of plans and rollouts: log-probabilities, importance ratios, replay, KL in closed form, gradients."""

from __future__ import annotations

import math

import pytest
import torch
from test_students import SCHEDULES, diagonal

import solverkit as sk
from solverkit.errors import OptionError, TraceError

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


@pytest.mark.parametrize(("steps", "left"), [(10, 0.2279), (28, 0.0817)])
def test_the_noise_that_flow_sde_leaves_as_released(steps, left):
    """A perfect answer, always 0: what is left at the end is noise. Shift 3, as the code runs it."""
    grid = sk.make_grid("flow:shift=3", sk.Flow(), steps)
    zero = sk.wrap(lambda x, t: torch.zeros_like(x), "sample", sk.Flow())
    x = sk.sample(zero, "flow-sde", grid=grid, shape=(1, 200, 200), released=True).x
    assert float(x.std()) == pytest.approx(left, abs=0.004)
    assert float(sk.sample(zero, "flow-sde", grid=grid, shape=(1, 8, 8)).x.abs().max()) < 0.35
    assert float(sk.sample(zero, "cps", grid=grid, shape=(1, 8, 8)).x.abs().max()) == 0
