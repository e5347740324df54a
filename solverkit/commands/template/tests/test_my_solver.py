"""The proofs of solverkit, one test each, and room for what is special about this sampler."""

from solverkit_my_solver import my_solver

import solverkit as sk
from solverkit.testing import parametrize_with_checks


@parametrize_with_checks(["my-solver"])  # by name: the package must be installed, pip install -e .
def test_conformance(card, options, check):
    check(card, options)


def test_it_beats_euler_on_a_mixture():
    model = sk.problems.mixture(dim=4, modes=3)
    exact = sk.sample(model, "rk4", steps=200, num_samples=16).x
    method, euler = (sk.sample(model, my_solver, steps=20, num_samples=16, share=share).x for share in (1.0, 0.0))
    assert (method - exact).square().mean() < (euler - exact).square().mean()
