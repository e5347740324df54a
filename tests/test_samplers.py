"""The proofs of every registered sampler: a new solver is tested by being registered."""

from __future__ import annotations

import os

import pytest
import torch

import solverkit as sk
from solverkit.testing import check_name, parametrize_with_checks

# What does not hang on an option, and `options`, which tries every set itself, is proven of a sampler's first set of
# options; the two costly checks of every third set. Everything of every set: SOLVERKIT_PROOFS=full, before a release.
ONCE = ("device", "finite", "spellings", "system", "independence", "options")
IN_TURN = ("edits", "growth")
ELSEWHERE = (("mala", "device"), ("mala", "finite"))  # 800 evaluations a run; tests/test_metropolis.py has shorter chains


def chosen(mark):
    names, cases = mark.args
    if os.environ.get("SOLVERKIT_PROOFS") == "full":
        return mark
    sets, kept = {}, []
    for case in cases:
        card, options, check = case.values
        own, name = sets.setdefault(card.name, []), check_name(check)
        if options not in own:
            own.append(options)
        i = own.index(options)
        if (i == 0 or name not in ONCE) and (i % 3 == 0 or name not in IN_TURN) and (card.name, name) not in ELSEWHERE:
            kept.append(case)
    return pytest.mark.parametrize(names, kept)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@chosen(parametrize_with_checks(sk.samplers().values()))
def test_proofs(card, options, check):
    check(card, options)
