"""sk.sample: budgets, grids, noise, constraints, and what it says of bad input."""

from __future__ import annotations

import math
import pickle

import pytest
import torch

import solverkit as sk
from solverkit.errors import BudgetError, GridError, NonFiniteError, OptionError, SolverKitError
from solverkit.grid.grid import Grid
from solverkit.problems import gaussian, mixture
from solverkit.process.level import Level
from solverkit.run.noise import PRIOR, SampleNoise, sample_seeds


@pytest.fixture
def target():
    return mixture(dim=3, modes=2)


def test_result_fields(target):
    seen = []
    result = sk.sample(target, "heun", nfe=9, num_samples=4, callback=seen.append, return_trajectory=True)
    assert result.x.shape == (4, 3) and result.x.dtype == torch.float32
    assert result.nfe == 9 and len(result.levels) == 9 and len(seen) == 9
    assert result.trajectory.shape == (10, 4, 3) and torch.equal(result.trajectory[-1], result.x)
    assert 0 < result.seconds_model < result.seconds
    assert seen[0].level == 80.0 and seen[0].denoised.shape == (4, 3)


def test_nfe_is_a_ceiling_and_the_least_is_named(target):
    assert sk.sample(target, "heun", nfe=10, num_samples=1).nfe == 9
    assert sk.sample(target, "rk4", nfe=9, num_samples=1).nfe == 6
    with pytest.raises(BudgetError, match="at least 2"):
        sk.sample(target, "rk4", nfe=1, num_samples=1)
    with pytest.raises(BudgetError, match="decides itself"):
        sk.sample(target, "dpm-solver-12", nfe=10, num_samples=1)


def test_levels_are_run_as_given(target):
    levels = [10.0, 3.0, 1.0, 0.5]
    result = sk.sample(target, "euler", levels=levels, x=10 * torch.randn(2, 3))
    assert [float(s) for s in result.levels] == levels[:-1]
    flow = sk.sample(mixture(dim=3, modes=2, schedule=sk.Flow()), "euler", levels=[1.0, 0.5, 0.0], num_samples=2)
    assert [s.alpha for s in flow.levels] == [0.0, 0.5]


@pytest.mark.parametrize(
    ("kwargs", "error", "words"),
    [
        ({"levels": [1.0, 2.0]}, GridError, "must fall"),
        ({"levels": [1.0, math.nan]}, GridError, "numbers"),
        ({"levels": [1.0, -0.5]}, GridError, ">= 0"),
        ({"levels": [1.0]}, GridError, "at least two"),
        ({"levels": [1.0, 0.5], "nfe": 3}, GridError, "leave out"),
        ({}, BudgetError, "exactly one"),
        ({"nfe": 3, "steps": 3}, BudgetError, "exactly one"),
        ({"nfe": 0}, BudgetError, "positive integer"),
        ({"nfe": 2.5}, BudgetError, "positive integer"),
        ({"nfe": 3, "grid": "karas"}, SolverKitError, "Did you mean 'karras'"),
        ({"nfe": 3, "s_chrun": 1.0}, OptionError, "s_churn"),
        ({"nfe": 3, "seed": [1, 2, 3]}, SolverKitError, "seed"),
        ({"nfe": 3, "seed": -1}, SolverKitError, "negative"),
    ],
)
def test_bad_input(target, kwargs, error, words):
    with pytest.raises(error, match=words):
        sk.sample(target, "heun", num_samples=2, **kwargs)


def test_bad_starts(target):
    with pytest.raises(OptionError, match="exactly one of num_samples"):
        sk.sample(target, "heun", nfe=3)
    with pytest.raises(OptionError, match="positive integer"):
        sk.sample(target, "heun", nfe=3, num_samples=0)
    with pytest.raises(OptionError, match="does not know the shape"):
        sk.sample(sk.wrap(lambda x, t: x, "epsilon", sk.VP()), "heun", nfe=3, num_samples=2)


def test_not_finite_names_evaluation_and_level():
    calls = []

    def net(x, t):
        calls.append(0)
        out = 0 * x
        if len(calls) == 3:
            out[1] = math.nan
        return out

    denoiser = sk.wrap(net, "denoised", sk.EDM())
    with pytest.raises(NonFiniteError, match=r"evaluation 2 .*1 of 4 samples \(first: 1\)"):
        sk.sample(denoiser, "euler", nfe=5, shape=(4, 3))


def test_noise_belongs_to_the_sample():
    draw = SampleNoise(sample_seeds(7, 64), (5,))
    alone = SampleNoise([sample_seeds(7, 64)[13]], (5,))
    for ordinal in (0, 1, 12345, PRIOR):
        assert torch.equal(draw(ordinal)[13], alone(ordinal)[0])
    assert not torch.equal(draw(0), draw(1))
    assert torch.equal(draw(3).double(), SampleNoise(sample_seeds(7, 64), (5,), torch.float64)(3).float().double())
    many = SampleNoise(sample_seeds(0, 2000), (50,), torch.float64)(0)
    assert abs(float(many.mean())) < 0.02 and abs(float(many.var()) - 1) < 0.02


