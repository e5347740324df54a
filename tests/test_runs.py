"""What a run owes its caller: parts and batches, seeds, marks, seconds, gradients, sources, more steps than levels."""

from __future__ import annotations

import itertools
import time
import warnings

import pytest
import torch

import solverkit as sk
from solverkit.errors import BudgetError, NonFiniteError, OptionError
from solverkit.likelihood import log_likelihood

MIXTURE = sk.problems.mixture(dim=4, modes=3)


def network(x, t):
    return 0.9 * x


@pytest.fixture
def wrapped():
    return sk.wrap(network, "epsilon", sk.VP(), shape=(4,))


# ------------------------------------------------------------------------------------------------ parts and seeds


@pytest.mark.parametrize("name", ["ddpm", "euler-ancestral", "ddim:eta=0.5", "reverse-sde", "pc-vp"])
def test_a_run_in_parts_is_the_run(name):
    grid = sk.make_grid("karras", MIXTURE.schedule, 12)
    whole = sk.sample(MIXTURE, name, grid=grid, num_samples=3, seed=3, dtype=torch.float64)
    first = sk.sample(
        MIXTURE, name, levels=[float(s) for s in grid.levels[:6]], num_samples=3, seed=3, dtype=torch.float64
    ).x
    second = sk.sample(MIXTURE, name, grid=grid.tail(5), x=first, seed=3, dtype=torch.float64).x
    assert (second - whole.x).abs().max() <= 1e-10


def test_draws_of_a_constraint_belong_to_their_place():
    grid = sk.make_grid("karras", MIXTURE.schedule, 8)
    known = sk.constraints.inpaint(torch.tensor([[0.5, 0.0, 0.0, 0.0]]), torch.tensor([[1, 0, 0, 0]]))
    run = {"seed": 1, "constrain": known, "dtype": torch.float64}
    whole = sk.sample(MIXTURE, "euler", grid=grid, num_samples=2, **run).x
    half = sk.sample(MIXTURE, "euler", grid=sk.Grid(grid.levels[:5], grid.schedule), num_samples=2, **run).x
    assert (sk.sample(MIXTURE, "euler", grid=grid.tail(4), x=half, **run).x - whole).abs().max() <= 1e-10


@pytest.mark.parametrize(("one", "other"), [(5, 2**32 + 5), (5, 7 * 2**32 + 5), (2**40 + 1, 2**50 + 1), (0, 2**63 - 1)])
def test_seeds_have_streams_of_their_own(one, other):
    a, b = (sk.sample(MIXTURE, "ddpm", nfe=4, num_samples=2, seed=s).x for s in (one, other))
    assert not torch.isclose(a, b).any()


@pytest.mark.parametrize("seed", [-1, 2**63, [0, -1], [0, 2**127]])
def test_seeds_without_a_stream_are_refused(seed):
    with pytest.raises(OptionError, match="seed|key"):
        sk.sample(MIXTURE, "ddpm", nfe=4, num_samples=2, seed=seed)


# ------------------------------------------------------------------------------------------------ batches


def test_samples_are_the_same_whatever_the_batch(wrapped):
    whole = sk.sample(wrapped, "ddpm", nfe=5, num_samples=7, return_trajectory=True)
    parts = sk.sample(wrapped, "ddpm", nfe=5, num_samples=7, batch_size=3, return_trajectory=True)
    assert torch.allclose(parts.x, whole.x, atol=1e-6) and parts.nfe == whole.nfe == 5
    assert parts.passes == 15 and whole.passes == 5
    assert parts.trajectory.shape == whole.trajectory.shape == (6, 7, 4)
    assert torch.allclose(parts.trajectory, whole.trajectory, atol=1e-6)


def test_thousands_of_samples_do_not_meet_in_one_pass():
    seen = []
    net = sk.wrap(lambda x, t: seen.append(len(x)) or x, "epsilon", sk.VP(), shape=(3,))
    sk.sample(net, "euler", steps=1, num_samples=1500)
    assert sum(seen) == 1500 and max(seen) <= 512


def test_inputs_of_each_sample_follow_it_into_its_batch():
    net = sk.wrap(lambda x, t, shift: x * 0 + shift[:, None], "sample", sk.VP(), shape=(2,), shift=torch.arange(5.0))
    x = sk.sample(net, "euler", steps=2, num_samples=5, batch_size=2).x
    assert torch.allclose(x[:, 0], torch.arange(5.0), atol=1e-5)
    guided = sk.guidance.classifier_free(net, net.with_inputs(shift=torch.zeros(5)), scale=2.0)
    x = sk.sample(guided, "euler", steps=2, num_samples=5, batch_size=2).x
    assert torch.allclose(x[:, 0], 2 * torch.arange(5.0), atol=1e-5)


# ------------------------------------------------------------------------------------------------ what went wrong


def nan_for_some(x, t):
    return torch.where((x[:, :1] > 0) & (t[0] < 500), torch.nan, 0.9 * x)


def test_a_sample_that_is_not_finite_need_not_cost_the_batch():
    net = sk.wrap(nan_for_some, "epsilon", sk.VP(), shape=(2,))
    with pytest.raises(NonFiniteError):
        sk.sample(net, "euler", nfe=6, num_samples=8)
    result = sk.sample(net, "euler", nfe=6, num_samples=8, on_nonfinite="mark")
    bad = torch.zeros(8, dtype=torch.bool)
    bad[list(result.nonfinite)] = True
    assert 0 < int(bad.sum()) < 8
    assert bool(result.x[bad].isnan().all()) and bool(result.x[~bad].isfinite().all())
    healthy = sk.sample(sk.wrap(network, "epsilon", sk.VP(), shape=(2,)), "euler", nfe=6, num_samples=8).x
    assert torch.allclose(result.x[~bad], healthy[~bad])


