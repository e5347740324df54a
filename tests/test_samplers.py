"""The proofs of every registered sampler: a new solver is tested by being registered."""

from __future__ import annotations

import os

import pytest
import torch

import solverkit as sk
from solverkit.testing import check_name, parametrize_with_checks

# what does not hang on an option is proven of a sampler's first set of options; of every set with SOLVERKIT_PROOFS=full
ONCE = ("device", "finite", "spellings", "system", "independence")


def chosen(mark):
    names, cases = mark.args
    if os.environ.get("SOLVERKIT_PROOFS") == "full":
        return mark
    first = {}
    for case in cases:
        first.setdefault(case.values[0].name, case.values[1])
    kept = [c for c in cases if check_name(c.values[2]) not in ONCE or c.values[1] == first[c.values[0].name]]
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
