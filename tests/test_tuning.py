"""Fitted plans: what the fit gives on targets with exact answers, and the file that holds them."""

from __future__ import annotations

import copy
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from tiny_pipelines import PIPELINES

import solverkit as sk
from solverkit import SolverKitScheduler, problems
from solverkit.errors import BudgetError, DenoiserError, GridError, LoadError, NonFiniteError, OptionError, ScheduleError
from solverkit.tuning.gauss_newton import jacobian
from solverkit.tuning.plans import Budget, TunedPlans
from solverkit.tuning.references import references
from solverkit.tuning.rows import Rows
from solverkit.tuning.search import compass, family
from solverkit.tuning.trajectories import converge

ARGUMENTS = {"samples": 192, "validation": 256, "starts": 3, "reference_evaluations": 512}


@pytest.fixture(scope="module")
def mixture():
    return sk.load("mixture")


@pytest.fixture(scope="module")
def plans(mixture, tmp_path_factory):
    path = tmp_path_factory.mktemp("tuned") / "plan.safetensors"
    return sk.tune(mixture, [5, 8], **ARGUMENTS, out=path), path


def errors(denoiser, sampler, nfe, exact, **options):
    x = sk.sample(denoiser, sampler, nfe=nfe, num_samples=len(exact), seed=77, dtype=torch.float64, **options).x
    return (x - exact).flatten(1).square().mean(1).sqrt()


def test_a_plan_halves_the_error_on_noises_that_nothing_was_chosen_on(mixture, plans):
    exact = sk.sample(mixture, "rk4", steps=256, grid="karras", num_samples=512, seed=77, dtype=torch.float64).x
    for n in (5, 8):
        tuned = errors(mixture, plans[0].sampler, n, exact)
        for solver, grid in (("ipndm", "flow"), ("dpmpp-2m", "karras"), ("unipc", "flow")):
            untuned = errors(mixture, solver, n, exact, grid=grid)
            assert float(tuned.square().mean()) < 0.25 * float(untuned.square().mean())
            assert float(tuned.median()) < 0.5 * float(untuned.median())


def test_the_file_gives_back_what_was_written(plans):
    made, path = plans
    read = sk.load_plans(path)
    assert (read.schedule, read.frame, read.fingerprint, dict(read.facts)) == (
        made.schedule, made.frame, made.fingerprint, dict(made.facts),
    )  # fmt: skip
    for n, budget in made.budgets.items():
        assert read.budgets[n].levels == budget.levels and np.array_equal(read.budgets[n].weights, budget.weights)
        assert read.budgets[n].figures == budget.figures


def test_the_function_the_plan_and_a_copy_are_the_same_run(mixture, plans):
    grid = sk.make_grid("karras", mixture.schedule, 8)
    plan = sk.trace(plans[0].sampler, grid)
    assert plan.nfe == 8 and plan.depth <= 8
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * grid[0]
    pulled = sk.sample(mixture, plans[0].sampler, x=x, grid=grid).x
    y, state = sk.begin(plan, x)
    for level in plan.levels:
        y, state = sk.advance(plan, pickle.loads(pickle.dumps(copy.deepcopy(state))), y, mixture(y, level))
    torch.testing.assert_close(y, pulled, rtol=1e-10, atol=1e-10)
    alone = sk.sample(mixture, plans[0].sampler, x=x[1:2], grid=grid).x
    torch.testing.assert_close(alone, pulled[1:2], rtol=1e-10, atol=1e-10)


def test_a_budget_between_is_the_next_lower_one_and_said(mixture, plans):
    result = sk.sample(mixture, plans[0].sampler, nfe=7, num_samples=2)
    assert result.nfe == 5 and result.reports["plan"] == "tuned for 5 evaluations"
    with pytest.raises(BudgetError, match="at most 4"):
        sk.sample(mixture, plans[0].sampler, nfe=4, num_samples=2)


def test_another_schedule_is_refused(plans):
    with pytest.raises(ScheduleError, match="another schedule|mean nothing there"):
        sk.sample(problems.mixture(schedule=sk.Flow()), plans[0].sampler, nfe=8, num_samples=2)