def test_samples_that_explode_are_told_of():
    net = sk.wrap(lambda x, t: torch.where(t[0] < 600, -9.0, 0.99) * x, "epsilon", sk.VP(), shape=(2,))
    with pytest.warns(UserWarning, match="dynamic_threshold"):
        sk.sample(net, "euler", nfe=20, num_samples=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sk.sample(MIXTURE, "euler", nfe=20, num_samples=2)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"labels": 3}, "with_inputs"),
        ({"generator": torch.Generator()}, "seed="),
        ({"guidance_scale": 2.0}, "classifier_free"),
        ({"dtype": torch.float16}, "float32 or torch.float64"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_arguments_of_other_projects_get_a_hint(wrapped, arguments, told):
    with pytest.raises(OptionError, match=told):
        sk.sample(wrapped, "euler", nfe=3, num_samples=2, **arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a device that is not there")
def test_a_device_that_is_not_there(wrapped):
    with pytest.raises(OptionError, match="cuda"):
        sk.sample(wrapped, "euler", nfe=3, num_samples=2, device="cuda")


# ------------------------------------------------------------------------------------------------ seconds


def test_seconds_are_wall_seconds_and_planning_is_told_apart(wrapped):
    def slow(model, x, grid, noise):
        from solverkit.plan.clock import planning

        with planning():
            time.sleep(0.05)
        for s, t in grid.steps():
            x = x + (t - s) * ((x - model(x, s)) / s)
        return x

    began = time.perf_counter()
    result = sk.sample(wrapped, slow, steps=3, num_samples=2)
    wall = time.perf_counter() - began
    assert 0.05 <= result.seconds_plan <= result.seconds <= wall
    assert "seconds=" in repr(result) and "\n" not in repr(result)


# ------------------------------------------------------------------------------------------------ gradients, sources


def test_gradients_on_request():
    net = torch.nn.Linear(3, 3)
    denoiser = sk.wrap(lambda x, t: net(x), "epsilon", sk.VP())
    x = torch.randn(2, 3, requires_grad=True)
    result = sk.sample(denoiser, "dpmpp-2m", nfe=4, x=x, grad=True)
    result.x.sum().backward()
    assert x.grad is not None and net.weight.grad is not None and float(net.weight.grad.abs().sum()) > 0
    with pytest.warns(UserWarning, match="grad=True"):
        assert not sk.sample(denoiser, "dpmpp-2m", nfe=4, x=x).x.requires_grad


def test_a_source_that_is_not_gaussian():
    """A flow from the uniform square to itself shifted: v = x_1 - x_0 is constant, so one step is exact."""
    net = sk.wrap(lambda x, t: torch.full_like(x, -3.0), "flow_prediction", sk.Flow(), shape=(2,), prior=torch.special.ndtr)
    x = sk.sample(net, "euler", nfe=1, num_samples=50).x
    assert float(x.min()) >= 3.0 and float(x.max()) <= 4.0
    for refused in ({"sampler": "ddpm", "nfe": 4}, {"sampler": "mala"}):
        with pytest.raises(OptionError, match="Gaussian"):
            sk.sample(net, num_samples=2, **refused)
    with pytest.raises(OptionError, match="Gaussian"):
        log_likelihood(net, torch.zeros(2, 2))


# ------------------------------------------------------------------------------------------------ names and budgets


def test_options_behind_a_samplers_name():
    a = sk.sample(MIXTURE, "unipc:order=2", nfe=6, num_samples=2).x
    assert torch.equal(a, sk.sample(MIXTURE, "unipc", nfe=6, num_samples=2, order=2).x)
    assert sk.trace("unipc:order=2", sk.make_grid("karras", sk.EDM(), 20)).nfe == 20
    with pytest.raises(OptionError, match="order"):
        sk.sample(MIXTURE, "unipc:ordr=2", nfe=6, num_samples=2)


def test_adaptive_solvers_need_no_budget():
    assert sk.sample(MIXTURE, "rk45", num_samples=2, rtol=1e-2, atol=1e-2).nfe > 6
    with pytest.raises(BudgetError):
        sk.sample(MIXTURE, "rk45", nfe=10, num_samples=2)


@pytest.mark.parametrize("layout", ["trailing", "leading", "linspace", "time-uniform", "karras"])
@pytest.mark.parametrize("n", [50, 75, 120])
def test_more_steps_than_trained_timesteps(layout, n):
    schedule = sk.VP(num_train_timesteps=50)
    between = sk.make_grid(layout, schedule, n)
    assert len(between) == n + 1 and between[-2].time == pytest.approx(0, abs=1e-6) and between[-1] == 0
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        whole = sk.make_grid(layout, sk.VP(num_train_timesteps=50, integer_time=True), n)
    assert len(whole) <= 51 and whole[-2].time == 0
    assert bool(said) == (n > 50) and all("50 timesteps" in str(w.message) for w in said)
    if layout in ("trailing", "leading", "linspace"):
        assert [s.time for s in whole][:-1] == list(range(49, -1, -1))


def test_the_error_does_not_rise_with_more_steps_than_trained():
    target = sk.problems.mixture(dim=4, modes=3, schedule=sk.VP(num_train_timesteps=50))
    exact = sk.sample(target, "rk4", nfe=1600, grid="log-snr", num_samples=4, dtype=torch.float64).x
    errors = [
        float((sk.sample(target, "dpmpp-2m", steps=n, num_samples=4, dtype=torch.float64).x - exact).square().mean().sqrt())
        for n in (50, 51, 75, 100, 200)
    ]
    assert all(b <= max(1.05 * a, 2e-3) for a, b in itertools.pairwise(errors)), errors  # 2e-3: the step to 0
