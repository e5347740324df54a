"""Blocks of samples, made anywhere: the same samples, whoever dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from solverkit.bench import shards
from solverkit.bench.engine import Ahead, Local, Ray, open_engine, tasks_of
from solverkit.bench.outcome import joined, make_block
from solverkit.bench.runner import run_suite
from solverkit.bench.shards import read_shards, write_shards
from solverkit.bench.store import DATABASE, read
from solverkit.bench.subject import open_subject
from solverkit.bench.suite import Cell, ModelEntry, Suite
from solverkit.cli import main
from solverkit.errors import BenchError, LoadError, OptionError, UnknownNameError

OWN = """
import os, signal
def deadly(model, x, grid, noise, *, marker: str = ""):
    for s, t in grid.steps():
        x = x + (t - s) * (x - model(x, s)) / s + 0.01 * t * noise(s, t)
    if type(x).__name__ == "Tensor" and len(x) == 3 and not os.path.exists(marker):  # the last block, the first time
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return x
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SOLVERKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, ignore_reinit_error=True)
    yield Ray()
    ray.shutdown()


def cell_of(sampler="euler", n=19, **options) -> Cell:
    return Cell(ModelEntry("mixture", n, batch_size=4, reference_steps=8), sampler, options, "karras", 6, seed=3)


@pytest.mark.parametrize("sampler", ["unipc", "ddpm"])
def test_blocks_are_together_what_one_process_makes(sampler):
    cell = cell_of(sampler)
    subject = open_subject(cell.model)
    whole = make_block(cell, subject, {})
    tasks = tasks_of(cell, subject, {})
    assert [(task.start, task.stop) for task in tasks] == [(0, 4), (4, 8), (8, 12), (12, 16), (16, 19)]
    parts = [done for _, done in Local().results(tasks[::-1])]
    again = joined(parts)
    assert torch.equal(again.x, whole.x)
    assert (again.rows, again.passes, again.asked) == (whole.rows, whole.passes, whole.asked)
    assert len(tasks_of(cell, subject, {}, batches=2)) == 3


@pytest.mark.parametrize("sampler", ["unipc", "ddpm"])
def test_a_network_makes_the_same_bits_in_blocks(sampler):
    cell = Cell(ModelEntry("mnist-flow", 5, batch_size=2), sampler, {}, "flow", 3)
    subject = open_subject(cell.model)
    parts = [done for _, done in Local().results(tasks_of(cell, subject, {}))]
    assert torch.equal(joined(parts).x, make_block(cell, subject, {}).x)


def test_ray_makes_the_same_after_a_worker_was_killed(cluster, tmp_path):
    file, marker = tmp_path / "own.py", tmp_path / "killed"
    file.write_text(OWN)
    cells = [cell_of("unipc"), cell_of("ddpm"), cell_of(f"{file}:deadly", marker=str(marker))]
    subject = open_subject(cells[0].model)
    made = [{task.start: done for task, done in cluster.results(tasks_of(cell, subject, {}))} for cell in cells]
    assert marker.exists()  # a worker died
    for cell, blocks in zip(cells, made):
        assert sorted(blocks) == [0, 4, 8, 12, 16]
        together, alone = joined(list(blocks.values())), make_block(cell, subject, {})
        assert torch.equal(together.x, alone.x)
        assert (together.rows, together.passes) == (alone.rows, alone.passes)  # nothing is counted twice


def test_a_bench_by_ray_has_the_rows_of_one_process(cluster, tmp_path):
    def broken(model, x, grid, noise):
        raise ValueError("no luck")

    suite = Suite(
        models=(ModelEntry("gaussian", 10, batch_size=4, reference_steps=8),), nfe=(5, 7), metrics=("ode_error",),
        samplers=("euler", "ddpm", "broken", "diffusers:DPMSolverMultistepScheduler"), given={"broken": broken},
    )  # fmt: skip
    here = list(run_suite(suite))
    there = list(run_suite(suite, tmp_path / DATABASE, make=Ahead(cluster)))
    names = ("sampler", "budget", "nfe", "asked", "passes", "ode_error", "intervals", "num_samples")
    assert [row["status"][:6] for row in there] == ["ok", "ok", "ok", "ok", "failed", "failed", "ok", "ok"]
    assert [[row[name] for name in names] for row in here] == [[row[name] for name in names] for row in there]
    assert all("no luck" in row["status"] for row in there if row["sampler"] == "broken")
    assert len(read(tmp_path)) == 8


