"""Plans run by sweeps: the sequential run's end to the last bit, honest counts, and what is refused."""

from __future__ import annotations

import pytest
import torch

import solverkit as sk
from solverkit import problems
from solverkit.errors import OptionError, TraceError
from solverkit.run.noise import SampleNoise, sample_seeds

MIXTURE = problems.mixture(dim=6, modes=3, schedule=sk.EDM())


class RowByRow:
    """A target that is asked about one row at a time: an answer does not depend on its batch, not even its last bit."""

    takes_rows = True

    def __init__(self, target=MIXTURE):
        self.target, self.schedule, self.shape = target, target.schedule, target.shape
        self.batches = []

    def __call__(self, x, level):
        levels = level if isinstance(level, tuple) else (level,) * len(x)
        self.batches.append(len(x))
        places = [self.schedule.at(one) for one in levels]
        return torch.cat([self.target.target.denoised(row[None], s.alpha, float(s)) for row, s in zip(x, places)])

    def rows(self, start, stop=None, total=None):
        return self


def sequential(plan, model, n, dtype=torch.float32):
    """The plan driven one evaluation at a time from the start of a run with seed 0: its nodes, the end last."""
    own = sk.sample(model, "ddim", grid=plan.grid, num_samples=n, dtype=dtype, return_trajectory=True)
    draw = SampleNoise(sample_seeds(0, n), model.shape, dtype)
    x, state = sk.begin(plan, own.trajectory[0] / plan.grid[0].scale, draw)
    nodes = [x]
    for j in range(plan.nfe):
        x, state = sk.advance(plan, state, x, plan.ask(j, model, x), draw)
        nodes.append(x)
    return nodes


@pytest.mark.parametrize("solver", ["ddim", "dpmpp-2m", "heun", "unipc", "euler-ancestral", "pc"])
@pytest.mark.parametrize("window", [3, 100])
def test_tolerance_0_is_the_sequential_run_to_the_last_bit(solver, window):
    model = RowByRow()
    plan = sk.trace(solver, sk.make_grid("karras", model.schedule, 9))
    run = sk.sample(model, "parallel", grid=plan.grid, num_samples=3, solver=solver, window=window, tolerance=0.0)
    assert torch.equal(run.x, sequential(plan, model, 3)[-1])
    assert run.passes == run.reports["sweeps"] <= plan.nfe == run.reports["sequential"]
    assert [float(s) for s in run.levels] == [float(s) for s in plan.levels]


@pytest.mark.parametrize("schedule", [sk.VP(continuous=True), sk.Flow()], ids=["VP", "Flow"])
def test_every_frame(schedule):
    model = RowByRow(problems.mixture(dim=6, modes=3, schedule=schedule))
    plan = sk.trace("dpmpp-2m", sk.make_grid("flow", model.schedule, 9))
    run = sk.sample(model, "parallel:dpmpp-2m,tolerance=0", grid=plan.grid, num_samples=2, dtype=torch.float64)
    own = sequential(plan, model, 2, torch.float64)[-1] * plan.grid[-1].scale
    assert torch.equal(run.x, own)


def test_after_k_sweeps_the_first_k_states_are_exact():
    from solverkit_plugins.parallel.sweeps import Sweeps

    model = RowByRow()
    plan = sk.trace("dpmpp-2m", sk.make_grid("karras", model.schedule, 8))
    nodes = sequential(plan, model, 2)
    sweeps = Sweeps(plan, model, nodes[0], None, window=8, tolerance=0.0)
    for k in range(1, plan.nfe + 1):
        sweeps.sweep()
        known = {j: x for j, x in sweeps.nodes.items() if j <= k}
        assert min(sweeps.starts) >= k and all(torch.equal(x, nodes[j]) for j, x in known.items())
        if sweeps.done:
            break
    assert sweeps.done and torch.equal(sweeps.nodes[plan.nfe], nodes[-1])


