"""Two spellings of one method agree, and the special cases are what they should be."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from solverkit_plugins.classic.quadrature import lagrange_weights
from solverkit_plugins.dpm_solver.unipc import corrector_weights, predictor_weights

import solverkit as sk
from solverkit.problems import gaussian, mixture
from solverkit.steps import phi

SCHEDULES = [sk.EDM(), sk.VP(continuous=True), sk.Flow()]


def run(name, schedule, steps=9, last="zero", **options):
    target = mixture(dim=4, modes=3, schedule=schedule)
    grid = sk.make_grid("flow" if schedule.frame else "karras", schedule, steps, last=last)
    return sk.sample(target, name, grid=grid, num_samples=3, dtype=torch.float64, **options).x


PAIRS = [
    (("euler", {}), ("ddim", {})),
    (("euler", {}), ("dpm-solver-1", {})),
    (("euler", {}), ("adams-bashforth", {"order": 1})),
    (("euler", {}), ("deis", {"order": 1})),
    (("euler", {}), ("ipndm", {"order": 1})),
    (("euler", {}), ("euler-ancestral", {"eta": 0.0})),
    (("ddim", {"eta": 0.6}), ("euler-ancestral", {"eta": 0.6})),
    (("dpmpp-2m", {}), ("dpmpp-2m-sde", {"eta": 0.0, "lower_order_final": True})),
    (("dpmpp-3m", {}), ("dpmpp-3m-sde", {"eta": 0.0, "lower_order_final": True})),
    (
        ("dpmpp-3m", {"released": True}),
        ("dpmpp-3m-sde", {"eta": 0.0, "released": True, "lower_order_final": True}),
    ),
    (("unipc", {"order": 1, "corrector": False}), ("euler", {})),
    (("adams-bashforth", {"order": 3}), ("deis", {"variable": "rho", "lower_order_final": False})),
    # over short steps of equal growth the rule of orders allows what the published one does
    (("unipc", {"corrector": False, "lower_order_final": False, "steps": 60}),
     ("unipc", {"corrector": False, "lower_order_final": False, "released": True, "steps": 60})),
    (("dpmpp-2m", {"steps": 60}), ("dpmpp-2m", {"released": True, "steps": 60})),
]  # fmt: skip


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize(("one", "other"), PAIRS, ids=lambda p: p[0])
def test_special_cases(one, other, schedule):
    a, b = run(one[0], schedule, **one[1]), run(other[0], schedule, **other[1])
    assert (a - b).abs().max() <= 1e-11


def test_ddpm_is_ddim_with_the_posterior_noise():
    # The mean of DDPM's step and its noise are those of DDIM at eta = 1 (Song et al. 2021, eq. 16)
    for schedule in SCHEDULES:
        assert (run("ddpm", schedule) - run("ddim", schedule, eta=1.0)).abs().max() <= 1e-11


def test_frame_does_not_matter_for_euler():
    """DDIM on one list of levels gives the same samples in the sigma and in the flow frame."""
    ratios = [20.0, 8.0, 3.0, 1.0, 0.3, 0.0]
    flow, edm = sk.Flow(), sk.EDM()
    x = torch.randn(3, 4, dtype=torch.float64)
    a = sk.sample(mixture(dim=4, modes=3, schedule=edm), "euler", x=20 * x, levels=ratios).x
    b = sk.sample(mixture(dim=4, modes=3, schedule=flow), "euler", x=(20 / 21) * x, levels=[r / (1 + r) for r in ratios]).x
    assert (a - b).abs().max() <= 1e-12


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_lms_is_adams_bashforth_in_the_sigma_frame(order):
    for schedule in SCHEDULES:
        difference = (run("lms", schedule, order=order) - run("adams-bashforth", schedule, order=order)).abs().max()
        assert difference <= 1e-11 if schedule.frame == 0 or order == 1 else difference > 1e-3


def test_frame_does_not_matter_for_exponential_methods():
    ratios = [20.0, 8.0, 3.0, 1.0, 0.3, 0.0]
    x = torch.randn(3, 4, dtype=torch.float64)
    for name in ("dpmpp-2m", "dpmpp-3m", "unipc", "dpmpp-3s", "dpm-solver-3", "dpmpp-2m-sde", "lms", "dpmpp-sde"):
        a = sk.sample(mixture(dim=4, modes=3, schedule=sk.EDM()), name, x=20 * x, levels=ratios).x
        levels = [r / (1 + r) for r in ratios]
        b = sk.sample(mixture(dim=4, modes=3, schedule=sk.Flow()), name, x=(20 / 21) * x, levels=levels).x
        assert (a - b).abs().max() <= 1e-10, name


@pytest.mark.parametrize("p", [2, 3])
def test_unipc_b_cancels(p):
    lams, t = [0.3, -0.4, -1.3][:p], 1.1
    bh1, bh2, vary = ([*c, n] for c, n in (corrector_weights(lams, t, v, False) for v in ("bh1", "bh2", "vary")))
    assert np.allclose(bh1, bh2, atol=1e-14) and np.allclose(bh1, vary, atol=1e-13)
    if p == 3:
        assert np.allclose(predictor_weights(lams, t, "bh1"), predictor_weights(lams, t, "vary"), atol=1e-13)
    assert not np.allclose(
        vary, [*corrector_weights(lams, t, "vary", True)[0], corrector_weights(lams, t, "vary", True)[1]]
    )


def test_unipc_order_two_predictor_is_2m():
    options = {"order": 2, "variant": "bh2", "corrector": False, "lower_order_final": False}
    a = run("unipc", sk.EDM(), last="min", **options)
    b = run("dpmpp-2m", sk.EDM(), last="min", lower_order_final=False)
    assert (a - b).abs().max() <= 1e-12


def test_gaussian_with_equal_eigenvalues_and_a_constant_prediction():
    """A denoiser that always answers mu: every deterministic solver gives alpha_t mu + (t/s)(x - alpha_s mu)."""
    mu = torch.tensor([0.3, -1.0], dtype=torch.float64)

    class Constant:
        shape = (2,)

        def __init__(self, schedule):
            self.schedule = schedule

        def __call__(self, x, level):
            return mu.expand_as(x).clone()

    for schedule in SCHEDULES:
        grid = sk.testing.order_grid(schedule, 1, 9)[0]
        x = torch.randn(3, 2, dtype=torch.float64)
        s, t = grid[0], grid[-1]
        start = x * s.scale
        expected = (t.alpha * mu + (t / s) * (x - s.alpha * mu)) * t.scale
        for name, card in sk.samplers().items():
            if not card.informed and card.order_of({}) is not None:
                got = sk.sample(Constant(schedule), name, x=start, grid=grid).x
                assert (got - expected).abs().max() <= 1e-12, name


def test_gaussian_end_to_end():
    for schedule in SCHEDULES:
        target = gaussian(dim=5, condition=50.0, schedule=schedule)
        grid = sk.testing.order_grid(schedule, 1, 200)[0]
        x = grid[0] * torch.randn(3, 5, dtype=torch.float64)
        got = sk.sample(target, "dpmpp-3s", x=x * grid[0].scale, grid=grid).x / grid[-1].scale
        assert (got - target.transport(x, grid[0], grid[-1])).abs().max() <= 1e-6


def test_phi_functions_against_their_integral():
    nodes, weights = np.polynomial.legendre.leggauss(60)
    u, w = (nodes + 1) / 2, weights / 2
    for k in (1, 2, 3, 4):
        for z in (-30.0, -3.0, -0.5, -0.1, -1e-2, -1e-4, -1e-9, 1e-9, 1e-3, 0.3, 2.0):
            exact = float(w @ (np.exp((1 - u) * z) * u ** (k - 1))) / math.factorial(k - 1)
            assert phi(k, z) == pytest.approx(exact, rel=2e-13), (k, z)


def test_adams_weights():
    assert lagrange_weights([0.0, -1.0], 0.0, 1.0, lambda u: u, 4) == pytest.approx([1.5, -0.5])
    assert lagrange_weights([0.0, -1.0, -2.0], 0.0, 1.0, lambda u: u, 4) == pytest.approx([23 / 12, -16 / 12, 5 / 12])


def test_adaptive_error_follows_the_tolerance():
    target = gaussian(dim=4, condition=20.0)
    levels = [20.0, 0.05]
    x = 20 * torch.randn(3, 4, dtype=torch.float64)
    exact = target.transport(x, target.schedule.at(20.0), target.schedule.at(0.05))
    for name in ("dpm-solver-12", "dpm-solver-23"):
        results = [sk.sample(target, name, x=x, levels=levels, atol=tol, rtol=tol) for tol in (1e-2, 1e-3, 1e-4)]
        errors = [float((r.x - exact).abs().max()) for r in results]
        assert errors[0] > errors[1] > errors[2] and errors[2] < 2e-3, errors
        assert results[0].nfe < results[1].nfe < results[2].nfe


def test_adaptive_batch_norm_is_the_published_rule():
    target = mixture(dim=4, modes=3)
    a = sk.sample(target, "dpm-solver-12", steps=1, num_samples=1, norm="batch").x
    b = sk.sample(target, "dpm-solver-12", steps=1, num_samples=1).x
    assert not torch.equal(a, b) and float((a - b).abs().max()) < 0.05  # own steps are powers of two times the first
    assert sk.sample(target, "dpm-solver-12", steps=1, num_samples=4, norm="batch").nfe % 1 == 0