def test_shards_go_on_where_they_were_stopped(tmp_path, monkeypatch):
    cell = cell_of("ddpm")
    subject = open_subject(cell.model)
    made = []
    run_task = shards.Local.results

    class Dies(Local):
        def results(self, tasks):
            for i, one in enumerate(run_task(self, tasks)):
                if i == 2:
                    raise KeyboardInterrupt
                made.append(one[0].start)
                yield one

    with pytest.raises(KeyboardInterrupt):
        write_shards(cell, subject, tmp_path / "out", Dies())
    with pytest.raises(LoadError, match="not complete"):
        read_shards(tmp_path / "out")
    (tmp_path / "out" / "00000004.json").unlink()  # killed between a block and its record

    class Seen(Local):
        def results(self, tasks):
            made.append([task.start for task in tasks])
            return run_task(self, tasks)

    manifest = write_shards(cell, subject, tmp_path / "out", Seen())
    assert made == [0, 4, [4, 8, 12, 16]]
    assert torch.equal(read_shards(tmp_path / "out"), make_block(cell, subject, {}).x)
    assert manifest["nfe"] == 6 and manifest["passes"] == 30
    write_shards(cell, subject, tmp_path / "out", Seen())
    assert made[-1] == []
    other = cell_of("euler")
    with pytest.raises(OptionError, match="another run"):
        write_shards(other, subject, tmp_path / "out", Local())


def test_a_block_that_cannot_be_made_says_why(tmp_path):
    def broken(model, x, grid, noise):
        raise ValueError("no luck")

    cell = cell_of("broken")
    with pytest.raises(BenchError, match="samples 0 to 3: ValueError: no luck"):
        write_shards(cell, open_subject(cell.model), tmp_path / "out", Local(), given={"broken": broken})


def test_the_command_samples_into_a_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["sample", "mnist-flow", "-s", "unipc:order=2", "-n", "2", "-k", "3", "--batch", "2", "--engine", "local"]
    for kind in ("safetensors", "png"):
        with pytest.raises(SystemExit) as end:
            main([*words, "--format", kind, "-o", kind])
        assert end.value.code == 0
    capsys.readouterr()
    manifest = json.loads(Path("safetensors/manifest.json").read_text())
    assert manifest["complete"] and manifest["options"] == {"order": 2} and len(manifest["shards"]) == 2
    assert read_shards(Path("safetensors")).shape == (3, 1, 28, 28)
    assert sorted(p.name for p in Path("png").rglob("*.png")) == [f"{i:08d}.png" for i in range(3)]
    with pytest.raises(SystemExit) as end:
        main(["sample", "gaussian", "--engine", "rya", "-o", "x"])
    assert end.value.code == 2 and "Did you mean 'ray'" in capsys.readouterr().err


def test_engines_have_names(monkeypatch):
    assert isinstance(open_engine("local"), Local)
    with pytest.raises(UnknownNameError):
        open_engine("spark")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(OptionError, match=r"solverkit\[ray\]"):
        open_engine("ray")


def test_killed_while_it_samples_the_command_goes_on(tmp_path):
    out = tmp_path / "out"
    words = ["sample", "mixture", "-s", "ddpm", "-n", "40", "-k", "400", "--batch", "10", "--engine", "local"]
    words += ["-o", str(out)]
    command = [sys.executable, "-c", "import sys; from solverkit.cli import main; main(sys.argv[1:])", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    process.stderr.readline()
    process.kill()
    process.wait()
    there = {p.name: p.stat().st_mtime_ns for p in out.glob("*.safetensors")}
    assert 0 < len(there) < 40
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert all((out / name).stat().st_mtime_ns == time for name, time in there.items() if (out / name).with_suffix(".json"))
    cell = Cell(ModelEntry("mixture", 400, batch_size=10), "ddpm", {}, None, 40)
    assert torch.equal(read_shards(out), make_block(cell, open_subject(cell.model), {}).x)