def test_rows_are_what_the_network_saw_and_one_batch_a_sweep():
    model = RowByRow()
    run = sk.sample(model, "parallel:dpmpp-2m,window=5,tolerance=0.01", nfe=20, num_samples=4)
    assert len(model.batches) == run.passes == run.reports["sweeps"] < 20
    assert sum(model.batches) == run.nfe * 4 and run.asked == run.nfe > 20 and max(model.batches) <= 5 * 4


def test_a_looser_tolerance_takes_fewer_sweeps_and_errs_less_than_it():
    exact = sk.sample(MIXTURE, "parallel:dpmpp-2m,tolerance=0", nfe=40, num_samples=8, dtype=torch.float64)
    errors, sweeps = [], []
    same = {"nfe": 40, "num_samples": 8, "dtype": torch.float64}
    for tolerance in (1e-1, 1e-2, 1e-4):
        run = sk.sample(MIXTURE, "parallel:dpmpp-2m", tolerance=tolerance, window=40, **same)
        errors.append(float((run.x - exact.x).square().mean().sqrt()))
        sweeps.append(run.reports["sweeps"])
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-4 and sweeps[0] <= sweeps[1] < sweeps[2] < 40


def test_a_sample_does_not_depend_on_its_batch():
    model = RowByRow()
    many = sk.sample(model, "parallel:heun,window=6,tolerance=0.05", nfe=21, num_samples=5)
    alone = sk.sample(model, "parallel:heun,window=6,tolerance=0.05", nfe=21, num_samples=1, seed=[3])
    assert torch.equal(many.x[3:4], alone.x)
    parts = sk.sample(model, "parallel:heun,window=6,tolerance=0.05", nfe=21, num_samples=5, batch_size=2)
    assert torch.equal(many.x, parts.x) and parts.nfe == many.nfe


def labelled(count):
    """A network with a label a sample that must come in the batch's own rows."""
    shift = torch.arange(10.0)

    def net(x, time, class_labels, table):
        assert class_labels.shape == time.shape == x.shape[:1] and table.shape == (10,)
        return 0.5 * x + 0.1 * table[class_labels][:, None]

    labels = torch.arange(count)
    return sk.wrap(net, "sample", sk.EDM(), shape=(2,), class_labels=labels, table=shift)


@pytest.mark.parametrize("count", [1, 4])
def test_labels_follow_their_samples(count):
    own = sk.sample(labelled(count), "dpmpp-2m", nfe=12, num_samples=count)
    run = sk.sample(labelled(count), "parallel:dpmpp-2m,tolerance=0", nfe=12, num_samples=count)
    assert torch.allclose(own.x, run.x, atol=1e-5)


def test_a_denoiser_that_takes_one_level_is_asked_for_each():
    class OneLevel(RowByRow):
        takes_rows = False

        def __call__(self, x, level):
            assert not isinstance(level, tuple)
            return super().__call__(x, level)

    run = sk.sample(OneLevel(), "parallel:ddim,window=4,tolerance=0", nfe=10, num_samples=2)
    assert torch.equal(run.x, sk.sample(RowByRow(), "parallel:ddim,window=1", nfe=10, num_samples=2).x)
    assert run.passes > run.reports["sweeps"]


def test_callbacks_and_trajectories_see_each_evaluation_once_and_final():
    model, seen = RowByRow(), []
    run = sk.sample(
        model, "parallel:dpmpp-2m,tolerance=0", nfe=10, num_samples=2, callback=seen.append, return_trajectory=True
    )
    plan = sk.trace("dpmpp-2m", sk.make_grid("karras", model.schedule, 10))
    nodes = sequential(plan, model, 2)
    assert [e.index for e in seen] == list(range(10)) and torch.equal(run.trajectory, torch.stack(nodes))
    assert all(torch.equal(e.denoised, model(x, s)) for e, x, s in zip(seen, nodes, plan.levels))


