"""The bench: suites, the runner, peers, references, the store and the report."""

from __future__ import annotations

import json
import os
import time
import warnings

import pytest
import torch

import solverkit as sk
from solverkit.bench import outcome, peers, runner
from solverkit.bench import reference as references
from solverkit.bench.metrics import Run, fd, ode_error
from solverkit.bench.peers import build_peer, peer_levels, run_peer, set_budget
from solverkit.bench.report import best_grids, make_panels, make_table, metric_names, write_figure
from solverkit.bench.runner import run_suite
from solverkit.bench.store import append, latest, read
from solverkit.bench.subject import Subject
from solverkit.bench.suite import ModelEntry, Suite
from solverkit.bench.suite_file import load_suite, parse_suite
from solverkit.errors import BenchError, OptionError, UnknownNameError
from solverkit.run import sampling
from solverkit.run.noise import PRIOR, SampleNoise, sample_seeds

ROW_FIELDS = [
    "key", "suite", "model", "model_fingerprint", "sampler", "options", "cache", "grid", "budget", "nfe", "asked",
    "passes", "products", "blocks", "num_samples", "seed", "device", "dtype", "ode_error", "intervals",
    "floors", "against", "values", "reports", "remarks", "seconds_total", "seconds_model", "seconds_plan",
    "seconds_solver", "seconds_metric", "images_per_second", "peak_memory_bytes", "status",
    "solverkit_version", "torch_version", "diffusers_version", "python_version", "machine", "git_commit",
    "threads", "omp_wait_policy", "time",
]  # fmt: skip
DPM, UNIPC = "diffusers:DPMSolverMultistepScheduler", "diffusers:UniPCMultistepScheduler"


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SOLVERKIT_CACHE", str(tmp_path / "cache"))


def small(**changes) -> Suite:
    fields = {
        "models": (ModelEntry("gaussian", num_samples=4, reference_steps=8),),
        "samplers": ("euler", "heun"),
        "nfe": (5, 8),
        "metrics": ("ode_error",),
    }
    return Suite(**{**fields, **changes})


def test_rows_have_the_fields_of_the_design(tmp_path):
    rows = list(run_suite(small(), tmp_path / "results.jsonl"))
    assert [(r["sampler"], r["budget"]) for r in rows] == [("euler", 5), ("euler", 8), ("heun", 5), ("heun", 8)]
    assert all(list(row) == ROW_FIELDS for row in rows)
    assert all(row["status"] == "ok" and row["ode_error"] > 0 for row in rows)
    assert rows == read(tmp_path / "results.jsonl")


def test_nfe_is_counted():
    rows = list(run_suite(small()))
    assert [r["nfe"] for r in rows] == [5, 8, 5, 7]  # heun: two a step, one in the last
    for row in rows:
        parts = row["seconds_model"] + row["seconds_plan"] + row["seconds_solver"]
        assert row["seconds_total"] == pytest.approx(parts) and min(row["seconds_plan"], row["seconds_solver"]) > 0


def test_planning_is_part_of_the_wall_seconds_and_told_apart(monkeypatch):
    def slowly(function):
        return lambda *args, **kwargs: (time.sleep(0.05), function(*args, **kwargs))[1]

    monkeypatch.setattr(sampling, "choose_grid", slowly(sampling.choose_grid))
    monkeypatch.setattr(peers, "set_budget", slowly(peers.set_budget))
    for row in run_suite(small(samplers=("euler", DPM), nfe=(5,))):
        assert row["seconds_total"] > row["seconds_plan"] > 0.05 > row["seconds_model"] > 0


def test_passes_are_counted_whatever_the_batch():
    models = (ModelEntry("gaussian", 4, batch_size=3, reference_steps=8),)
    for sampler in ("heun", DPM):
        (row,) = run_suite(small(models=models, samplers=(sampler,), nfe=(5,)))
        assert (row["nfe"], row["passes"]) == (5, 10)  # 4 samples are two batches


def test_a_batch_is_bounded_where_nobody_said():
    few = Subject(ModelEntry("gaussian", 5000), sk.load("gaussian"), None)
    assert (few.batch_size, few.batches) == (512, 10)
    large = sk.wrap(lambda x, t: x, "epsilon", sk.VP(), shape=(2**20,))
    assert Subject(ModelEntry("gaussian", 5000), large, None).batch_size == 64
    assert Subject(ModelEntry("gaussian", 5000, batch_size=7), large, None).batch_size == 7
    assert small().override(batch_size=3).models[0].batch_size == 3
    assert small().override(model_options={"dim": 3}).models[0].options == {"dim": 3}


