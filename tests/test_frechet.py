"""The Fréchet distance against closed forms, and the bundled feature network and its statistics."""

from __future__ import annotations

import json

import pytest
import torch

from solverkit.bench.features import FOLDER, load_features, load_statistics
from solverkit.bench.frechet import frechet_distance, moments
from solverkit.errors import BenchError


def random_covariance(dim: int, rank: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(dim, rank, dtype=torch.float64, generator=generator)
    return A @ A.T


def test_diagonal_covariances_have_a_closed_form():
    """|m1 - m2|^2 + sum_i (sd1_i - sd2_i)^2."""
    m1, m2 = torch.tensor([0.0, 1.0, -2.0]), torch.tensor([1.0, 1.0, 0.5])
    sd1, sd2 = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([0.5, 2.0, 3.0])
    expected = float((m1 - m2).square().sum() + (sd1 - sd2).square().sum())
    assert frechet_distance(m1, sd1.square().diag(), m2, sd2.square().diag()) == pytest.approx(expected, abs=1e-12)


def test_two_dimensions_have_a_closed_form():
    """tr (AB)^(1/2) = (tr AB + 2 (det AB)^(1/2))^(1/2) for 2 x 2 matrices, commuting or not."""
    A = torch.tensor([[2.0, 0.7], [0.7, 1.0]], dtype=torch.float64)
    B = torch.tensor([[0.5, -0.3], [-0.3, 3.0]], dtype=torch.float64)
    cross = float(((A @ B).trace() + 2 * (A @ B).det().sqrt()).sqrt())
    m = torch.zeros(2)
    assert frechet_distance(m, A, m, B) == pytest.approx(float(A.trace() + B.trace()) - 2 * cross, abs=1e-12)


@pytest.mark.parametrize("rank", [1, 5, 16])
def test_identical_inputs_are_at_distance_zero_whatever_the_rank(rank):
    mean, C = torch.linspace(-1, 1, 16), random_covariance(16, rank, seed=rank)
    assert 0 <= frechet_distance(mean, C, mean, C) < 1e-8


def test_orthogonal_subspaces_share_nothing():
    """Rank-deficient covariances on orthogonal subspaces: the cross term vanishes."""
    C1, C2 = torch.zeros(6, 6, dtype=torch.float64), torch.zeros(6, 6, dtype=torch.float64)
    C1[:2, :2], C2[2:5, 2:5] = random_covariance(2, 2, 0), random_covariance(3, 3, 1)
    zero = torch.zeros(6)
    assert frechet_distance(zero, C1, zero, C2) == pytest.approx(float(C1.trace() + C2.trace()), abs=1e-8)


def test_symmetric_and_rotation_invariant():
    C1, C2 = random_covariance(8, 3, 0), random_covariance(8, 8, 1)
    m1, m2 = torch.randn(2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    Q = torch.linalg.qr(random_covariance(8, 8, 3)).Q
    there = frechet_distance(m1, C1, m2, C2)
    assert frechet_distance(m2, C2, m1, C1) == pytest.approx(there, abs=1e-10)
    assert frechet_distance(Q @ m1, Q @ C1 @ Q.T, Q @ m2, Q @ C2 @ Q.T) == pytest.approx(there, abs=1e-10)


def test_moments_are_those_of_torch_in_float64():
    features = 100 + torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    mean, covariance = moments(features)
    assert mean.dtype == covariance.dtype == torch.float64
    torch.testing.assert_close(mean, features.double().mean(0))
    torch.testing.assert_close(covariance, features.double().T.cov())


def test_errors_name_what_was_given():
    eye = torch.eye(3)
    with pytest.raises(BenchError, match=r"\(1, 4\)"):
        moments(torch.zeros(1, 4))
    with pytest.raises(BenchError, match=r"\(2,\)"):
        frechet_distance(torch.zeros(2), eye, torch.zeros(3), eye)
    with pytest.raises(BenchError, match="diverged"):
        frechet_distance(torch.full((3,), torch.nan), eye, torch.zeros(3), eye)
    with pytest.raises(BenchError, match="28, 28"):
        load_features().features(torch.zeros(2, 28, 28))


def test_bundled_network_and_statistics():
    network, (mean, covariance) = load_features(), load_statistics()
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert mean.shape == (64,) and covariance.shape == (64, 64) and mean.dtype == covariance.dtype == torch.float64
    assert frechet_distance(mean, covariance, mean, covariance) < 1e-8
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    assert config["test_accuracy"] >= 0.99
    assert config["parameters"] == sum(p.numel() for p in network.parameters())


def test_features_do_not_depend_on_the_batch_and_belong_to_the_caller():
    network = load_features()
    x = torch.rand(503, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    together = network.features(x)
    assert together.shape == (503, 64) and not together.requires_grad
    torch.testing.assert_close(network.features(x[501:502]), together[501:502], atol=1e-5, rtol=1e-5)
    network.double()
    assert load_features().squeeze.weight.dtype == torch.float32
    assert network.features(x[:2]).dtype == torch.float64


def test_noise_is_far_from_the_digits():
    """A sanity check of the metric: uniform noise lies far beyond the distance of real images."""
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    noise = torch.rand(500, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    distance = frechet_distance(*moments(load_features().features(noise)), *load_statistics())
    assert distance > 20 * config["frechet_of_5000_training_images"]
