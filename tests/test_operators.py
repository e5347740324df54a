"""Linear operators: adjoints that are, systems that are solved, and what is refused."""

from __future__ import annotations

import pytest
import torch

import solverkit as sk
from solverkit import inverse
from solverkit.errors import OptionError
from solverkit.measurement import linear
from solverkit.measurement.conjugate_gradients import conjugate_gradients

IMAGE = (2, 8, 12)


def operators():
    mask = torch.zeros(IMAGE, dtype=torch.bool)
    mask[:, ::3] = True
    A = torch.randn(9, 192, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return {
        "inpainting": inverse.inpainting(mask),
        "pool": inverse.average_pool(IMAGE, 4),
        "blur": inverse.blur(IMAGE, 1.3),
        "projection": inverse.random_projection(IMAGE, 10, seed=3),
        "matrix": inverse.matrix(A, IMAGE),
    }


@pytest.mark.parametrize("name", operators())
def test_the_adjoint_and_the_systems(name):
    A = operators()[name]
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(3, *IMAGE, dtype=torch.float64, generator=generator)
    v = torch.randn(3, *A.measured, dtype=torch.float64, generator=generator)
    torch.testing.assert_close((A(u) * v).flatten(1).sum(1), (u * A.adjoint(v)).flatten(1).sum(1))
    torch.testing.assert_close(A(u).flatten(1), u.flatten(1) @ A.matrix.T)
    gram = A.matrix @ A.matrix.T
    wanted = torch.linalg.solve(0.7 * gram + 0.2 * torch.eye(len(gram)), v.flatten(1).T).T
    torch.testing.assert_close(A.solve(v, 0.7, 0.2).flatten(1), wanted)
    assert A(u.float()).dtype == torch.float32 and A.solve(v.float(), 1.0, 0.1).dtype == torch.float32
    flat = A.over((192,))
    torch.testing.assert_close(flat(u.flatten(1)), A(u))
    assert flat.adjoint(v).shape == (3, 192)


def test_a_pseudo_inverse_without_noise():
    A = operators()["blur"]
    v = A(torch.randn(2, *IMAGE, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(A(A.adjoint(A.solve(v, 1.0, 0.0))), v, atol=1e-4, rtol=1e-4)


def test_large_systems_go_by_conjugate_gradients(monkeypatch):
    A = operators()["matrix"]
    v = torch.randn(4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wanted = A.solve(v, 0.7, 0.2)
    monkeypatch.setattr(linear, "DENSE", 3)
    torch.testing.assert_close(A.solve(v, 0.7, 0.2), wanted, atol=1e-6, rtol=1e-5)


def test_conjugate_gradients_of_a_batch_are_those_of_its_samples():
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(5, 6, 6, dtype=torch.float64, generator=generator)
    M = half @ half.transpose(1, 2) + torch.eye(6, dtype=torch.float64)
    b = torch.randn(5, 6, dtype=torch.float64, generator=generator)
    b[2] = 0
    M[4] = torch.eye(6)  # one iteration
    x = conjugate_gradients(lambda v: torch.einsum("bij,bj->bi", M, v), b, 12, 1e-13)
    torch.testing.assert_close(x, torch.linalg.solve(M, b))
    for i in range(5):
        alone = conjugate_gradients(lambda v, i=i: v @ M[i], b[i : i + 1], 12, 1e-13)
        torch.testing.assert_close(alone[0], x[i], atol=1e-10, rtol=1e-10)
    M[0] = -M[0]  # not positive: that sample stays where it is, the others go on
    again = conjugate_gradients(lambda v: torch.einsum("bij,bj->bi", M, v), b, 12, 1e-13)
    assert float(again[0].abs().max()) == 0
    torch.testing.assert_close(again[1:], x[1:])


def times(c):
    return lambda x: c * x


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: inverse.Linear(times(2), times(3), (4,)), "adjoint of 'linear' is not that of its forward"),
        (lambda: inverse.Linear(lambda x: x + 1, times(1), (4,)), "not linear"),
        (lambda: inverse.Linear(torch.abs, times(1), (4,)), "not linear.*guidance.posterior"),
        (lambda: inverse.Linear(times(2), times(2), (4,), gram=2.0), "not 2 I.*leave gram out"),
        (lambda: inverse.Linear(lambda x: x[:, :2], times(1), (4,)), r"expected \(8, 4\)"),
        (lambda: inverse.Linear(3, times(1), (4,)), "two functions"),
        (lambda: inverse.Linear(times(1), times(1), (4,), dtype=torch.float16), "float64 or float32"),
        (lambda: inverse.inpainting(torch.ones(4)), "boolean.*float32"),
        (lambda: inverse.inpainting(torch.zeros(4, dtype=torch.bool)), "nothing is measured"),
        (lambda: inverse.average_pool((1, 9, 8), 4), "divides 9 and 8"),
        (lambda: inverse.average_pool((64,), 4), r"\(C, H, W\).*over"),
        (lambda: inverse.blur(IMAGE, 0.0), "positive"),
        (lambda: inverse.blur(IMAGE, 1.0, 4), "odd"),
        (lambda: inverse.random_projection((3,), 4), "from 1 to the 3"),
        (lambda: inverse.matrix(torch.ones(2, 3), (4,)), r"\(m, 4\)"),
        (lambda: operators()["pool"].over((7,)), "another number"),
        (lambda: operators()["pool"](torch.zeros(2, 192)), "over"),
        (lambda: operators()["pool"].adjoint(torch.zeros(2, 3)), "measures"),
    ],
)
def test_what_is_refused(make, said):
    with pytest.raises(OptionError, match=said):
        make()


@pytest.mark.parametrize(
    ("values", "std", "said"),
    [
        (torch.zeros(2, 3), 0.1, r"\(1, \*\(2,\)\)"), (torch.zeros(2), 0.1, "values"), ("y", 0.1, "str"),
        (torch.full((1, 2), torch.nan), 0.1, "NaN"), (torch.zeros(1, 2), -0.1, "noise_std must be"),
        (torch.zeros(1, 2), "no", "noise_std must be"),
    ],
)  # fmt: skip
def test_what_a_measurement_refuses(values, std, said):
    A = inverse.matrix(torch.eye(2, 4), (4,))
    with pytest.raises(OptionError, match=said):
        inverse.pigdm(sk.problems.gaussian(4), A, values, std)


def test_shapes_of_operator_and_denoiser():
    A = inverse.matrix(torch.eye(2, 4), (4,))
    with pytest.raises(OptionError, match=r"\(4,\).*\(5,\)"):
        inverse.mmps(sk.problems.gaussian(5), A, torch.zeros(1, 2), 0.1)
    with pytest.raises(OptionError, match="Linear"):
        inverse.mmps(sk.problems.gaussian(4), torch.eye(4), torch.zeros(1, 2), 0.1)
    with pytest.raises(OptionError, match="3 samples for a batch of 2"):
        inverse.pigdm(sk.problems.gaussian(4), A, torch.zeros(3, 2), 0.1)(torch.zeros(2, 4), 1.0)