def test_rows_say_how_threads_wait(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    row = next(run_suite(small()))
    assert (row["threads"], row["omp_wait_policy"]) == (torch.get_num_threads(), "passive")
    monkeypatch.delenv("OMP_WAIT_POLICY")
    assert next(run_suite(small()))["omp_wait_policy"] is None


def test_what_was_warned_of_stands_in_the_row(recwarn, monkeypatch):
    def warn(*args, **kwargs):
        warnings.warn("each timestep is used once", stacklevel=2)
        return sk.sample(*args, **kwargs)

    monkeypatch.setattr(outcome, "sample", warn)
    assert next(run_suite(small()))["remarks"] == ["each timestep is used once"]
    assert not recwarn.list


def test_a_file_that_cannot_be_written_is_refused_before_a_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "open_subject", lambda *entry: pytest.fail("a model was loaded"))
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "file" / "results.jsonl", tmp_path, tmp_path / "pipe"):
        with pytest.raises(BenchError, match="cannot"):
            list(run_suite(small(), path))


def test_a_network_that_cannot_be_told_apart_is_measured_and_not_cached(monkeypatch):
    def refuse(denoiser):
        raise sk.errors.FingerprintError("a lambda")

    monkeypatch.setattr("solverkit.model.fingerprint.fingerprint", refuse)
    row = next(run_suite(small()))
    assert (row["model_fingerprint"], row["status"]) == (None, "ok") and row["ode_error"] > 0
    assert not references.cache_folder().exists()


def test_guidance_costs_two_evaluations():
    entry = ModelEntry("mnist", num_samples=1, options={"labels": 3, "guidance": 2.0})
    (row,) = run_suite(small(models=(entry,), samplers=("euler",), nfe=(2,), metrics=("fd",)))
    assert (row["status"], row["nfe"], row["fd"]) == ("ok", 4, None)


def test_error_falls_with_the_budget_and_batches_change_nothing():
    whole = list(run_suite(small(nfe=(4, 16))))
    parts = list(run_suite(small(nfe=(4, 16), models=(ModelEntry("gaussian", 4, batch_size=3, reference_steps=8),))))
    assert whole[1]["ode_error"] < whole[0]["ode_error"]
    for a, b in zip(whole, parts):
        assert a["ode_error"] == pytest.approx(b["ode_error"], rel=1e-4)
        assert a["nfe"] == b["nfe"]


def test_reference_is_the_exact_map_of_a_gaussian():
    denoiser = sk.problems.gaussian()
    start = denoiser.schedule.level(80.0)
    x = SampleNoise(sample_seeds(0, 4), denoiser.shape, torch.float64)(PRIOR) * 80.0
    exact = denoiser.transport(x, start, denoiser.schedule.at(0.0))
    errors = []
    for steps in (32, 64):
        x = references.solve(denoiser, 4, 0, steps).double()
        errors.append(float((x - exact).square().mean().sqrt()))
    assert errors[1] < 1e-4
    assert errors[1] < errors[0] / 8  # order 4


def test_reference_is_cached_and_a_broken_file_is_computed_again(tmp_path):
    denoiser = sk.problems.gaussian()
    key = references.reference_key(references.fingerprint(denoiser), 0, 8)
    assert references.find_reference(key, 4) is None
    made = references.compute_reference(denoiser, key, 4, 0, 8)
    found = references.find_reference(key, 2)  # the first samples of more
    assert torch.equal(found.x, made.x[:2])
    assert references.find_reference(key, 5) is None
    path = references.cache_folder() / f"{key}.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    assert references.find_reference(key, 4) is None


def test_fingerprint_sees_parameters_schedule_and_inputs():
    net = torch.nn.Linear(3, 3)
    net.forward = lambda x, t, **kwargs: x  # type: ignore[method-assign]
    denoiser = sk.wrap(net, "epsilon", sk.VP(), shape=(3,), labels=1)
    before = references.fingerprint(denoiser)
    denoiser(torch.zeros(1, 3), 1.0)
    assert references.fingerprint(denoiser) == before
    assert references.fingerprint(denoiser.with_inputs(labels=2)) != before
    assert references.fingerprint(sk.wrap(net, "epsilon", sk.VP("scaled_linear"), shape=(3,), labels=1)) != before
    with torch.no_grad():
        net.bias += 1
    assert references.fingerprint(denoiser) != before
    assert references.fingerprint(sk.problems.gaussian()) != references.fingerprint(sk.problems.gaussian(seed=1))


