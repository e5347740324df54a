"""The whole test suite of a plugin: solverkit's own proofs."""

from solverkit.testing import parametrize_with_checks


@parametrize_with_checks(["ralston"])
def test_conformance(card, options, check):
    check(card, options)
