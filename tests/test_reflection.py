"""Reflection: what equal models do, the drift between two Gaussians, its cost, and the interval of the released code."""

from __future__ import annotations

import pytest
import torch
from test_students import SCHEDULES, diagonal

import solverkit as sk
from solverkit.errors import OptionError
from solverkit.proofs.driving import drive


def start(grid, rows=3):
    return torch.randn(rows, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * float(grid[0])


def name(schedule):
    return "flow" if schedule.frame else "karras"


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["EDM", "VP", "Flow"])
@pytest.mark.parametrize("solver", ["ddim", "dpmpp-2m", "heun"])
def test_equal_models_reflect_to_the_same_state(schedule, solver):
    target, grid = diagonal(schedule), sk.make_grid(name(schedule), schedule, 8)
    x = start(grid)
    plain = drive(sk.trace(solver, grid), target, x)
    same = drive(sk.trace("reflect", grid, solver=solver, at="start"), target, x)
    assert float((plain - same).abs().max()) <= 1e-12 * float(plain.abs().max().clamp(min=1))
    end = drive(sk.trace("reflect", grid, solver=solver), target, x)
    assert float((plain - end).abs().max()) > 1e-6  # the weak model is asked elsewhere: equal to first order only


def test_the_identity_holds_to_first_order_where_the_weak_model_is_asked_at_the_end():
    schedule, errors = sk.EDM(), []
    target = diagonal(schedule)
    for n in (80, 160):
        ratios = torch.linspace(3.0, 0.5, n + 1, dtype=torch.float64).tolist()
        grid = sk.Grid.from_ratios(schedule, ratios)
        x = start(grid)
        one, two = (drive(sk.trace(s, grid), target, x) for s in ("ddim", "reflect"))
        errors.append(float((one - two).norm()))
    assert errors[1] == pytest.approx(errors[0] / 2, rel=0.1)


@pytest.mark.parametrize("at", ["start", "end"])
def test_the_drift_between_two_gaussians_in_closed_form(at):
    """Equal covariances S, means mu_s and mu_w, x / alpha from s to t, K = S / (S + s^2):

    start   (s - t) (eps_w - eps_s) = (s - t) (1 - K) / s (mu_s - mu_w)
    end     the same of the weak model at y' = y - (s - t) eps_s
    """
    schedule = sk.EDM()
    strong, weak = diagonal(schedule, mean=(0.5, -0.2, 1.0)), diagonal(schedule, mean=(0.0, 0.3, 0.4))
    mu_s, mu_w, S = strong.target.means[0], weak.target.means[0], strong.target.eigenvalues[0]
    both = sk.with_models(strong, weak=weak)
    s, t = 2.0, 0.5
    grid = sk.Grid.from_ratios(schedule, [s, t, 0.0])
    x = start(grid)
    seen = []
    drive(sk.trace("reflect", grid, weak="weak", at=at), both, x, edit=lambda j, y: seen.append(y) or y)
    K, K_t = S / (S + s * s), S / (S + t * t)
    eps_s = (x - mu_s - K * (x - mu_s)) / s
    if at == "start":
        wanted = x + (s - t) * (1 - K) / s * (mu_s - mu_w)
    else:
        there = x - (s - t) * eps_s
        wanted = there + (s - t) * (there - mu_w - K_t * (there - mu_w)) / t
    assert torch.allclose(seen[2], wanted, rtol=0, atol=1e-12)


def test_cost_of_each_model():
    strong, weak = diagonal(sk.EDM()), diagonal(sk.EDM(), mean=(0.0, 0.0, 0.0))
    run = sk.sample(strong, "reflect", steps=10, weak="weak", num_samples=2, models={"weak": weak})
    assert run.nfe == 3 * 10 - 2 and run.nfe_of == {"model": 19.0, "weak": 9.0}
    plan = sk.trace("reflect", sk.make_grid("karras", sk.EDM(), 10), weak="weak")
    assert plan.nfe_of == {"model": 19, "weak": 9}
    assert [row.of for row in plan.table()[:3]] == [None, "weak", None]
    assert sum(plan.boundary) == 10


def test_what_time_the_weak_model_is_told():
    told = []
    weak = sk.wrap(lambda x, t: told.append(float(t[0])) or torch.zeros_like(x), "epsilon", sk.VP(), shape=(3,))
    strong = sk.wrap(lambda x, t: torch.zeros_like(x), "epsilon", sk.VP(), shape=(3,))
    grid = sk.make_grid("trailing", sk.VP(), 4)
    times = [level.time for level in grid]
    for options, wanted in (
        ({}, times[1:4]), ({"at": "start"}, times[:3]), ({"at": "between"}, times[:3]), ({"released": True}, times[:3])
    ):  # fmt: skip
        told.clear()
        sk.sample(strong, "reflect", grid=grid, num_samples=1, weak="weak", models={"weak": weak}, **options)
        assert told == wanted, options


def test_the_inverse_interval_of_the_released_code():
    """SDXL's betas, 50 leading steps, equal epsilons: as the released code asks it, diffusers' inverse class moves the
    state, one level off; ours does the same with released=True, and nothing without it.
    """
    import diffusers

    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    grid_options = {"timestep_spacing": "leading", "steps_offset": 1, "clip_sample": False}
    forward = diffusers.DDIMScheduler(**betas, **grid_options, set_alpha_to_one=False)
    inverse = diffusers.DDIMInverseScheduler(**betas, **grid_options)
    for scheduler in (forward, inverse):
        scheduler.set_timesteps(50)
    eps = torch.randn(1, 4, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = torch.randn(1, 4, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    times = forward.timesteps.tolist()
    schedule = sk.VP("scaled_linear", 0.00085, 0.012)
    found = {}
    for i in (0, 38, 45, 47, 48):
        down = forward.step(eps, times[i], x).prev_sample
        theirs = inverse.step(eps, times[i + 1], down).prev_sample
        found[i] = float((theirs - x).norm() / x.norm())
        nodes = [schedule.ratio(float(t)) for t in times[i : i + 2]]
        after = schedule.ratio(float(times[i + 2])) if i + 2 < 50 else 0.0
        model = sk.wrap(lambda y, t: eps.to(y.dtype), "epsilon", schedule, dtype=torch.float64)
        for released in (True, False):
            grid = sk.Grid.from_ratios(schedule, [*nodes, after])
            seen = []
            drive(sk.trace("reflect", grid, released=released), model, x / grid[0].scale,
                  edit=lambda j, y, seen=seen: seen.append(y) or y)
            ours = seen[2] * grid[0].scale
            assert torch.allclose(ours, theirs if released else x, rtol=0, atol=1e-6 if released else 1e-12), (i, released)
    assert found[0] < 0.02 < found[48]


def test_bad_input():
    target = diagonal(sk.EDM())
    for options, words in (({"solver": "ddpm"}, "deterministic"), ({"solver": "reflect"}, "around itself"),
                           ({"released": True, "at": "start"}, "after the step")):
        with pytest.raises(OptionError, match=words):
            sk.sample(target, "reflect", steps=3, num_samples=1, **options)
    scheduler = sk.SolverKitScheduler(sampler="reflect", sampler_options={"weak": "weak"})
    with pytest.raises(sk.errors.TraceError, match="one network"):
        scheduler.set_timesteps(10)
        scheduler.step(torch.zeros(1, 1, 4, 4), scheduler.timesteps[0], torch.zeros(1, 1, 4, 4))