def test_a_failed_cell_is_a_row_and_the_run_goes_on(tmp_path):
    suite = small(samplers=("rk4", "diffusers:DDIMScheduler", "dpm-solver-12", "euler"), nfe=(1,), grid="karras")
    rows = list(run_suite(suite, tmp_path / "results.jsonl"))
    assert [row["status"][:6] for row in rows] == ["failed", "failed", "failed", "ok"] or rows[0]["status"] == "ok"
    assert "no grid 'karras'" in rows[1]["status"]
    assert rows[1]["ode_error"] is None
    assert len(read(tmp_path / "results.jsonl")) == 4
    (panel,) = make_panels(rows)
    assert any("DDIM" in text for text in panel.failures)


def test_a_stochastic_sampler_has_no_ode_error():
    suite = small(samplers=("ddpm", "diffusers:EulerAncestralDiscreteScheduler"), nfe=(5,), grid=None)
    for row in run_suite(suite):
        assert (row["status"], row["ode_error"]) == ("ok", None)


@pytest.mark.parametrize("change", [{"samplers": ("hein",)}, {"metrics": ("od_error",)}, {"grid": "karas"}])
def test_unknown_names_are_refused_before_anything_runs(change):
    with pytest.raises(UnknownNameError, match="Did you mean"):
        run_suite(small(**change))


def test_unknown_options_are_refused_before_anything_runs():
    with pytest.raises(OptionError, match="solver_order"):
        run_suite(small(samplers=(DPM,), options={DPM: {"solver_ordr": 3}}))
    with pytest.raises(OptionError, match="s_churn"):
        run_suite(small(options={"heun": {"churn": 3}}))
    with pytest.raises(UnknownNameError, match="DPMSolverMultistepScheduler"):
        run_suite(small(samplers=("diffusers:DPMSolverMultistp",)))


@pytest.mark.parametrize("schedule", [sk.VP(), sk.EDM(), sk.VP(continuous=True)], ids=["vp", "edm", "continuous"])
@pytest.mark.parametrize(("name", "ours", "options"), [(DPM, "dpmpp-2m", {}), (UNIPC, "unipc", {"order": 2})])
def test_peers_are_driven_exactly(schedule, name, ours, options):
    """Our own solver of the same formula, on the peer's levels, ends at the same samples."""
    denoiser = sk.problems.mixture(dim=6, modes=3, schedule=schedule)
    peer = run_peer(denoiser, name, 10, 4, seed=0, grid="karras")
    scheduler = build_peer(name, schedule, "karras", {})
    set_budget(scheduler, 10, schedule, "karras")
    grid = sk.Grid((*peer_levels(scheduler, schedule), schedule.at(0.0)), schedule)
    x = SampleNoise(sample_seeds(0, 4), denoiser.shape)(PRIOR) * schedule.prior_std(grid[0])
    assert (sk.sample(denoiser, ours, x=x, grid=grid, **options).x - peer.x).abs().max() < 1e-4
    assert (peer.nfe, peer.deterministic) == (10, True)


def test_peers_on_flow():
    denoiser = sk.problems.mixture(dim=6, modes=3, schedule=sk.Flow())
    ours = sk.sample(denoiser, "euler", nfe=10, num_samples=4, grid="flow").x
    theirs = run_peer(denoiser, "diffusers:FlowMatchEulerDiscreteScheduler", 10, 4)
    assert theirs.nfe == 10
    assert (theirs.x - ours).abs().max() < 0.1  # their last level is 0.001 above 0
    for name in (DPM, UNIPC):
        assert bool(run_peer(denoiser, name, 10, 4).x.isfinite().all())
    assert bool(run_peer(denoiser, UNIPC, 10, 4, grid="karras").x.isfinite().all())
    with pytest.raises(BenchError, match="flow"):
        run_peer(denoiser, "diffusers:EulerDiscreteScheduler", 10, 4)
    with pytest.raises(BenchError, match="flow models only"):
        run_peer(sk.problems.gaussian(), "diffusers:FlowMatchEulerDiscreteScheduler", 10, 4)


def test_metrics():
    denoiser = sk.problems.gaussian()
    x = denoiser.target.sample(600)
    truth = references.Reference(x + 0.5, 0.0)
    run = Run("gaussian", denoiser, x, True, lambda: truth)
    assert ode_error(run).value == pytest.approx(0.5)
    assert fd(run).value < 0.05
    assert fd(Run("gaussian", denoiser, x + 1, True, lambda: truth)).value == pytest.approx(8, rel=0.1)
    assert fd(Run("gaussian", denoiser, x[:100], True, lambda: truth)) is None
    assert ode_error(Run("gaussian", denoiser, x, False, lambda: truth)) is None


