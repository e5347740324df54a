"""Two runs beside each other."""

from __future__ import annotations

import json

import numpy as np
import pytest

from solverkit.bench.comparison import compare
from solverkit.bench.runner import run_suite
from solverkit.bench.store import write_lines
from solverkit.bench.suite import ModelEntry, Suite
from solverkit.cli import main
from solverkit.errors import BenchError


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SOLVERKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def rows():
    suite = Suite(models=(ModelEntry("gaussian", 32, reference_steps=8),), samplers=("euler", "heun"), nfe=(5, 9),
                  metrics=("ode_error",))  # fmt: skip
    return list(run_suite(suite))


def scaled(row, factor, jitter=0.0):
    values = np.array(row["values"]["ode_error"]) * factor
    values *= np.exp(jitter * np.random.default_rng(0).normal(size=len(values)))
    value = float(np.sqrt(np.mean(values**2)))
    return {**row, "ode_error": value, "values": {"ode_error": list(values)}}


def test_a_run_ties_with_itself(rows):
    found = compare(rows, rows)
    assert len(found.changes) == 4 and not found.regressions
    assert {change.verdict for change in found.changes} == {"tie"}


def test_what_is_worse_on_every_sample_is_worse_however_little(rows):
    found = compare(rows, [scaled(rows[0], 1.02), *rows[1:]])
    assert [change.verdict for change in found.changes] == ["worse", "tie", "tie", "tie"]
    assert found.changes[0].interval == pytest.approx((0.02, 0.02))
    found = compare(rows, [scaled(rows[0], 0.98), *rows[1:]])
    assert [change.verdict for change in found.changes] == ["better", "tie", "tie", "tie"]


def test_what_lies_inside_the_interval_is_a_tie(rows):
    assert not compare(rows, [scaled(row, 1.02, jitter=0.5) for row in rows]).regressions


def test_failures_evaluations_and_missing_cells(rows):
    broken = {**rows[0], "status": "failed: no luck", "ode_error": None}
    found = compare(rows, [broken, {**rows[1], "nfe": rows[1]["nfe"] + 1}, rows[2], {**rows[3], "budget": 10}])
    assert [(c.metric, c.verdict) for c in found.regressions] == [("status", "failed"), ("nfe", "worse")]
    assert len(found.only_before) == len(found.only_after) == 1
    assert [c.verdict for c in compare([broken], rows[:1]).changes] == ["better"]
    with pytest.raises(BenchError, match="share no cell"):
        compare(rows[:1], rows[1:])
    with pytest.raises(BenchError, match="fd"):
        compare(rows, rows, "fd")


def test_rows_without_values_are_compared_by_their_intervals(rows):
    bare = [{**row, "values": {}} for row in rows]
    assert not compare(bare, [{**row, "ode_error": row["ode_error"] * 1.01} for row in bare]).regressions
    assert len(compare(bare, [{**row, "ode_error": row["ode_error"] * 3} for row in bare]).regressions) == 4


def test_the_command_is_a_gate(rows, tmp_path, capsys):
    write_lines(tmp_path / "a.jsonl", rows)
    write_lines(tmp_path / "b.jsonl", [scaled(rows[0], 1.5), *rows[1:]])
    main_code = _code("compare", str(tmp_path / "a.jsonl"), str(tmp_path / "a.jsonl"))
    assert main_code == 0 and "4 ties" in capsys.readouterr().out
    assert _code("compare", str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")) == 1
    out = capsys.readouterr().out
    assert "worse" in out and "euler" in out
    assert _code("compare", str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"), "--json") == 1
    assert sum(change["regression"] for change in json.loads(capsys.readouterr().out)["changes"]) == 1
    assert _code("compare", str(tmp_path / "a.jsonl"), str(tmp_path / "missing")) == 2


def _code(*arguments):
    try:
        main(list(arguments))
    except SystemExit as end:
        return end.code or 0
    return 0
