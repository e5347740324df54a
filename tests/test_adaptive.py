"""Adaptive steps: integrators of known order, and samples that share calls and still depend on themselves alone."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import solverkit as sk
from solverkit.errors import BudgetError, DenoiserError, NonFiniteError
from solverkit.flow import gauss_legendre
from solverkit.flow.dormand_prince import integrate
from solverkit.flow.flow_map import decode, encode
from solverkit.flow.rows import ask
from solverkit.flow.step_size import Control, LadderSteps
from solverkit.problems import gaussian, mixture

ADAPTIVE = ("rk45", "dpm-solver-12", "dpm-solver-23")


class Counted:
    """Only what every denoiser has, and a count of its calls."""

    def __init__(self, denoiser):
        self.denoiser, self.schedule, self.shape, self.calls = denoiser, denoiser.schedule, denoiser.shape, 0

    def __call__(self, x, level):
        assert isinstance(level, float)
        self.calls += 1
        return self.denoiser(x, level)


class ByRow(Counted):
    """The same with a level a row."""

    takes_rows = True

    def __call__(self, x, level):
        self.calls += 1
        if not isinstance(level, tuple):
            return self.denoiser(x, level)
        return torch.cat([self.denoiser(x[i : i + 1], each) for i, each in enumerate(level)])


def test_gauss_legendre_is_of_fourth_order_and_its_own_inverse():
    def slope(z, u, rows):
        return torch.cos(3 * u)[:, None] * z + torch.sin(z)

    z = torch.tensor([[0.3], [1.0]], dtype=torch.float64)
    exact = integrate(slope, z, 0.0, 2.0, rtol=1e-12, atol=1e-12).y
    errors = []
    for steps in (8, 16, 32):
        there = gauss_legendre.integrate(slope, z, 0.0, 2.0, steps)
        errors.append(float((there - exact).abs().max()))
        assert float((gauss_legendre.integrate(slope, there, 2.0, 0.0, steps) - z).abs().max()) < 1e-10
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert min(orders) > 3.7, orders
    alone = gauss_legendre.integrate(slope, z[:1], 0.0, 2.0, 8)
    assert torch.equal(alone, gauss_legendre.integrate(slope, z, 0.0, 2.0, 8)[:1])


def test_dormand_prince_is_of_fifth_order_and_shares_steps_or_not():
    def slope(y, u, rows):
        return torch.cos(u)[:, None] * y

    y = torch.ones(3, 1, dtype=torch.float64)
    errors = []
    for rtol in (1e-4, 1e-7):
        solution = integrate(slope, y, 0.0, 5.0, rtol=rtol, atol=0.0)
        errors.append(abs(float(solution.y[0]) - math.exp(math.sin(5.0))))
    assert errors[1] < 1e-6 and errors[1] < errors[0]
    back = integrate(slope, solution.y, 5.0, 0.0, rtol=1e-9, atol=0.0)
    torch.testing.assert_close(back.y, y, rtol=1e-6, atol=0)

    def stiff(y, u, rows):  # the second sample needs ten times the steps
        return torch.tensor([1.0, 10.0], dtype=torch.float64)[rows, None] * torch.cos(10 * u)[:, None] * y

    y = torch.ones(2, 1, dtype=torch.float64)
    own = integrate(stiff, y, 0.0, 3.0, shared=False)
    alone = integrate(lambda v, u, rows: stiff(v, u, rows), y[:1], 0.0, 3.0, shared=False)
    assert torch.equal(own.y[:1], alone.y) and own.accepted[0] < own.accepted[1]


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize("schedule", [sk.EDM(), sk.VP(), sk.Flow()], ids=["EDM", "VP", "flow"])
def test_a_sample_takes_its_own_steps_and_shares_calls(name, schedule):
    target = mixture(dim=6, modes=4, schedule=schedule)
    options = {"steps": 1, "dtype": torch.float64}
    own, shared = Counted(target), Counted(target)
    batch = sk.sample(own, name, num_samples=32, **options)
    sk.sample(shared, name, num_samples=32, norm="batch", **options)
    assert own.calls <= 3 * shared.calls, (own.calls, shared.calls)
    for i in (0, 17, 31):
        alone = sk.sample(target, name, num_samples=1, seed=[i], **options)
        assert float((batch.x[i] - alone.x[0]).abs().max()) < 1e-10
    backwards = sk.sample(target, name, num_samples=32, seed=list(range(31, -1, -1)), **options)
    assert float((batch.x - backwards.x.flip(0)).abs().max()) < 1e-10


def test_maps_there_and_back_do_not_depend_on_the_batch():
    target = mixture(dim=6, modes=4, schedule=sk.VP())
    x = target.target.sample(12, seed=1).double()
    for way in (encode, decode):
        denoiser = Counted(target)
        found = way(denoiser, x, None)
        alone = torch.cat([way(target, row, None).x for row in x.split(1)])
        assert float((found.x - alone).abs().max()) < 1e-10 and found.nfe > 20
        assert len(set(found.steps.tolist())) > 1 and denoiser.calls < 0.6 * len(x) * found.nfe
    assert repr(found).startswith("FlowMap(x (12, 6) torch.float64") and "\n" not in repr(found)


def test_one_call_serves_all_rows_where_the_denoiser_takes_a_level_a_row():
    target = mixture(dim=6, modes=4)
    x = target.target.sample(12, seed=1).double()
    one, many = ByRow(target), Counted(target)
    found, wanted = encode(one, x, None), encode(many, x, None)
    assert float((found.x - wanted.x).abs().max()) < 1e-10 and torch.equal(found.steps, wanted.steps)
    assert one.calls < many.calls and one.calls <= 7 + 6 * 1.3 * int(found.steps.max())


def published(model, x, grid, order, atol=0.0078, rtol=0.05, h=0.05, safety=0.9):
    """DPM-Solver-12 and -23 by the loop of Lu et al. 2022, appendix C, without a shared evaluation."""
    from solverkit.process.level import from_log_snr
    from solverkit.steps import exact_step, phi

    schedule, s = grid.schedule, grid[0]
    last = schedule.level(schedule.ratio_min)
    previous = x

    def at(lam):
        return schedule.at(from_log_snr(lam, 0))

    def epsilon(y, level):
        return (y - model(y, level)) / level

    while last.lam - s.lam > 1e-5:
        t = last if h >= last.lam - s.lam else at(s.lam + h)
        h, r1, r2 = t.lam - s.lam, 0.5 if order == 2 else 1 / 3, 2 / 3
        one, two = at(s.lam + r1 * h), at(s.lam + r2 * h)
        e0 = epsilon(x, s)
        e1 = epsilon(x - one * math.expm1(r1 * h) * e0, one)
        low, high = x - t * math.expm1(h) * e0, x - t * math.expm1(h) * (e0 + (e1 - e0) / (2 * r1))
        if order == 3:
            y = x - two * math.expm1(r2 * h) * e0 - two * r2 / r1 * (r2 * h * phi(2, r2 * h)) * (e1 - e0)
            low, high = high, low - t * h * phi(2, h) / r2 * (epsilon(y, two) - e0)
        delta = (rtol * torch.maximum(low.abs(), previous.abs())).clamp(min=atol)
        error = float(((high - low) / delta).square().mean(1).sqrt().max())
        if error <= 1:
            x, s, previous = high, t, low
        h = min(h * safety * error ** (-1 / order), last.lam - s.lam)
    return exact_step(x, model(x, s), s, grid[-1])


@pytest.mark.parametrize("order", [2, 3])
def test_the_norm_of_the_batch_is_the_published_rule(order):
    target = mixture(dim=4, modes=3)
    grid = sk.make_grid("karras", target.schedule, 1)
    x = 80 * torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = sk.sample(target, f"dpm-solver-{order - 1}{order}", x=x, grid=grid, norm="batch").x
    torch.testing.assert_close(found, published(target, x, grid, order), rtol=1e-9, atol=1e-9)


def test_steps_on_a_ladder_start_at_multiples_of_themselves():
    steps = LadderSteps(2, 1.0, -2.0, 0.25, Control(5))
    seen = []
    while len(rows := steps.rows()):
        u, v = steps.ends(rows)
        seen += zip(rows.tolist(), u.tolist(), v.tolist())
        steps.judge(rows, torch.where(rows == 0, 1e-4, 0.5).double() * (1 + 9 * (u < -1.5) * ((u - v) > 0.1)))
    for row, u, v in seen:
        h = u - v
        assert v == -2.0 or (math.log2(h / 0.25) % 1 == 0 and (1.0 - u) / h % 1 == 0)
        assert row == 0 or h <= 0.25
    assert max(u - v for row, u, v in seen if row == 0) == 1.0
    lengths = [u - v for row, u, v in seen if row == 1]
    assert len(lengths) > 13 and min(lengths) == 0.0625  # rejected once: halved at least, and never lengthened


def test_a_step_that_overflows_is_tried_again_at_a_quarter():
    steps = LadderSteps(3, 0.0, 1.0, 0.25, Control(2, least=0.0, most=math.inf))
    rows = steps.rows()
    good = steps.judge(rows, torch.tensor([math.inf, math.nan, 0.0], dtype=torch.float64))
    assert good.tolist() == [False, False, True] and steps.rows().tolist() == [0, 1]
    assert steps.ends(torch.arange(3))[1].tolist() == [0.0625, 0.0625, 0.5]


@pytest.mark.parametrize("shared", [True, False])
def test_a_step_that_underflows_says_where(shared):
    calls = [0]

    def slope(y, u, rows):  # 1 / (u - 1)^2 has no integral across 1
        calls[0] += 1
        return (1 / (u - 1).square())[:, None].expand_as(y)

    with pytest.raises(BudgetError, match=r"underflows at u = (1|0\.99).*h = \d.*e-"):
        integrate(slope, torch.zeros(2, 1, dtype=torch.float64), 0.0, 2.0, shared=shared)
    assert calls[0] < 3000
    with pytest.raises(BudgetError, match="underflows at u = 0: h = "):
        integrate(lambda y, u, rows: y * math.nan, torch.ones(2, 1, dtype=torch.float64), 0.0, 2.0, shared=shared)


def broken(calls, shape=(4,)):
    """A network that overflows at high noise for samples whose first number is positive, as in fp16."""

    def net(x, t):
        calls[0] += 1
        return torch.where(((t > 500) & (x.flatten(1)[:, 0] > 0)).reshape(-1, *[1] * (x.ndim - 1)), math.nan, 0.9) * x

    return sk.wrap(net, "epsilon", sk.VP(), shape=shape)


X = torch.tensor([[-1.0, 0.5, -0.5, 1.0], [1.0, 0.5, -0.5, 1.0], [1.5, 0.0, 0.0, 0.0]])


@pytest.mark.parametrize(
    "ask_it",
    [
        lambda d: encode(d, X, None),
        lambda d: encode(d, X),
        lambda d: decode(d, X, None),
        lambda d: decode(d, X),
        *(lambda d, name=name: sk.sample(d, name, steps=1, x=X) for name in ADAPTIVE),
    ],
    ids=["encode adaptive", "encode", "decode adaptive", "decode", *ADAPTIVE],
)
def test_the_first_nan_of_a_network_is_named(ask_it):
    calls = [0]
    with pytest.raises(NonFiniteError, match=r"s = .*time .*for [12] of [123] .*sample [12]|evaluation"):
        ask_it(broken(calls))
    assert calls[0] < 500


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_samplers_name_nan_of_a_bare_model(name):
    grid = sk.make_grid("karras", sk.EDM(), 1)
    with pytest.raises(NonFiniteError, match="first: sample 1"):
        sk.samplers()[name].fn(lambda x, s: torch.where(x > 50, math.nan, x / 2), torch.tensor([[9.0], [99.0]]), grid, None)


def test_rows_are_named_by_their_place_in_the_batch():
    levels = [sk.EDM().at(s) for s in (1.0, 2.0, 1.0)]
    x, rows = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([4, 7, 9])
    assert torch.equal(ask(lambda y, s: y * s, x, levels, rows), torch.tensor([[1.0], [4.0], [3.0]]))
    with pytest.raises(NonFiniteError, match=r"s = 1 .*for 1 of 2 .*first: sample 9"):
        ask(lambda y, s: torch.where(y > 2.5, math.inf, y), x, levels, rows)
    with pytest.raises(DenoiserError, match="same shape"):
        ask(lambda y, s: y[:, 0], x, levels, rows)


def test_a_network_that_jumps_costs_more_steps_and_no_more_than_that():
    def net(x, t):
        return torch.where((t > 1).reshape(-1, 1), 0.3, 0.7) * x

    denoiser = Counted(sk.wrap(net, "denoised", sk.EDM(), shape=(2,)))
    found = decode(denoiser, 80 * torch.randn(3, 2, dtype=torch.float64), None)
    assert torch.isfinite(found.x).all() and denoiser.calls < 600


def test_gaussians_by_own_steps_are_as_exact_as_by_shared():
    target = gaussian(dim=4, condition=20.0)
    x = 20 * torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = target.transport(x, target.schedule.at(20.0), target.schedule.at(0.05))
    for norm in ("sample", "batch"):
        found = sk.sample(target, "rk45", x=x, levels=[20.0, 0.05], norm=norm)
        assert float((found.x - exact).abs().max()) < 1e-4
