"""The bench on the command line: it goes on, it is heard in a pipe, it exports and merges."""

from __future__ import annotations

import csv
import json

import pytest

from solverkit.bench.runner import Progress
from solverkit.bench.store import read
from solverkit.commands.run_progress import lines_of_run

BENCH = ("bench", "-m", "gaussian", "-s", "euler,unipc:order=2", "-n", "5,8", "-k", "8")


def test_the_same_command_again_measures_nothing_and_says_the_same(cli, monkeypatch, tmp_path):
    code, first, _ = cli(*BENCH)
    drawn = (tmp_path / "solverkit-bench" / "report.png").stat().st_mtime_ns
    monkeypatch.setattr("solverkit.bench.runner.run_cell", lambda *args, **kwargs: pytest.fail("a cell was run again"))
    assert (code, *cli(*BENCH)[:2]) == (0, 0, first)
    assert (tmp_path / "solverkit-bench" / "report.png").stat().st_mtime_ns == drawn


def test_another_command_adds_to_the_run_and_shows_its_own(cli):
    cli(*BENCH)
    code, out, err = cli(*BENCH, "-s", "heun", "--json")
    assert "other commands" not in err
    assert code == 0 and {row["sampler"] for row in json.loads(out)} == {"euler", "unipc", "heun"}
    code, out, err = cli("bench", "-m", "gaussian", "-s", "heun", "-n", "5", "-k", "8", "--json")
    assert [row["sampler"] for row in json.loads(out)] == ["heun"]
    assert "has 5 rows of other commands" in err
    _, out, _ = cli("report", "solverkit-bench", "--json")
    assert len(json.loads(out)) == 6


def test_rows_for_other_programs(cli, tmp_path):
    cli(*BENCH, "--csv", "a.csv", "--parquet", "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size > 0
    with open("a.csv") as file:
        assert [row["budget"] for row in csv.DictReader(file)] == ["5", "8", "5", "8"]


def test_runs_are_merged(cli, tmp_path):
    cli(*BENCH, "-o", "one")
    cli(*BENCH, "-o", "two", "--seed", "1")
    rows = read(tmp_path / "one")
    (tmp_path / "three.jsonl").write_text("".join(json.dumps({**row, "machine": "elsewhere"}) + "\n" for row in rows))
    code, out, _ = cli("report", "one", "two", "three.jsonl", "--merge", "all")
    assert code == 0 and "elsewhere" in out and "2 seeds" in out
    assert len(read(tmp_path / "all")) == 12 == len((tmp_path / "all" / "results.jsonl").read_text().splitlines())


def test_what_a_sampler_does_wrong_is_told_and_the_run_goes_on(cli, tmp_path):
    (tmp_path / "own.py").write_text(
        "import pathlib, time\ndef hangs(model, x, grid, noise):\n    time.sleep(20)\n"
        f"    pathlib.Path({str(tmp_path / 'slept')!r}).touch()\ndef net():\n    return None\n"
    )
    code, out, _ = cli("bench", "-m", "gaussian", "-s", "own.py:hangs,euler", "-n", "4", "-k", "2", "--timeout", "0.3")
    assert code == 1
    assert "hangs at NFE 4" in out and "--timeout, 0.3 seconds" in out and "euler" in out
    assert not (tmp_path / "slept").exists()  # neither its run nor what is looked up before it was waited for
    code, _, err = cli("bench", "-m", "own.py:net", "-s", "euler", "-n", "4")
    assert code == 2 and "expected a denoiser" in err
    code, _, err = cli(*BENCH, "--engine", "rya")
    assert code == 2 and "Did you mean 'ray'" in err
    code, _, err = cli(*BENCH, "--data", "missing.npy")
    assert code == 2 and "No such file" in err


def test_a_pipe_hears_of_each_model_and_once_a_minute(capsys):
    clock = [0.0]
    watch = lines_of_run(lambda: clock[0])
    for seconds, label in ((0, "loading mnist"), (1, "mnist euler NFE 5"), (2, "mnist heun NFE 5"), (3, "loading mixture"),
                           (61, "mnist heun NFE 8"), (62, "mnist unipc NFE 8"), (64, "mixture euler NFE 5")):  # fmt: skip
        clock[0] = seconds
        watch(Progress(label, 1.0, 10.0, 3, 12))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1].split(",")[0] for line in lines] == [
        "loading mnist", "loading mixture", "mnist heun NFE 8", "mixture euler NFE 5",
    ]  # fmt: skip
    assert lines[0].startswith("cell 3 of 12")


def test_a_sweep_names_the_grid_that_won(cli):
    code, out, _ = cli("bench", "-m", "gaussian", "-s", "euler", "-n", "5", "-k", "8", "-g", "karras", "-g", "log-snr")
    assert code == 0 and "best of 2 by ode_error" in " ".join(out.split())


def test_metrics_say_what_they_are(cli):
    _, out, _ = cli("metrics", "--json")
    cards = {card["name"]: card for card in json.loads(out)}
    assert cards["precision"]["lower_is_better"] is False and cards["nll"]["to_floor"]
    assert cards["kid"]["min_samples"] == 100
    assert all(card["unit"] for card in cards.values() if card["plugin"] == "bench")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--metric", "fd"), 2, "--metric fd needs at least 500 samples, and cells have 8: -k 500."),
        (("--metric", "energy", "-k", "16", "--data", "bad.npy"), 1, "cannot read bad.npy"),
        (("--suite", "tokns"), 2, "tokens"),
        (("--metric", "mode_kl", "-k", "100"), 1, "None of its metrics says anything of these models"),
    ],
    ids=["too few samples", "corrupt data", "no suite", "no metric"],
)  # fmt: skip
def test_what_cannot_be_measured_is_told_with_its_reason(cli, tmp_path, arguments, code, words):
    (tmp_path / "bad.npy").write_bytes(b"no array")
    told = cli(*BENCH, *arguments)
    assert told[0] == code and words in told[2] and "Traceback" not in told[2]


def test_a_report_says_which_metric_needs_more_samples(cli, tmp_path):
    cli(*BENCH, "-n", "5", "--metric", "energy", "-k", "16")
    rows = [{**row, "energy": None, "num_samples": 8} for row in read(tmp_path / "solverkit-bench")]
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, err = cli("report", "few.jsonl")
    assert code == 1 and "8 samples" in err and "energy at least 16" in err


def test_shards_have_a_folder_of_their_own(cli, tmp_path):
    code, _, _ = cli("sample", "gaussian", "-s", "euler", "-n", "5", "-k", "4", "--engine", "local")
    assert code == 0 and (tmp_path / "samples" / "manifest.json").exists()
    code, _, err = cli("sample", "markov", "-s", "ancestral", "-n", "5", "--engine", "local")
    assert code == 2 and "leave it out" in err
