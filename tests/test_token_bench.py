"""The suite of decoders: cells of a run like any others, and metrics of sequences that know what real ones score."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

import solverkit as sk
from solverkit.bench import sequences
from solverkit.bench.metrics import Run
from solverkit.bench.runner import run_suite
from solverkit.bench.store import DATABASE, latest, read
from solverkit.bench.token_suite import token_suite
from solverkit.errors import OptionError, UnknownNameError

ASKED = ("bench", "--suite", "tokens", "-m", "markov,markov-uniform", "-n", "4,8", "-k", "12", "--out", "run")
DECODERS = ("-s", "ancestral,posterior,first-hitting")
MEASURED = {"time", "peak_memory_bytes", "images_per_second", "git_commit"}


def test_cells_of_decoders_are_cells_of_a_run(cli, tmp_path, monkeypatch):
    code, first, _ = cli(*ASKED, *DECODERS)
    assert code == 0, first
    rows = read(tmp_path / "run")
    assert [(row["model"], row["sampler"], row["budget"]) for row in rows] == [
        ("markov", "ancestral", 4), ("markov", "ancestral", 8), ("markov", "first-hitting", 64),
        ("markov-uniform", "posterior", 4), ("markov-uniform", "posterior", 8),
    ]  # fmt: skip
    assert all(row["status"] == "ok" and 0 < row["nfe"] <= row["asked"] <= row["budget"] for row in rows)
    assert all(row["intervals"].keys() == row["floors"].keys() == {"bigram_tv", "entropy_gap"} for row in rows)
    assert all(row["judge_bits"] is None and row["dtype"] == "float64" for row in rows)
    assert next(row for row in rows if row["sampler"] == "first-hitting")["nfe"] == 64
    assert (tmp_path / "run" / "report.png").stat().st_size > 10000
    assert "real samples" in first and "≈" in first and "markov-uniform" in first
    monkeypatch.setattr("solverkit.bench.runner.run_cell", lambda *args, **kwargs: pytest.fail("a cell was run again"))
    assert cli(*ASKED, *DECODERS)[:2] == (0, first)
    assert json.loads(cli("report", "run", "--json")[1]) == rows
    assert cli("report", "run")[0] == 0 and "markov" in (tmp_path / "run" / "report.html").read_text()
    assert cli("compare", "run", "run")[0] == 0


def test_a_worse_decoder_is_a_regression(cli, tmp_path):
    cli(*ASKED, "-s", "ancestral")
    rows = [{**row, "model_fingerprint": "0"} for row in read(tmp_path / "run") if row["model"] == "markov"]
    before, after = ([{**row, "budget": 8} for row in rows if row["budget"] == n] for n in (8, 4))
    for name, part in (("a", before), ("b", after)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    code, out, _ = cli("compare", "a.jsonl", "b.jsonl", "--metric", "entropy_gap", "--all")
    assert "entropy_gap" in out and code in (0, 1)
    rows = [{**before[0], "entropy_gap": 9.0, "intervals": {"entropy_gap": [8.9, 9.1]}, "values": {}}]
    (tmp_path / "c.jsonl").write_text(json.dumps(rows[0]) + "\n")
    assert cli("compare", "a.jsonl", "c.jsonl", "--metric", "entropy_gap")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("-m", "mnist"), "markov"), (("-s", "ancestrol"), "ancestral"), (("-g", "karras"), "--grid"),
        (("--metric", "fd"), "bigram_tv"), (("--cache", "easycache"), "--cache"), (("-n", "0"), "positive"),
        (("-m", "markov", "-s", "posterior"), "posterior"),
    ],
    ids=str,
)  # fmt: skip
def test_what_the_suite_does_not_have(cli, arguments, word):
    code, _, err = cli("bench", "--suite", "tokens", *arguments)
    assert code == 2 and word in err


KILLED = """
import sys, time
from pathlib import Path
from solverkit.bench.outcome import make_block
from solverkit.bench.runner import run_suite
from solverkit.bench.token_suite import token_suite
def slowly(*args):
    time.sleep(0.05)
    return make_block(*args)
