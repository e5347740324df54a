"""The proofs of every registered sampler: a new solver is tested by being registered."""

from __future__ import annotations

import pytest
import torch

import solverkit as sk
from solverkit.testing import parametrize_with_checks


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@parametrize_with_checks(sk.samplers().values())
def test_proofs(card, options, check):
    check(card, options)
