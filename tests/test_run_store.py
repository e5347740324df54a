"""The database of a run: it goes on after any end, two processes share it, and what goes wrong is said."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from solverkit.bench import run_store, runner
from solverkit.bench.run_store import RunStore
from solverkit.bench.runner import run_suite
from solverkit.bench.store import DATABASE, latest, read, write_csv, write_lines, write_parquet
from solverkit.bench.suite import ModelEntry, Suite
from solverkit.errors import BenchError

MEASURED = {"time", "peak_memory_bytes", "images_per_second", "git_commit"}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SOLVERKIT_CACHE", str(tmp_path / "cache"))


def suite(**changes) -> Suite:
    fields = {
        "models": (ModelEntry("gaussian", num_samples=4, reference_steps=8),), "samplers": ("euler", "heun"), "nfe": (5, 8),
        "metrics": ("ode_error",),
    }  # fmt: skip
    return Suite(**{**fields, **changes})


def fixed(row):
    """What does not depend on the clock."""
    return {name: value for name, value in row.items() if name not in MEASURED and not name.startswith("seconds")}


def test_what_is_stored_is_not_run_again(tmp_path, monkeypatch):
    path = tmp_path / DATABASE
    first = list(run_suite(suite(), path))
    monkeypatch.setattr(runner, "run_cell", lambda *args, **kwargs: pytest.fail("a cell was run again"))
    assert list(run_suite(suite(), path)) == first == read(tmp_path)


def test_a_change_of_anything_that_counts_is_another_cell(tmp_path):
    path = tmp_path / DATABASE
    keys = [row["key"] for row in run_suite(suite(samplers=("unipc",), nfe=(5,)), path)]
    changes = (
        {"samplers": ("unipc:order=2",)}, {"nfe": (6,)}, {"grid": "log-snr"}, {"seed": 1}, {"metrics": ("ode_median",)},
        {"caches": ("frozen:every=2",)}, {"models": (ModelEntry("gaussian", num_samples=5, reference_steps=8),)},
        {"models": (ModelEntry("gaussian", num_samples=4, reference_steps=16),)},
        {"models": (ModelEntry("gaussian", num_samples=4, reference_steps=8, batch_size=3),)},
        {"models": (ModelEntry("gaussian", num_samples=4, reference_steps=8, options={"dim": 3}),)},
    )  # fmt: skip
    for change in changes:
        keys += [row["key"] for row in run_suite(suite(**{"samplers": ("unipc",), "nfe": (5,), **change}), path)]
    assert len(set(keys)) == len(keys) == len(changes) + 1


def test_a_changed_sampler_is_run_again_and_an_unchanged_one_is_not(tmp_path):
    file = tmp_path / "mine.py"
    text = (
        "def mine(model, x, grid, noise):\n    for s, t in grid.steps():\n        d = (x - model(x, s)) / s\n"
        "        x = x + WEIGHT * (t - s) * d\n    return x\n"
    )
    own = suite(samplers=(f"{file}:mine",), nfe=(4,))
    keys = []
    for weight in ("1.0", "1.0 ", "0.5"):
        file.write_text(text.replace("WEIGHT", weight))
        (row,) = run_suite(own, tmp_path / DATABASE)
        assert row["status"] == "ok"
        keys.append(row["key"])
    assert keys[0] == keys[1] != keys[2]  # a blank changes no plan


def test_rows_that_failed_stay_unless_they_are_asked_for_again(tmp_path):
    path = tmp_path / DATABASE
    broken = suite(samplers=("rk4",), nfe=(1,))
    (first,) = run_suite(broken, path)
    assert first["status"].startswith("failed")
    assert list(run_suite(broken, path)) == [first]
    (again,) = run_suite(broken, path, retry_failed=True)
    assert again["key"] == first["key"] and again["seconds_total"] is None


RUN = """
import sys, time
from solverkit.bench import cell, runner
from solverkit.bench.runner import run_suite
from solverkit.bench.suite import ModelEntry, Suite
made = cell.make_block
def slowly(*args):
    time.sleep(0.02)
    return made(*args)
suite = Suite(models=(ModelEntry("gaussian", num_samples=4, reference_steps=8),),
              samplers=("euler", "heun", "dpmpp-2m", "ddpm"), nfe=tuple(range(3, 9)), metrics=("ode_error",))
from pathlib import Path
for row in run_suite(suite, Path(sys.argv[1]), make=slowly):
    print(row["key"], flush=True)