for row in run_suite(token_suite(["markov"], ["ancestral", "p2", "remdm"], [4, 8], 4), Path(sys.argv[1]), make=slowly):
    pass
"""


def test_killed_at_any_moment_it_goes_on_with_the_same_rows(tmp_path):
    """Four kills, each at a moment of the first writes or a random one later."""
    path, seen = tmp_path / DATABASE, []
    rng = random.Random(0)
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], env=dict(os.environ))
        wanted, until = len(seen) + rng.randint(1, 2), time.monotonic() + 60
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
            if path.exists() and len(_stored(path)) >= wanted:
                break
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        now = [row["key"] for row in _stored(path)]
        assert now[: len(seen)] == seen and len(set(now)) == len(now)
        seen = now
    assert 4 <= len(seen) < 14
    suite = token_suite(["markov"], ["ancestral", "p2", "remdm"], [4, 8], 4)
    rows = list(run_suite(suite, path))
    whole = list(run_suite(suite, tmp_path / "whole" / DATABASE))
    assert [fixed(row) for row in read(path)] == [fixed(row) for row in whole]
    assert len(rows) == len(whole) == len(latest(read(path))) == 14


def _stored(path):
    try:
        return read(path)
    except sk.errors.BenchError:
        return []


def fixed(row):
    return {name: value for name, value in row.items() if name not in MEASURED and not name.startswith("seconds")}


def test_a_block_is_the_part_of_the_whole():
    from solverkit.bench.outcome import joined, make_block
    from solverkit.bench.subject import open_subject

    suite = token_suite(["markov"], ["ancestral"], [8], 6, batch_size=2)
    (cell,) = suite.cells()
    subject = open_subject(cell.model)
    whole = make_block(cell, subject, suite.given)
    parts = joined([make_block(cell, subject, suite.given, a, a + 2) for a in (0, 2, 4)])
    assert torch.equal(whole.x, parts.x) and whole.rows == parts.rows and whole.asked == parts.asked == 6 * 8


def run_of(model, x):
    return Run("m", model, x, False, lambda: pytest.fail("no converged solution of tokens"))


def test_metrics_of_a_chain_know_real_sequences_from_others():
    model = sk.load("markov")
    real, noise = model.target.sample(200, 7), torch.randint(0, 5, (200, 64), generator=torch.Generator().manual_seed(0))
    for metric in (sequences.bigram_tv, sequences.entropy_gap):
        good, bad = metric(run_of(model, real)), metric(run_of(model, noise))
        assert good.interval[0] <= good.value <= good.interval[1]
        assert abs(good.value - good.floor) < 0.05 < 0.2 < abs(bad.value - bad.floor)
    assert sequences.judge_bits(run_of(model, real)) is None


def test_metrics_of_text_know_repetition():
    model = sk.load("shakespeare")
    said = "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer the slings and arrows, "
    text = model.encode(said)
    text = torch.cat([text, text])[:128].repeat(4, 1)
    dull = torch.full_like(text, int(text[0, 1]))
    bits, entropy = sequences.judge_bits(run_of(model, text)), sequences.entropy_of_sequences(run_of(model, dull))
    assert 1 < bits.value < 4 and 2 < bits.floor < 3 and bits.against == "held-out text"
    assert entropy.value == 0 and 4 < entropy.floor < 5
    assert sequences.bigram_tv(run_of(model, text)) is None
    assert all(metric(run_of(sk.load("gaussian"), torch.zeros(8, 8))) is None for metric in (
        sequences.bigram_tv, sequences.entropy_gap, sequences.judge_bits, sequences.entropy_of_sequences
    ))  # fmt: skip


def test_decoders_and_models_must_meet():
    with pytest.raises(OptionError, match="posterior"):
        token_suite(["markov"], ["posterior"])
    with pytest.raises(UnknownNameError, match="markov"):
        token_suite(["markof"])
    cells = list(token_suite().cells())
    assert len({(c.model.name, c.sampler, str(c.options), c.nfe) for c in cells}) == len(cells) > 200
