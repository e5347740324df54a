"""Metropolis with a score: the target is kept, the free trapezoid moves it, and the acceptance rate is reported."""

from __future__ import annotations

import pytest
import torch

import solverkit as sk
from solverkit.errors import DenoiserError, OptionError
from solverkit.proofs.device import check_device
from solverkit.proofs.runs import check_finite
from solverkit.targets.gaussian_mixture import GaussianMixture

SIGMA = 0.5


def two_modes():
    """0.5 N(-1, 0.04) + 0.5 N(1, 0.04) in one dimension, and its exact denoising autoencoder at one level."""
    one = torch.ones(2, 1, 1, dtype=torch.float64)
    target = GaussianMixture(
        torch.tensor([0.5, 0.5]), torch.tensor([[-1.0], [1.0]]), one, torch.full((2, 1), 0.04, dtype=torch.float64)
    )
    return target, sk.wrap(lambda x: target.denoised(x, 1.0, SIGMA), "autoencoder", sigma=SIGMA)


def chain(step, nodes, n=60, seed=0):
    target, denoiser = two_modes()
    generator = torch.Generator().manual_seed(1)
    clean = target.sample(1500, seed=2)
    x = clean + SIGMA * torch.randn(clean.shape, dtype=torch.float64, generator=generator)
    result = sk.sample(
        denoiser, "mala", levels=[SIGMA, 0.5 * SIGMA], x=x, seed=seed, n_steps=n, step=step, path_nodes=nodes
    )
    return result, float(x.var()), float(result.x.var())


def test_the_chain_keeps_its_target_and_reports_its_rate():
    result, before, after = chain(1.0, 8)
    assert 0.3 < result.reports["acceptance_rate"] < 0.999
    assert abs(after / before - 1) < 0.04
    assert result.nfe == 1 + 60 * 9
    small, _, _ = chain(0.01, 3)
    assert small.reports["acceptance_rate"] > result.reports["acceptance_rate"]


def test_the_trapezoid_is_free_and_moves_the_target():
    free, before, after = chain(2.0, 0)
    _, _, kept = chain(2.0, 8)
    assert free.nfe == 1 + 60
    assert abs(kept / before - 1) < abs(after / before - 1)


def test_it_ends_with_the_denoised_prediction():
    _, denoiser = two_modes()
    x = torch.zeros(2, 1)
    result = sk.sample(denoiser, "mala", levels=[SIGMA, 0.0], x=x, n_steps=3)
    assert result.levels[-1] == SIGMA and result.x.shape == x.shape


def test_what_it_refuses():
    _, denoiser = two_modes()
    with pytest.raises(OptionError, match="step"):
        sk.sample(denoiser, "mala", levels=[SIGMA, 0.0], shape=(2, 1), step=-1.0)
    with pytest.raises(DenoiserError, match="sigma="):
        sk.wrap(lambda x: x, "autoencoder")


@pytest.mark.parametrize("check", [check_device, check_finite])
def test_a_short_chain_is_finite_and_needs_no_float64(check):
    check(sk.samplers()["mala"], {"n_steps": 5})