def test_the_sampler_by_name(mixture, plans):
    path = str(plans[1])
    by_name = sk.sample(mixture, f"tuned:plan={path}", nfe=8, num_samples=3, seed=5)
    assert torch.equal(by_name.x, sk.sample(mixture, "tuned", plan=plans[0], nfe=8, num_samples=3, seed=5).x)
    other = problems.mixture(seed=9)
    with pytest.warns(UserWarning, match="another network"):
        sk.sample(other, "tuned", plan=path, nfe=8, num_samples=2)
    with pytest.raises(ScheduleError, match="mean nothing there"):
        sk.sample(problems.mixture(schedule=sk.Flow()), "tuned", plan=path, nfe=8, num_samples=2)
    with pytest.raises(GridError, match="begins at"):
        sk.sample(mixture, "tuned", plan=path, num_samples=2, levels=[40.0, 10.0, 3.0, 1.0, 0.3, 0.0])


@pytest.mark.parametrize("pipeline", ["ddim", "sd3"])
def test_a_plan_in_a_pipeline_is_sk_sample(pipeline, tmp_path):
    tiny = PIPELINES[pipeline]()
    config = tiny.pipe.scheduler.config
    schedule = SolverKitScheduler.from_config(config)._convention().schedule
    frame, top = schedule.frame, float(sk.make_grid("flow" if schedule.frame else "trailing", schedule, 1)[0])
    levels = family(5, top, 0.2, 0.8, frame)
    rows = Rows(levels, tuple((0.01 * i, -0.02, *([0.1] * i)) for i in range(5)))
    plans = TunedPlans(repr(schedule), frame, top, None, {5: Budget(levels, rows.matrix())})
    plans.save(path := tmp_path / "plan.safetensors")
    own = {"sampler": "tuned", "sampler_options": {"plan": str(path)}, "clip_sample": False}
    scheduler = SolverKitScheduler.from_config(config, **own)
    seen = []
    step = scheduler.step

    def watched(output, t, x, **options):
        seen.append((x.clone(), output.clone()))
        return step(output, t, x, **options)

    scheduler.step = watched
    tiny.pipe.scheduler = scheduler
    tiny.pipe(**tiny.inputs, num_inference_steps=7, generator=torch.Generator().manual_seed(0))
    convention = scheduler._run.table.convention
    assert scheduler.nfe == len(seen) == 5 and float(scheduler.sigmas[-1]) == 0
    answers = iter(seen)

    def replay(x, level):
        latents, output = next(answers)
        w_x, w_out = convention.weights(level)
        assert float((x * convention.scale(level) - latents).norm()) <= 1e-5 * float(latents.norm())
        return w_x * latents.double() + w_out * output.double()

    replay.schedule = schedule
    grid = scheduler._run.table.plan.grid
    start = seen[0][0].double() / convention.scale(grid[0]) * grid[0].scale
    sk.sample(replay, "tuned", plan=str(path), x=start, grid=grid)


def test_going_on_gives_the_same_plan(mixture, plans, tmp_path):
    path = tmp_path / "plan.safetensors"
    sk.tune(mixture, [5], out=path, **ARGUMENTS)
    went_on = sk.tune(mixture, [5, 8], out=path, resume=True, **ARGUMENTS)
    for n in (5, 8):
        assert np.allclose(went_on.budgets[n].weights, plans[0].budgets[n].weights, rtol=1e-9, atol=1e-12)
    with pytest.raises(LoadError, match="other settings, reference_evaluations=512, samples=192, starts=3, validation=256"):
        sk.tune(mixture, [5], out=path, resume=True, samples=32, validation=32)


def test_files_that_are_no_plan(tmp_path, plans):
    from safetensors.torch import save_file

    other = tmp_path / "tensors.safetensors"
    save_file({"x": torch.zeros(2)}, str(other))
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(plans[1].read_bytes()[:200])
    later = tmp_path / "later.safetensors"
    save_file({"x": torch.zeros(2)}, str(later), {"format": "solverkit-plan", "version": "99"})
    part = tmp_path / "part.safetensors"
    save_file({"x": torch.zeros(2)}, str(part), {"format": "solverkit-plan", "version": "1", "plan": "{}"})
    for path, words in (
        (other, "no plan"), (torn, "cannot be read"), (later, "version 99"), (part, "no whole plan"),
        (tmp_path / "none", "read"),
    ):  # fmt: skip
        with pytest.raises(LoadError, match=words):
            sk.load_plans(path)


def test_what_is_missing_is_said_before_the_work(mixture, tmp_path):
    with pytest.raises(OptionError, match="needs the option 'plan'"):
        sk.sample(mixture, "tuned", nfe=5, num_samples=2)
    with pytest.raises(LoadError, match="no folder"):
        sk.tune(mixture, [5], out=tmp_path / "none" / "plan.safetensors", progress=pytest.fail)
    with pytest.raises(LoadError, match="that is a folder"):
        sk.tune(mixture, [5], out=tmp_path, progress=pytest.fail)


