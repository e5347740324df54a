"""One process a GPU: CPU stands in for the devices, and what they make is what one process makes, whoever dies."""

from __future__ import annotations

import pytest
import torch

from solverkit.bench import devices
from solverkit.bench.devices import Devices, devices_of
from solverkit.bench.engine import Ahead, Local, make_with, open_engine, tasks_of
from solverkit.bench.outcome import joined, make_block
from solverkit.bench.runner import run_suite
from solverkit.bench.store import DATABASE, read
from solverkit.bench.subject import open_subject
from solverkit.bench.suite import Cell, ModelEntry, Suite

MODEL = """
import os, signal
from pathlib import Path
import solverkit as sk

FOLDER = Path(__file__).parent

def net(device):
    (FOLDER / f"{device}-{os.getpid()}").touch()
    return sk.load("mixture", dim=4, modes=3)

def deadly(model, x, grid, noise):
    for s, t in grid.steps():
        x = x + (t - s) * (x - model(x, s)) / s + 0.01 * t * noise(s, t)
    marker = FOLDER / "died"
    if type(x).__name__ == "Tensor" and not marker.exists():  # whoever is first, once
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return x
"""
NAMES = ["first", "second"]  # what stands in for cuda:0 and cuda:1


@pytest.fixture
def entry(tmp_path, monkeypatch):
    monkeypatch.setenv("SOLVERKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "own.py").write_text(MODEL)
    options = {"device": "parent"}
    return ModelEntry(f"{tmp_path / 'own.py'}:net", 11, batch_size=2, reference_steps=8, options=options)


@pytest.fixture
def engine():
    opened = Devices(NAMES)
    yield opened
    opened.close()


@pytest.mark.parametrize("sampler", ["unipc", "ddpm"])
def test_devices_make_what_one_process_makes(entry, engine, tmp_path, sampler):
    cell = Cell(entry, sampler, {}, "karras", 6, seed=3)
    subject = open_subject(entry)
    whole = make_block(cell, subject, {})
    found = [done for _, done in engine.results(tasks_of(cell, subject, {}, batches=1))]
    assert len(found) == 6 and not any(isinstance(done, str) for done in found), found
    parts = joined(found)
    assert torch.equal(parts.x, whole.x) and (parts.rows, parts.passes) == (whole.rows, whole.passes)
    used = {path.name.rpartition("-")[0] for path in tmp_path.glob("*-*") if path.is_file()}
    assert used == {"parent", *NAMES}


def test_a_block_whose_process_died_is_made_again(entry, engine, tmp_path):
    cell = Cell(entry, f"{tmp_path / 'own.py'}:deadly", {}, "karras", 4, seed=3)
    subject = open_subject(entry)
    found = [done for _, done in engine.results(tasks_of(cell, subject, {}, batches=1))]
    assert (tmp_path / "died").exists() and len(found) == 6
    parts = joined(found)
    assert torch.equal(parts.x, make_block(cell, subject, {}).x) and parts.rows == 11 * 4


def test_a_run_on_devices_has_the_rows_of_one_process(entry, engine, tmp_path):
    suite = Suite(models=(entry,), samplers=("euler", "ddpm"), nfe=(4, 6), metrics=("energy", "mode_weights"))
    suite = suite.override(num_samples=100)
    rows = list(run_suite(suite, tmp_path / "a" / DATABASE, make=Ahead(engine)))
    alone = list(run_suite(suite, tmp_path / "b" / DATABASE))
    kept = ("key", "sampler", "budget", "nfe", "energy", "mode_weights", "status", "intervals")
    assert [[row[k] for k in kept] for row in rows] == [[row[k] for k in kept] for row in alone]
    assert {row["status"] for row in rows} == {"ok"} and len(read(tmp_path / "a")) == 4


def test_the_default_engine_has_a_process_for_each_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(devices, "_opened", lambda: None)
    gpu, cpu = ModelEntry("mnist", options={"device": "cuda"}), ModelEntry("mixture")
    assert devices_of([gpu]) == ["cuda:0", "cuda:1"] and devices_of([gpu, cpu]) == []
    assert devices_of([ModelEntry("mnist", options={"device": "cuda:1"})]) == []
    engine = open_engine("local", [gpu])
    assert isinstance(engine, Devices) and isinstance(make_with(engine), Ahead)
    assert isinstance(open_engine("local", [cpu]), Local) and make_with(open_engine("local", [cpu])) is None
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert isinstance(open_engine("local", [gpu]), Local)
