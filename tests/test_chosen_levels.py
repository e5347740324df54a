"""Levels by dynamic programming: optima that brute force confirms, and the file that holds them."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch

import solverkit as sk
from solverkit import problems
from solverkit.errors import GridError, LoadError, NonFiniteError, OptionError, ScheduleError
from solverkit.tuning.gits import cheapest, jump_costs
from solverkit.tuning.oss import carried
from solverkit.tuning.trajectories import converge


def all_paths(last, steps):
    return [(0, *middle, last) for middle in itertools.combinations(range(1, last), steps - 1)]


def euler_error(denoiser, kept, path):
    """RMS of the first-order run on these nodes."""
    x = kept.start
    for i, j in itertools.pairwise(path):
        s, t = kept.grid[i], kept.grid[j]
        x = x + (t - s) * (x - denoiser(x, s)) / s
    return float((x - kept.end).square().mean().sqrt())


@pytest.fixture(scope="module")
def gaussian():
    denoiser = sk.load("gaussian")
    return denoiser, converge(denoiser, 16, 0, 256, keep=11)


@pytest.mark.parametrize("gamma", [0.8, 1.0, 1.3])
def test_the_cheapest_path_is_that_of_brute_force(gamma):
    generator = np.random.default_rng(3)
    for _ in range(20):
        costs = generator.normal(1.0, 1.0, (8, 8))  # some are negative, as deviations may be

        def total(path, costs=costs):
            return sum(gamma**k * costs[i, j] for k, (i, j) in enumerate(itertools.pairwise(path)))

        for n, path in cheapest(costs, 7, gamma).items():
            assert total(path) == pytest.approx(min(map(total, all_paths(7, n))), abs=1e-12)
            assert len(path) == n + 1 and path in all_paths(7, n)


@pytest.mark.parametrize("cost", ["distance", "deviation"])
def test_a_jump_costs_what_one_step_of_euler_misses(gaussian, cost):
    denoiser, kept = gaussian
    costs, (a, b) = jump_costs(denoiser, kept, cost), (kept.start, kept.end)

    def from_chord(x):
        """The least distance of a point of the line, by least squares."""
        shares = [torch.linalg.lstsq((q - p)[:, None], (y - p)[:, None]).solution for p, q, y in zip(a, b, x)]
        return torch.stack([(p + share.item() * (q - p) - y).norm() for p, q, y, share in zip(a, b, x, shares)])

    for i, j in ((0, 3), (2, 6), (5, len(kept.grid) - 1)):
        grid = sk.Grid((kept.grid[i], kept.grid[j]), denoiser.schedule)
        reached = sk.sample(denoiser, "euler", x=kept.states[i] * kept.grid[i].scale, grid=grid, dtype=torch.float64).x
        reached, goal = reached / kept.grid[j].scale, kept.states[j]
        missed = (reached - goal).norm(dim=1)
        if cost == "deviation":
            missed = from_chord(reached) - from_chord(goal)
        assert costs[i, j] == pytest.approx(float(missed.mean()), rel=1e-9, abs=1e-9)
    assert np.isinf(costs[np.tril_indices(len(costs))]).all()


def test_gits_on_a_gaussian_is_the_optimum_of_brute_force(gaussian):
    """Of the cost that it minimises exactly, and within a fifth of the least final error of all choices."""
    denoiser, kept = gaussian
    costs, last = jump_costs(denoiser, kept), len(kept.grid) - 1

    def total(path):
        return sum(costs[i, j] for i, j in itertools.pairwise(path))

    for n, path in cheapest(costs, 5).items():
        assert total(path) == pytest.approx(min(map(total, all_paths(last, n))), rel=1e-12)
        if n < 5:
            least = min(euler_error(denoiser, kept, p) for p in all_paths(last, n))
            assert euler_error(denoiser, kept, path) < 1.2 * least


@pytest.mark.parametrize("schedule", [None, sk.Flow()], ids=["edm", "flow"])
@pytest.mark.parametrize("dim", [1, 8])
def test_oss_on_a_gaussian_is_the_optimum_of_brute_force(dim, schedule):
    """In one dimension it must be: the nearest state is always the largest. In eight it is, here."""
    denoiser = problems.gaussian(dim, schedule=schedule)
    kept = converge(denoiser, 16, 0, 256, keep=11)
    last = len(kept.grid) - 1
    for n, path in carried(denoiser, kept, 4).items():
        found, least = euler_error(denoiser, kept, path), min(euler_error(denoiser, kept, p) for p in all_paths(last, n))
        assert found == pytest.approx(least, rel=1e-9)
        uniform = euler_error(denoiser, kept, [round(last * k / n) for k in range(n + 1)])
        assert found <= uniform * (1 + 1e-9) and (n == 1 or found < 0.9 * uniform)


def test_oss_keeps_one_state_a_level_and_may_miss_the_optimum():
    denoiser = problems.mixture(dim=2, modes=3)
    kept = converge(denoiser, 32, 0, 512, keep=14)
    path = carried(denoiser, kept, 3)[3]
    least = min(euler_error(denoiser, kept, p) for p in all_paths(len(kept.grid) - 1, 3))
    assert 1.01 * least < euler_error(denoiser, kept, path) < 1.2 * least


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    denoiser = sk.load("mixture")
    levels = sk.choose_levels(denoiser, 10, samples=32, reference_evaluations=256)
    levels.save(path := tmp_path_factory.mktemp("levels") / "levels.json")
    return denoiser, levels, path


def test_the_file_gives_back_what_was_written(chosen):
    _, levels, path = chosen
    assert sk.load_levels(path) == levels and sorted(levels.levels) == list(range(1, 11))
    assert levels.facts["solver"] == "ipndm" and set(levels.facts["gamma"]) == {str(n) for n in range(1, 11)}


def test_levels_by_name_are_the_grid_and_the_budget_is_a_ceiling(chosen):
    denoiser, levels, path = chosen
    by_name = sk.sample(denoiser, "dpmpp-2m", nfe=6, num_samples=3, grid=f"levels:file={path}")
    by_grid = sk.sample(denoiser, "dpmpp-2m", num_samples=3, grid=levels.grid(denoiser.schedule, 6))
    assert torch.equal(by_name.x, by_grid.x) and by_name.nfe == 6
    assert [float(s) for s in by_name.levels] == list(levels.levels[6][:-1])
    assert sk.sample(denoiser, "heun", nfe=9, num_samples=1, grid=f"levels:file={path}").nfe == 9
    assert sk.sample(denoiser, "euler", nfe=12, num_samples=1, grid=f"levels:file={path}").nfe == 10
    with pytest.raises(GridError, match=r"8, 9, 10\] steps, and not for 12"):
        sk.sample(denoiser, "euler", steps=12, num_samples=1, grid=f"levels:file={path}")


@pytest.mark.parametrize("method", ["gits", "oss"])
def test_chosen_levels_serve_on_noises_that_they_were_not_chosen_on(chosen, method):
    denoiser, levels, _ = chosen
    if method == "oss":
        levels = sk.choose_levels(denoiser, 8, method, samples=32, reference_evaluations=256)
    exact = sk.sample(denoiser, "rk4", steps=64, grid="karras", num_samples=256, seed=9, dtype=torch.float64).x

    def error(grid):
        x = sk.sample(denoiser, "euler", num_samples=256, seed=9, grid=grid, dtype=torch.float64).x
        return float((x - exact).square().mean().sqrt())

    for n in (5, 8):
        named = min(error(sk.make_grid(name, denoiser.schedule, n)) for name in ("karras", "log-snr", "flow"))
        assert error(levels.grid(denoiser.schedule, n)) < 0.98 * named


def test_the_gamma_that_is_kept_is_the_best_of_the_solver_asked_for(chosen):
    denoiser, levels, _ = chosen
    kept = converge(denoiser, 32, 1000, 256)

    def error(of, solver):
        run = sk.sample(denoiser, solver, x=kept.own_start, grid=of.grid(denoiser.schedule, 6), dtype=torch.float64)
        return float((run.x - kept.own_end).square().mean().sqrt())

    other = sk.choose_levels(denoiser, 6, samples=32, reference_evaluations=256, solver="euler")
    for gamma in (0.9, 1.0, 1.15):
        fixed = sk.choose_levels(denoiser, 6, samples=32, reference_evaluations=256, gamma=gamma)
        assert fixed.facts["gamma"] == {str(n): gamma for n in range(1, 7)}
        assert error(levels, "ipndm") <= error(fixed, "ipndm") and error(other, "euler") <= error(fixed, "euler")


def test_another_schedule_is_refused(chosen):
    _, levels, path = chosen
    flow = problems.mixture(schedule=sk.Flow())
    with pytest.raises(ScheduleError, match="chosen on EDM"):
        sk.sample(flow, "euler", nfe=6, num_samples=1, grid=f"levels:file={path}")
    with pytest.raises(ScheduleError, match="chosen on EDM"):
        levels.grid(flow.schedule, 6)


def test_levels_of_a_flow_begin_where_alpha_is_zero(tmp_path):
    denoiser = problems.gaussian(4, schedule=sk.Flow())
    levels = sk.choose_levels(denoiser, 4, "oss", samples=8, reference_evaluations=256)
    levels.save(tmp_path / "flow.json")
    grid = sk.make_grid(f"levels:file={tmp_path / 'flow.json'}", denoiser.schedule, 4)
    assert [float(s) for s in grid] == pytest.approx(levels.levels[4], rel=1e-12) and float(grid[0]) == 1.0
    assert math.isinf(grid[0].ratio)


def test_files_that_hold_no_levels(tmp_path, chosen):
    whole = json.loads(chosen[2].read_text())
    for content, words in (
        ("", "cannot be read"), ("[1, 2]", "holds a list"), ("{}", "holds no levels"),
        (json.dumps({**whole, "version": 9}), "version 9"),
        (json.dumps({k: v for k, v in whole.items() if k != "levels"}), "no whole file"),
        (json.dumps({**whole, "levels": {"2": [80.0, 0.0]}}), "2 steps need 3 levels"),
        (json.dumps({**whole, "levels": {"2": [80.0, 90.0, 0.0]}}), "fall to 0"),
        (json.dumps({**whole, "levels": {"2": [80.0, float("nan"), 0.0]}}), "fall to 0"),
        (json.dumps({**whole, "levels": {"two": [80.0, 1.0, 0.0]}}), "no whole file"),
        (json.dumps({**whole, "levels": [1.0]}), "no whole file"),
    ):  # fmt: skip
        path = tmp_path / "bad.json"
        path.write_text(content)
        with pytest.raises(LoadError, match=words):
            sk.load_levels(path)
    with pytest.raises(LoadError, match="cannot be read"):
        sk.load_levels(tmp_path / "none.json")
    with pytest.raises(LoadError, match="cannot be written"):
        chosen[1].save(tmp_path / "none" / "levels.json")
    with pytest.raises(OptionError, match="needs the option 'file'"):
        sk.make_grid("levels", sk.EDM(), 5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "ays"}, "'gits' or 'oss'"), ({"steps": 0}, "steps must"), ({"steps": 2.5}, "steps must"),
        ({"samples": 0}, "samples must"), ({"candidates": 2}, "candidates must"), ({"gamma": 0.0}, "gamma must"),
        ({"gamma": 1.0, "solver": "euler"}, "left out where a solver"), ({"cost": "l1"}, "cost must"),
        ({"method": "oss", "gamma": 1.0}, "'oss' has none"), ({"steps": 40, "candidates": 10}, "more than the"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense(settings, words):
    with pytest.raises(OptionError, match=words):
        sk.choose_levels(sk.load("gaussian"), **{"samples": 4, "reference_evaluations": 64, **settings})


@pytest.mark.parametrize("search", [jump_costs, lambda denoiser, kept: carried(denoiser, kept, 2)], ids=["gits", "oss"])
def test_nan_is_said(gaussian, search):
    denoiser, kept = gaussian

    def broken(x, s):
        return denoiser(x, s) * (float("nan") if s < 1 else 1.0)

    with pytest.raises(NonFiniteError, match="s = 0"):
        search(broken, kept)