"""


def begin(path, **more):
    return subprocess.Popen([sys.executable, "-c", RUN, str(path)], stdout=subprocess.PIPE, text=True, **more)


def test_killed_at_any_moment_it_goes_on_with_the_same_rows(tmp_path):
    whole = begin(tmp_path / "whole.sqlite")
    assert whole.wait() == 0
    chance = random.Random(0)
    path = tmp_path / "killed.sqlite"
    seen: list[str] = []
    for _ in range(10 if os.environ.get("SOLVERKIT_PROOFS") == "full" else 4):
        process = begin(path)
        process.stdout.readline()  # it has begun
        time.sleep(chance.uniform(0.0, 0.12))
        process.send_signal(signal.SIGKILL)
        process.wait()
        stored = [row["key"] for row in read(path)]
        assert seen == stored[: len(seen)]  # nothing that was there is lost
        seen = stored
    assert begin(path).wait() == 0
    killed, expected = read(path), read(tmp_path / "whole.sqlite")
    assert len(killed) == 24 == len({row["key"] for row in killed})
    assert [fixed(row) for row in killed] == [fixed(row) for row in expected]
    assert RunStore(path)._db.execute("SELECT count(*) FROM claims").fetchone() == (0,)


def test_two_processes_share_a_run(tmp_path):
    path = tmp_path / DATABASE
    both = [begin(path), begin(path)]
    printed = [process.communicate(timeout=120)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert set(printed[0]) == set(printed[1]) == {row["key"] for row in read(path)}
    assert [len(keys) for keys in printed] == [24, 24]


def test_a_cell_that_another_process_works_on_is_left_to_it(tmp_path, monkeypatch):
    mine, other = RunStore(tmp_path / DATABASE), RunStore(tmp_path / DATABASE)
    assert other.claim("a") and not mine.claim("a") and mine.claim("b")
    other.finish("a", {"machine": run_store.machine(), "x": 1})
    assert not mine.claim("a") and mine.finished("a")["x"] == 1
    assert other.claim("c")
    other._db.execute("UPDATE claims SET process = 4194304 + 17 WHERE key = 'c'")  # no such process
    assert mine.claim("c")
    assert other.claim("d")
    other._db.execute("UPDATE claims SET beat = beat - 100, boot = 'elsewhere' WHERE key = 'd'")  # no sign of life
    assert mine.claim("d")


def test_rows_of_other_machines_are_merged_and_told_apart(tmp_path):
    rows = list(run_suite(suite(), tmp_path / DATABASE))
    others = [{**row, "machine": "another", "ode_error": 7.0} for row in rows]
    with RunStore(tmp_path / DATABASE) as store:
        assert store.merge(others) == 4
        assert store.merge(others) == 0
        assert store.merge([{**others[0], "time": "2999-01-01T00:00:00+00:00"}]) == 1
        assert len(store.rows()) == 8
    assert len(latest(read(tmp_path))) == 8


def test_exports_hold_the_rows(tmp_path):
    import csv

    import pyarrow.parquet

    rows = list(run_suite(suite(), tmp_path / DATABASE))
    write_lines(tmp_path / "rows.jsonl", rows)
    assert read(tmp_path / "rows.jsonl") == rows
    write_csv(tmp_path / "rows.csv", rows)
    with (tmp_path / "rows.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(row["ode_error"]) for row in table] == [row["ode_error"] for row in rows]
    assert json.loads(table[0]["intervals"]) == rows[0]["intervals"]
    write_parquet(tmp_path / "rows.parquet", rows)
    table = pyarrow.parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    assert [row["ode_error"] for row in table] == [row["ode_error"] for row in rows]


def test_a_store_of_a_newer_version_is_refused_and_left_alone(tmp_path):
    path = tmp_path / DATABASE
    RunStore(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    for readonly in (False, True):
        with pytest.raises(BenchError, match="newer solverkit"):
            RunStore(path, readonly)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"no database at all" * 100, None], ids=["other", "damaged"])
def test_a_corrupt_store_is_told_and_left_alone(tmp_path, content):
    path = tmp_path / DATABASE
    list(run_suite(suite(), path))
    sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if content is None:
        whole = path.read_bytes()
        content = whole[:100] + b"\xff" * (len(whole) - 200) + whole[-100:]
    path.write_bytes(content)
    with pytest.raises(BenchError, match="damaged"):
        list(run_suite(suite(), path))
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(*args, **more):
        raise sqlite3.OperationalError("attempt to write a readonly database")

    list(run_suite(suite(), tmp_path / DATABASE))
    monkeypatch.setattr(RunStore, "_transaction", refuse)
    with pytest.raises(BenchError, match="read-only"):
        list(run_suite(suite(nfe=(9,)), tmp_path / DATABASE))
    monkeypatch.setattr(os, "access", lambda *args: False)
    assert len(read(tmp_path)) == 4


def test_a_full_disk_loses_nothing(tmp_path):
    path = tmp_path / DATABASE
    kept = list(run_suite(suite(nfe=(5,)), path))
    with RunStore(path) as store:
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(BenchError, match="disk is full"):
            for i in range(1000):
                store.finish(f"{i}", {"machine": "m", "text": "x" * 4000})
        assert store.rows()[:2] == kept
    assert list(run_suite(suite(nfe=(5,)), path)) == kept


def test_a_reader_needs_no_right_to_write(tmp_path):
    list(run_suite(suite(), tmp_path / DATABASE))
    (tmp_path / DATABASE).chmod(0o444)
    with RunStore(tmp_path / DATABASE, readonly=True) as store:
        assert len(store.rows()) == 4
    with pytest.raises(BenchError, match="no such file"):
        RunStore(tmp_path / "missing.sqlite", readonly=True)