def test_store_tolerates_a_cut_line(tmp_path):
    path = tmp_path / "results.jsonl"
    rows = list(run_suite(small(samplers=("euler",)), path))
    with path.open("a") as file:
        file.write(json.dumps(rows[0])[:50])
    assert read(path) == rows
    append(path, rows[1])
    assert read(path) == [*rows, rows[1]]
    assert latest(read(path)) == rows
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(BenchError, match="no result rows"):
        read(tmp_path / "empty.jsonl")
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(BenchError, match="no result row"):
        read(tmp_path / "other.jsonl")
    with pytest.raises(BenchError, match="cannot read"):
        read(tmp_path / "missing.jsonl")


def test_report_of_a_sweep_shows_the_best_grid(tmp_path):
    rows = list(run_suite(small(samplers=("euler", UNIPC), grid="best", grids=("karras", "log-snr"))))
    assert len(rows) == 8
    assert metric_names(rows) == ["ode_error"]
    (panel,) = make_panels(rows)
    for budget in (5, 8):
        values = {r["grid"]: r["ode_error"] for r in rows if r["sampler"] == "euler" and r["budget"] == budget}
        assert panel.points["euler"][budget].value == min(values.values())
        assert best_grids(rows)["gaussian"]["euler"][(5, 8).index(budget)] == min(values, key=values.get)
    assert make_table(panel).row_count == 2
    write_figure([panel], tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(UnknownNameError):
        make_panels(rows, "speed")


def test_report_warns_of_a_doubtful_reference():
    entry = ModelEntry("gaussian", 4, reference_steps=2)
    rows = list(
        run_suite(small(models=(entry,), samplers=("dpmpp-2m",), nfe=(20,), metrics=("ode_error", "reference_error")))
    )
    assert "reference_steps" in make_panels(rows)[0].warnings[0]


SUITE = """
name = "mine"
nfe = [5, 10]
samplers = ["euler", "heun"]
grids = ["karras", "log-snr"]

[models.gaussian]
num_samples = 8
grid = "karras"
[models.gaussian.grids]
heun = ["log-snr", "time-uniform"]
euler = "best"

[options.heun]
s_churn = 0.0

[[cells]]
model = "gaussian"
sampler = "dpmpp-2m"
nfe = 7
"""


def test_a_suite_file_expands_to_cells(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(SUITE)
    suite = load_suite(path)
    cells = [(c.sampler, c.nfe, c.grid) for c in suite.cells()]
    assert cells == [
        ("euler", 5, "karras"), ("euler", 5, "log-snr"), ("euler", 10, "karras"), ("euler", 10, "log-snr"),
        ("heun", 5, "log-snr"), ("heun", 10, "time-uniform"), ("dpmpp-2m", 7, "karras"),
    ]  # fmt: skip
    narrowed = suite.override(samplers=["heun"], nfe=[9], num_samples=2, seed=3)
    assert [(c.sampler, c.nfe, c.grid, c.model.num_samples) for c in narrowed.cells()] == [("heun", 9, "time-uniform", 2)]
    assert [c.grid for c in suite.override(samplers=["heun"], grids=["best"], nfe=[9]).cells()] == ["karras", "log-snr"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('sampler = ["euler"]', "Did you mean 'samplers'"),
        ("[models.gaussian]\nnum_sample = 3", "Did you mean 'num_samples'"),
        ("nfe = [0]", "positive integer"),
        ('nfe = "5"', "list of int"),
        ("[models.gaussian]\nnum_samples = -1", "positive integer"),
        ('nfe = [5, 6]\n[models.gaussian.grids]\neuler = ["karras"]', "1 grids for 2 budgets"),
        ('[[cells]]\nmodel = "mixture"\nsampler = "euler"', "does not have"),
        ('[[cells]]\nmodel = "mixture"', "lacks 'sampler'"),
    ],
)
def test_a_suite_with_a_mistake_says_so(tmp_path, text, message):
    path = tmp_path / "suite.toml"
    path.write_text(text)
    with pytest.raises(OptionError, match=message):
        load_suite(path)


def test_suites_that_cannot_be_read(tmp_path):
    with pytest.raises(BenchError, match="Did you mean 'quick'"):
        load_suite("quik")
    (tmp_path / "broken.toml").write_text("nfe = [")
    with pytest.raises(BenchError, match="not valid TOML"):
        load_suite(tmp_path / "broken.toml")
    with pytest.raises(BenchError, match="nothing to run"):
        run_suite(parse_suite({"nfe": [5]}))


def test_the_default_suite_is_what_the_documentation_says():
    suite = load_suite()
    assert [model.name for model in suite.models] == ["mnist", "mnist-flow", "mixture"]
    assert suite.nfe == (5, 6, 8, 10, 15, 20)
    assert len(list(suite.cells())) == 3 * 9 * 6
