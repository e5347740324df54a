"""docs/truth.md: each claim about released code has one command that exists, and a figure that is still measured."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECONDS = {  # measured by other tests, or by their commands alone
    "third-order", "sde-third-order", "v3-derivatives", "unipc-edits", "sa-edits", "er-sde-3", "unipc-vary",
    "singlestep-uneven",
}  # fmt: skip


@pytest.fixture(scope="module")
def truth():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module("truth")
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def rows():
    lines = (ROOT / "benchmarks" / "results" / "truth.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["name"]: row for row in map(json.loads, lines)}


PARSE = argparse.ArgumentParser.parse_args


class Parsed(Exception):
    pass


def parse(monkeypatch, script, arguments):
    """Run a script up to its parsed options; one that reads no options is not run."""
    text = (ROOT / script).read_text(encoding="utf-8")
    if "argparse" not in text:
        assert all(word in text for word in arguments), (script, arguments)
        return

    def stop(self, given=None, namespace=None):
        raise Parsed(PARSE(self, given, namespace))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    with pytest.raises(Parsed):
        runpy.run_path(str(ROOT / script), run_name="__main__")


def test_every_claim_has_its_row(truth, rows):
    assert list(rows) == list(truth.CLAIMS)
    for name, claim in truth.CLAIMS.items():
        said = {"of": claim.of, "said": claim.said, "where": claim.where, "command": truth.command(name)}
        assert said.items() <= rows[name].items() and rows[name]["measured"], name
        assert (claim.measure is None) == bool(claim.command) == bool(claim.quoted), name
        assert (ROOT / claim.where).exists(), name


def test_every_command_exists(truth, rows, monkeypatch):
    for command in dict.fromkeys(row["command"] for row in rows.values()):
        words = shlex.split(command)
        if words[:3] == ["python", "-m", "pytest"]:
            text = (ROOT / words[3]).read_text(encoding="utf-8")
            assert words[4:5] in ([], ["-k"]) and re.search(rf"def test_\w*{words[5] if words[5:] else ''}", text), command
        else:
            assert words[0] == "python"
            parse(monkeypatch, words[1], words[2:])


def test_figures_that_take_longer_stand_in_their_pages(truth, rows):
    for name, claim in truth.CLAIMS.items():
        if claim.measure is None:
            assert truth.row(name) == rows[name]


def numbers(text):
    return [float(n) for n in re.findall(r"\d+(?:\.\d+)?(?:e[-+]\d+)?", text)]


def test_figures_that_take_seconds_are_measured_again(truth, rows):
    for name, claim in truth.CLAIMS.items():
        if claim.measure is not None and name not in SECONDS:
            now, then = (numbers(text) for text in (truth.row(name)["measured"], rows[name]["measured"]))
            assert now == pytest.approx(then, rel=0.1, abs=1e-3), name


def test_a_claim_that_does_not_exist(truth, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["truth.py", "nothing"])
    with pytest.raises(SystemExit) as stop:
        truth.main()
    assert stop.value.code == 2 and "no claim 'nothing'; there are third-order" in capsys.readouterr().err