def test_nan_during_calibration_says_where_and_what_was_kept(tmp_path):
    exact = sk.load("gaussian")

    class Broken:
        """NaN from the second budget on."""

        schedule, shape, target = exact.schedule, exact.shape, exact.target
        broken = False

        def __call__(self, x, s):
            return exact(x, s) * (float("nan") if self.broken else 1.0)

    denoiser, path = Broken(), tmp_path / "plan.safetensors"
    arguments = {"samples": 16, "validation": 16, "reference_evaluations": 256, "out": path}

    def watch(progress):
        denoiser.broken = progress.text.startswith("NFE 5: start")

    with pytest.raises(NonFiniteError, match=r"Level\(.*has NFE \[4\]"):
        sk.tune(denoiser, [4, 5], progress=watch, **arguments)
    assert sorted(sk.load_plans(path).budgets) == [4]


SMALL = {"samples": 8, "validation": 8, "fast": True, "reference_evaluations": 64}


def test_going_on_under_another_name_of_the_network(tmp_path):
    denoiser, path = sk.load("gaussian"), tmp_path / "plan.safetensors"
    begun = sk.tune(denoiser, [3], out=path, model="gaussian", **SMALL)
    went_on = sk.tune(denoiser, [3, 4], out=path, resume=True, **SMALL)
    assert went_on.budgets[3].figures == begun.budgets[3].figures and sorted(went_on.budgets) == [3, 4]


def test_going_on_without_a_fingerprint_is_said(tmp_path):
    exact, path = sk.load("gaussian"), tmp_path / "plan.safetensors"
    denoiser = problems.gaussian()
    denoiser.unreadable = (n for n in (1, 2))
    assert sk.tune(denoiser, [3], out=path, **SMALL).fingerprint is None
    with pytest.warns(UserWarning, match="cannot be checked"):
        sk.tune(denoiser, [3], out=path, resume=True, **SMALL)
    with pytest.raises(LoadError, match="begun for another network"):
        sk.tune(exact, [3], out=path, resume=True, **SMALL)


class Function:
    """A denoiser that is a function of x."""

    schedule, shape = sk.VP(), (4,)

    def __init__(self, function):
        self.function = function

    def __call__(self, x, level):
        return self.function(x)


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_an_untuned_solver_without_error_is_kept(value):
    plans = sk.tune(Function(lambda x: torch.full_like(x, value)), [3], **SMALL)
    assert plans.budgets[3].weights is None and plans.budgets[3].figures["ratio_rms"] >= 1
    assert all(np.isfinite(plans.budgets[3].figures["interval"]))


def test_a_denoiser_that_answers_at_random_is_refused():
    with pytest.raises(DenoiserError, match="two answers"):
        sk.tune(Function(lambda x: torch.tanh(x) + 0.1 * torch.randn_like(x)), [3], **SMALL)


@pytest.mark.parametrize("name", ["samples", "validation", "starts", "passes", "history", "reference_evaluations"])
@pytest.mark.parametrize("value", [0, -5, 8.5, "8", True])
def test_counts_that_make_no_sense(mixture, name, value):
    if value is True and name not in ("samples", "validation"):
        value = False
    with pytest.raises(OptionError, match=f"{name}="):
        sk.tune(mixture, [3], **{"samples": 8, "validation": 8, "fast": True, name: value}, progress=pytest.fail)


@pytest.mark.parametrize("nfe", [[], [1], [5, 5], [5, 2.5], 8])
def test_budgets_that_make_no_sense(mixture, nfe):
    with pytest.raises(OptionError, match="budgets"):
        sk.tune(mixture, nfe)


def test_states_between_the_kept_ones_are_those_of_the_flow():
    """One Gaussian in closed form: x_s / x_0 = hypot(1, s / deviation) up to the mean."""
    denoiser = sk.load("gaussian")
    kept = converge(denoiser, 4, 0, 1024)
    for s in (0.05, 0.4, 3.3, 21.0):
        ratios = (float(kept.grid[0]) * (s / float(kept.grid[0])) ** (i / 400) for i in range(401))
        grid = sk.Grid.from_ratios(denoiser.schedule, [*ratios, 0.0])
        run = sk.sample(denoiser, "rk4", x=kept.start, grid=grid, dtype=torch.float64, return_trajectory=True)
        there = next(x for level, x in zip(run.levels, run.trajectory) if abs(float(level) - s) < 1e-9)
        assert float((kept.at(s) - there).norm() / there.norm()) < 1e-4


