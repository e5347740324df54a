"""`solverkit bench --suite inverse`: its rows, that it goes on where it stopped, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from solverkit.bench.inverse_front import TASKS, figures, run


def test_exact_draws_have_the_exact_posteriors_figures():
    rows = list(run("mixture", 24, ["diffpir exact rho"], done={(t, "diffpir exact rho") for t in TASKS[1:]}))
    exact = {row["task"]: row for row in rows if row["method"] == "exact draws"}
    assert list(exact) == list(TASKS) and all(row["nfe"] == 0 for row in exact.values())
    for row in exact.values():  # means of 24 draws are 1 / sqrt(24) of the width off, whatever the truth
        assert sum(row["mean"]) / 24 == pytest.approx(24**-0.5, rel=0.15)
        assert sum(row["width"]) / 24 == pytest.approx(1.0, abs=0.15)
        assert 0.75 < sum(row["covered"]) / 24 < 0.95
    (row,) = (row for row in rows if row["method"] != "exact draws")
    assert row["task"] == "inpainting" and row["nfe"] == 50 and sum(row["mean"]) > 1.5 * sum(exact["inpainting"]["mean"])
    assert figures(row)[2].endswith("%")


def test_the_command_goes_on_where_it_stopped_and_draws_the_digits(cli):
    said = ["-q", "bench", "--suite", "inverse", "-m", "mnist", "-k", "1", "-s", "diffpir exact rho", "--out", "run"]
    code, out, err = cli(*said)
    assert code == 0 and "run/report.png" in out, err
    assert Path("run/report.png").stat().st_size > 5000
    lines = Path("run/results.jsonl").read_text().splitlines()
    assert [json.loads(line)["task"] for line in lines] == list(TASKS)
    Path("run/results.jsonl").write_text("\n".join(lines[:3]) + "\n")
    assert cli(*said)[0] == 0
    again = [json.loads(line) for line in Path("run/results.jsonl").read_text().splitlines()]
    assert [{**row, "seconds": 0} for row in again] == [{**json.loads(line), "seconds": 0} for line in lines]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (["--nfe", "5"], "--nfe is for other suites"),
        (["--model", "nope"], "unknown model 'nope'. Known: mixture, mnist."),
        (["--model", "mixture", "--sampler", "nope"], "unknown method 'nope'"),
    ],
)
def test_what_it_refuses(cli, said, told):
    code, _, err = cli("bench", "--suite", "inverse", *said)
    assert code == 2 and told in err


def test_rows_of_something_else_are_not_written_to(cli):
    Path("run").mkdir()
    Path("run/results.jsonl").write_text('{"suite": "graphs"}\n')
    code, _, err = cli("bench", "--suite", "inverse", "--out", "run")
    assert code == 1 and "holds rows of something else" in err
    assert Path("run/results.jsonl").read_text() == '{"suite": "graphs"}\n'