def test_x_is_copied_and_dtype_follows(target):
    x = 80 * torch.randn(2, 3, dtype=torch.float64)
    before = x.clone()
    assert sk.sample(target, "unipc", nfe=5, x=x).x.dtype == torch.float64
    assert torch.equal(x, before)
    assert sk.sample(target, "unipc", nfe=5, x=x.half()).x.dtype == torch.float32


def test_constraint_sees_step_starts_and_is_honoured(target):
    seen = []

    def pin(x, level, draw):
        seen.append(float(level))
        known = torch.tensor([0.25])
        y = x.clone()
        y[:, :1] = level.alpha * known + float(level) * draw(level, level)[:, :1]
        return y

    result = sk.sample(target, "heun", steps=20, num_samples=6, constrain=pin)
    assert len(seen) == 20
    assert (result.x[:, 0] - 0.25).abs().max() < 0.1
    with pytest.raises(OptionError, match="pull-only"):
        sk.sample(target, "dpm-solver-23", steps=1, num_samples=1, constrain=pin)


def test_churn_raises_levels_and_stays_below_the_start(target):
    result = sk.sample(target, "heun", steps=10, num_samples=2, s_churn=10.0)
    plain = sk.sample(target, "heun", steps=10, num_samples=2)
    assert result.levels[2] > plain.levels[2] and max(result.levels) <= 80.0 and result.nfe == plain.nfe
    flow = mixture(dim=3, modes=2, schedule=sk.Flow())
    assert torch.isfinite(sk.sample(flow, "heun", steps=10, num_samples=2, s_churn=10.0).x).all()


def test_integer_network_snaps_nodes_and_stages():
    schedule = sk.VP(integer_time=True)
    target = gaussian(dim=3, schedule=schedule)
    for name in ("euler", "midpoint", "rk4", "dpm-solver-3", "heun"):
        for level in sk.sample(target, name, nfe=12, num_samples=1).levels:
            assert level.time == round(level.time)
            if level >= schedule.ratio_min:  # a stage of the step to 0 lies below every trained level
                assert float(level) == pytest.approx(schedule.ratio(level.time), rel=1e-12), name


def test_levels_and_grids_pickle():
    for schedule in (sk.EDM(), sk.Flow(), sk.VP(), sk.VP(continuous=True), sk.SubVP(), sk.VE()):
        grid = sk.make_grid("karras", schedule, 5)
        again = pickle.loads(pickle.dumps(grid))
        assert again == grid and [s.time for s in again] == [s.time for s in grid]
    assert isinstance(grid[0], Level) and len(grid.tail(2)) == len(grid) - 2


OF_SOME_NETWORKS = ("levels", "few_step")


@pytest.mark.parametrize("name", [name for name, card in sk.grids().items() if card.plugin not in OF_SOME_NETWORKS])
@pytest.mark.parametrize(
    "schedule",
    [sk.EDM(), sk.VP(), sk.VP("cosine"), sk.VP(continuous=True), sk.SubVP(), sk.Flow(), sk.Flow(shift=3.0), sk.VE(),
     sk.VP(integer_time=True), sk.VP(zero_terminal_snr=True)],
    ids=lambda s: f"{type(s).__name__}{s.frame}",
)  # fmt: skip
def test_every_grid_on_every_schedule(name, schedule):
    for n in (1, 2, 7, 40):
        try:
            grid = sk.make_grid(name, schedule, n)
        except GridError as error:
            assert (name in ("leading", "simple") and "trained timesteps" in str(error)) or "told" in str(error)
            return
        values = [float(s) for s in grid]
        assert values == sorted(values, reverse=True) and values[-1] == 0.0 and len(values) <= n + 1
        assert all(math.isfinite(s.time) and math.isfinite(s.scale) for s in grid)
        if name not in ("leading",):
            assert grid[0].ratio == pytest.approx(schedule.ratio_max)


def test_grid_shapes():
    edm = sk.make_grid("karras", sk.EDM(), 18)
    assert [round(float(s), 4) for s in edm][:3] == [80.0, 57.586, 40.7856] and len(edm) == 19
    flow = sk.make_grid("flow", sk.Flow(), 4, shift=3.0)
    assert [round(float(s), 4) for s in flow] == [1.0, 0.9, 0.75, 0.5, 0.0]
    trailing = sk.make_grid("trailing", sk.VP(), 5)
    assert [s.time for s in trailing][:5] == [999.0, 799.0, 599.0, 399.0, 199.0]
    with pytest.raises(GridError, match="at least one"):
        sk.make_grid("karras", sk.EDM(), 0)
    with pytest.raises(OptionError, match="must be one of 'zero', 'min'"):
        sk.make_grid("karras", sk.EDM(), 3, last="one")
    merged = Grid.from_ratios(sk.VP(integer_time=True), [5.0, 4.999, 0.0102, 0.0101, 0.0])
    assert len(merged) == 3  # snapping made neighbours equal