def test_a_matrix_is_what_the_rows_do():
    rows = Rows((2.0, 0.9, 0.3), ((0.1, -0.05), (0.02, 0.03, 0.4), (0.0, 0.01, 0.3, -0.1)))
    states, predictions = rows.traced(lambda x, s: torch.tanh(x) * s, torch.linspace(-2, 2, 9, dtype=torch.float64))
    for i, row in enumerate(rows.matrix()):
        expected = row[0] * states[i] + sum(w * d for w, d in zip(row[1:], predictions[: i + 1]))
        torch.testing.assert_close(states[i + 1], expected, rtol=1e-12, atol=1e-12)


def test_levels_fall_and_a_search_finds_a_minimum():
    for frame, top in ((0, 80.0), (1, 1.0)):
        levels = family(6, top, 0.1, 0.8, frame)
        assert levels[0] == top and all(a > b > 0 for a, b in pairwise(levels)) and levels[-1] == pytest.approx(0.1)
    last, rho, _ = compass(lambda a, b: (np.log(a / 0.2)) ** 2 + (b - 1.1) ** 2, 0.5, 0.8, calls=60)
    assert last == pytest.approx(0.2, rel=0.1) and rho == pytest.approx(1.1, abs=0.1)


def test_converged_runs_are_kept_and_found(mixture, tmp_path, monkeypatch):
    monkeypatch.setenv("SOLVERKIT_CACHE", str(tmp_path))
    made = references(mixture, 70, 3, 256, fingerprint="abc")
    found = references(mixture, 70, 3, 256, fingerprint="abc")
    assert made.rows == 70 * 256 and found.rows == 0
    assert torch.equal(made.ends.end, found.ends.end) and torch.equal(made.ends.own_start, found.ends.own_start)
    assert len(found.way.start) == 64 and torch.equal(made.way.at(1.7), found.way.at(1.7))
    whole = sk.sample(mixture, "rk4", nfe=256, num_samples=70, seed=3, dtype=torch.float64, grid="karras").x
    assert torch.equal(made.ends.own_end, whole)  # parts of 64 are the run of all
    next((tmp_path / "trajectories").glob("abc-*")).write_bytes(b"torn")
    assert references(mixture, 70, 3, 256, fingerprint="abc").rows == 70 * 256


def test_columns_are_the_derivatives_of_the_end(mixture):
    """Against central differences of each weight and of the log ratio of each level, one at a time."""
    rows = Rows((60.0, 2.0, 0.3), ((0.01, 0.02), (0.01, -0.02, 0.1), (0.0, 0.01, 0.2, -0.05)))

    def model(x, s):
        return mixture(x, mixture.schedule.at(s))

    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 60
    states, predictions = rows.traced(model, x)
    columns, count = jacobian(model, rows, states, predictions, 0)
    assert count == 9 and len(columns) == 12
    base, h = [c for row in rows.coefficients for c in row], 1e-4
    for k in range(12):
        ends = []
        for sign in (1, -1):
            flat = [c + sign * h * (i == k) for i, c in enumerate(base)]
            coefficients = (tuple(flat[:2]), tuple(flat[2:5]), tuple(flat[5:]))
            levels = tuple(s * np.exp(sign * h * (9 + j == k)) for j, s in enumerate(rows.levels))
            ends.append(Rows(levels, coefficients).run(model, x).flatten())
        slope = (ends[0] - ends[1]) / (2 * h)
        assert float((columns[k] - slope).norm()) < 0.06 * float(slope.norm()) + 1e-9, k


def test_a_network_of_integer_times_is_told_integers():
    exact = problems.mixture(schedule=sk.VP(integer_time=True), dim=4, modes=3)
    plans = sk.tune(exact, [4], samples=32, validation=32, starts=1, reference_evaluations=256)
    budget = plans.budgets[4]
    assert budget.weights is not None
    for s in budget.levels:
        assert float(exact.schedule.at(s)) == pytest.approx(s, rel=1e-12)
        assert exact.schedule.at(s, snap=False).time == pytest.approx(exact.schedule.time(s), abs=1e-6)
    assert len(set(budget.levels)) == 4
    assert budget.figures["ratio_rms"] < 1
