"""The quantiles of the Beta distribution, and the grid that is made of them."""

from __future__ import annotations

import math

import diffusers
import numpy as np
import pytest
import scipy.special
import scipy.stats

import solverkit as sk
from solverkit.errors import OptionError
from solverkit.grid.beta import beta_quantile, incomplete_beta

SHAPES = [(0.6, 0.6), (1.0, 1.0), (0.5, 0.5), (0.3, 2.5), (2.5, 0.3), (5.0, 8.0), (0.05, 0.6), (60.0, 0.7), (300.0, 500.0)]


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_the_distribution_function_against_scipy(a, b):
    for x in (0.0, 1e-12, 1e-3, 0.1, 0.35, 0.5, 0.7, 0.99, 1 - 1e-9, 1.0):
        exact = float(scipy.special.betainc(a, b, x))
        assert incomplete_beta(a, b, x) == pytest.approx(exact, rel=1e-11, abs=1e-14)


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_the_quantiles_against_scipy(a, b):
    for p in (0.0, 1e-9, 1e-3, 0.02, *np.linspace(0.05, 0.95, 19), 0.999, 1.0):
        assert beta_quantile(float(p), a, b) == pytest.approx(float(scipy.stats.beta.ppf(p, a, b)), abs=1e-10), p
    upper = float(scipy.special.betainccinv(a, b, 1 - (1 - 1e-9)))  # from 1 - p: ppf loses its digits there
    assert beta_quantile(1 - 1e-9, a, b) == pytest.approx(upper, abs=1e-10)


@pytest.mark.parametrize("p", [1e-12, 1e-6, 0.01, 0.3])
def test_small_quantiles_keep_their_digits(p):
    assert beta_quantile(p, 0.6, 0.6) == pytest.approx(float(scipy.stats.beta.ppf(p, 0.6, 0.6)), rel=1e-10)


@pytest.mark.parametrize("peer", [diffusers.EulerDiscreteScheduler, diffusers.DPMSolverMultistepScheduler])
@pytest.mark.parametrize("steps", [2, 7, 30])
def test_the_grid_against_diffusers(peer, steps):
    native = peer(use_beta_sigmas=True)
    native.set_timesteps(steps)
    wanted = native.sigmas.double().tolist()
    sigmas = np.array(((1 - native.alphas_cumprod) / native.alphas_cumprod) ** 0.5)
    ends = {"ratio_max": float(sigmas[-1]), "ratio_min": float(sigmas[0])}
    ours = [level.ratio for level in sk.make_grid("beta", sk.VP(), steps, **ends)]
    assert ours == pytest.approx(wanted, rel=1e-6)
    assert [level.ratio for level in sk.make_grid("beta", sk.VP(), steps)] == pytest.approx(wanted, rel=2e-4)


def test_the_shapes_and_the_ends():
    uniform = [float(s) for s in sk.make_grid("beta:alpha=1,beta=1", sk.EDM(), 5, last="min")]
    assert uniform == pytest.approx(list(np.linspace(80.0, 0.002, 6)))
    flow = [float(s) for s in sk.make_grid("beta", sk.Flow(), 6)]
    assert flow[0] == 1 and flow[-1] == 0
    quantiles = [scipy.stats.beta.ppf(q, 0.6, 0.6) for q in np.linspace(1, 0, 6)]
    assert flow[:-1] == pytest.approx([1e-3 + q * (1 - 1e-3) for q in quantiles])
    end = sk.make_grid("beta", sk.EDM(), 4, ratio_max=20.0, ratio_min=0.1, last="min")
    assert float(end[0]) == 20 and float(end[-1]) == pytest.approx(0.1) and len(end) == 5
    more_at_the_end = sk.make_grid("beta:alpha=0.3,beta=2", sk.EDM(), 9)
    assert float(more_at_the_end[1]) < float(sk.make_grid("beta", sk.EDM(), 9)[1])


def test_it_refuses_what_is_no_distribution():
    for options in ({"alpha": 0.0}, {"beta": -1.0}, {"alpha": math.inf}, {"last": "half"}):
        with pytest.raises(OptionError):
            sk.make_grid("beta", sk.EDM(), 5, **options)