def test_guidance_by_level_rows():
    strong, weak = labelled(3), sk.wrap(lambda x, t: 0.4 * x, "sample", sk.EDM(), shape=(2,))
    guided = sk.guidance.classifier_free(strong, weak, 2.0)
    own = sk.sample(guided, "dpmpp-2m", nfe=12, num_samples=3)
    run = sk.sample(guided, "parallel:dpmpp-2m,tolerance=0", nfe=12, num_samples=3)
    assert torch.allclose(own.x, run.x, atol=1e-5) and run.passes == 2 * run.reports["sweeps"]


def test_nan_is_told_or_marked():
    def net(x, time):
        return torch.where((x[:, :1] > 60) & (time < 3)[:, None], torch.nan, 0.0 * x)

    model = sk.wrap(net, "sample", sk.EDM(), shape=(2,))
    x = torch.tensor([[1000.0, 0.0], [1.0, 1.0]]) * 80
    with pytest.raises(sk.errors.NonFiniteError, match="sample 0"):
        sk.sample(model, "parallel:ddim", nfe=8, x=x)
    run = sk.sample(model, "parallel:ddim", nfe=8, x=x, on_nonfinite="mark")
    assert run.nonfinite == (0,) and torch.isfinite(run.x[1]).all()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"window": 0}, OptionError, "window >= 1"),
        ({"tolerance": -1.0}, OptionError, "tolerance >= 0"),
        ({"solver": "rk45"}, TraceError, "pull-only"),
        ({"solver": "parallel"}, TraceError, "pull-only"),
        ({"solver": "nosuch"}, sk.errors.UnknownNameError, "nosuch"),
        ({"solver": "flow-map"}, OptionError, "flow map"),
        ({"solver": "ddim:nosuch=1"}, OptionError, "nosuch"),
        ({"constrain": lambda x, level, draw: x}, OptionError, "pull-only"),
        ({"grad": True, "x": torch.zeros(1, 6, requires_grad=True)}, OptionError, "gradients"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else None,
)
def test_refused_in_one_line(options, error, words):
    with pytest.raises(error, match=words):
        sk.sample(MIXTURE, "parallel", steps=6, **{"num_samples": None if "x" in options else 1, **options})


def test_the_command_line_takes_a_budget(cli):
    code, out, _ = cli("sample", "gaussian", "-s", "parallel:solver=dpmpp-2m,window=4", "--nfe", "12", "-k", "2", "--json")
    assert code == 0 and '"sweeps"' in out
    code, _, error = cli("sample", "gaussian", "-s", "parallel:solver=rk45", "--nfe", "12", "-k", "2")
    assert code == 2 and "decides itself" in error and "Traceback" not in error


def test_a_budget_in_the_bench_lays_out_the_plan():
    from solverkit.bench.runner import run_suite
    from solverkit.bench.suite import ModelEntry, Suite
    from solverkit.bench.suite_file import load_suite

    suite = Suite(
        "s", models=(ModelEntry("gaussian", 8),), samplers=("dpmpp-2m", "parallel:solver=dpmpp-2m", "parallel:solver=rk45"),
        nfe=(12,), grid="karras", metrics=("ode_error", "calls"),
    )  # fmt: skip
    alone, swept, refused = run_suite(suite)
    assert alone["calls"] == 12 > swept["calls"] == swept["passes"] == swept["reports"]["sweeps"] and swept["nfe"] > 12
    assert swept["ode_error"] == pytest.approx(alone["ode_error"], rel=0.05)
    assert refused["status"] != "ok" and "decides itself" in refused["status"]
    assert "parallel:solver=dpmpp-2m,window=16" in load_suite("parallel").samplers


def test_show_has_the_plan_of_the_solver(cli):
    code, out, _ = cli("show", "parallel:solver=heun", "--nfe", "5", "--json")
    assert code == 0 and len(out.split('"evaluation"')) == 6
    code, _, error = cli("show", "parallel:solver=rk45")
    assert code == 2 and "decides itself" in error
