"""`solverkit tune`: what it writes, says and keeps, and where it stops before the work."""

from __future__ import annotations

import json

import numpy as np
import pytest

import solverkit as sk
from solverkit.tuning import calibrate, pictures

SMALL = ("gaussian", "--fast", "--samples", "8", "--validation", "8", "--threads", "1")


def tune(cli, *more):
    return cli("tune", *SMALL, *more)


def test_a_file_in_a_new_folder_then_the_missing_budget_then_auto(cli, tmp_path):
    path = tmp_path / "new" / "plan.safetensors"
    code, out, _ = tune(cli, "--nfe", "3", "--out", str(path), "--no-pictures", "--json")
    assert code == 0
    first = sk.load_plans(path)
    assert json.loads(out)["budgets"]["3"] == first.budgets[3].figures
    code, _, err = tune(cli, "--nfe", "3,4", "--out", str(path), "--no-pictures", "--resume", "--remember")
    assert code == 0 and "kept in" in err and "NFE 3" not in err
    both = sk.load_plans(path)
    assert both.budgets[3].figures == first.budgets[3].figures  # its seconds too: it was not run again
    assert np.array_equal(both.budgets[3].weights, first.budgets[3].weights)
    known = sk.known_plan(sk.load("gaussian"))
    assert known is not None and sorted(known.plans.budgets) == [3, 4]


def test_the_figures_are_said_where_a_picture_cannot_be_written(cli, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pictures, "plot", full)
    code, out, err = tune(cli, "--nfe", "3")
    assert code == 1 and "No space left" in err
    assert "ratio" in out and "plan.safetensors" in out


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--nfe", "5,,8"), "budgets with commas"),
        (("--nfe", "3", "--guidance", "2"), "needs --label"),
        (("--nfe", "3", "--out", "plan"), "expected one of .safetensors"),
    ],
)
def test_what_makes_no_sense_is_said_before_the_work(cli, given, words, monkeypatch):
    monkeypatch.setattr(calibrate, "tune", pytest.fail)
    code, _, err = tune(cli, *given)
    assert code == 2 and words in err
