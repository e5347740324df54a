"""A finished run is found by what its command asked, without a network; any difference is another request."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from solverkit.bench import request, runner
from solverkit.bench.request import request_digest
from solverkit.bench.run_store import RunStore
from solverkit.bench.runner import run_suite
from solverkit.bench.store import DATABASE
from solverkit.bench.suite import ModelEntry, Suite

HEAVY = ("diffusers", "transformers", "scipy", "matplotlib", "plotly", "pandas", "ray", "torch._dynamo")
SCRIPT = f"""
import sys
sys.argv = ["solverkit", *sys.argv[1:]]
from solverkit.cli import main
try:
    main()
finally:
    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SOLVERKIT_CACHE", str(tmp_path / "cache"))


def suite(**changes) -> Suite:
    models, samplers = (ModelEntry("mnist", num_samples=2),), ("euler", "diffusers:DDIMScheduler")
    return Suite(**{"models": models, "samplers": samplers, "nfe": (5,), **changes})


def digest(**changes):
    asked = suite(**changes)
    return request_digest(asked, list(asked.cells()))


def test_a_finished_run_imports_nothing_heavy(tmp_path):
    asked = ("bench", "-m", "mnist", "-s", "euler,diffusers:DDIMScheduler", "-n", "2", "-k", "2", "--csv", "rows.csv")
    how = {"cwd": tmp_path, "env": dict(os.environ), "capture_output": True, "text": True}
    runs = [subprocess.run([sys.executable, "-c", SCRIPT, *asked], **how) for _ in range(2)]
    assert [run.returncode for run in runs] == [0, 0], runs[-1].stderr
    assert "diffusers" in runs[0].stderr.splitlines()[-1]
    assert runs[1].stderr.splitlines()[-1] == "[]"
    assert runs[1].stdout == runs[0].stdout


def test_what_is_asked_is_known_by_its_files(tmp_path, monkeypatch):
    data, networks, first = tmp_path / "x.npy", tmp_path / "networks", digest()
    shutil.copytree(request.NETWORKS / "mnist", networks / "mnist")
    monkeypatch.setattr(request, "NETWORKS", networks)
    assert digest() == first == digest()  # where the files lie is not what they are
    found = [first]
    weights = networks / "mnist" / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    found.append(digest())
    for text in (b"one", b"two"):
        data.write_bytes(text)
        found.append(digest(models=(ModelEntry("mnist", num_samples=2, data=str(data)),)))
    changes = (
        {"nfe": (6,)}, {"seed": 1}, {"grid": "karras"}, {"metrics": ("ode_median",)}, {"caches": ("frozen:every=2",)},
        {"samplers": ("euler",)}, {"samplers": ("unipc",)}, {"samplers": ("unipc:order=2",)},
        {"models": (ModelEntry("mnist", num_samples=3),)}, {"models": (ModelEntry("mnist", num_samples=2, batch_size=1),)},
        {"models": (ModelEntry("mnist", num_samples=2, options={"labels": 3}),)},
    )  # fmt: skip
    found += [digest(**change) for change in changes]
    sources = request._sources
    monkeypatch.setattr(request, "_sources", lambda package, room="": sources(package, room)[1:])
    found.append(digest())
    monkeypatch.setattr(request, "_version", lambda package: "another")
    found.append(digest())
    assert None not in found and len(set(found)) == len(found)


@pytest.mark.parametrize(
    "changes",
    [
        {"samplers": ("auto",)}, {"samplers": ("teleport:solver=euler",)}, {"models": (ModelEntry("org/name"),)},
        {"models": (ModelEntry("mine.py:net"),)}, {"given": {"euler": print}},
        {"models": (ModelEntry("mnist", data="nowhere.npy"),)},
    ],
    ids=["fitted plans", "statistics", "hub", "file", "object", "no data"],
)  # fmt: skip
def test_what_depends_on_more_than_known_files_is_looked_at_anew(changes):
    assert digest(**changes) is None


def test_rows_that_are_asked_for_again_are_measured_again(tmp_path, monkeypatch):
    asked, path = suite(models=(ModelEntry("gaussian", 4),), samplers=("euler",), metrics=("energy",)), tmp_path / DATABASE
    (row,) = run_suite(asked, path)
    opened = []
    real = runner.open_subject
    monkeypatch.setattr(runner, "open_subject", lambda *args: opened.append(args) or real(*args))
    assert list(run_suite(asked, path)) == list(run_suite(asked, path, retry_failed=True)) == [row] and not opened
    with RunStore(path) as store:
        store.finish(row["key"], {**row, "status": "failed: for a test"})
    assert [r["status"] for r in run_suite(asked, path)] == ["failed: for a test"] and not opened
    assert [r["status"] for r in run_suite(asked, path, retry_failed=True)] == ["ok"] and opened
    with RunStore(path) as store:
        store.forget([row["key"]])
    assert [r["key"] for r in run_suite(asked, path)] == [row["key"]] and len(opened) == 2
