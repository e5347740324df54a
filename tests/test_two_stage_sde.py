"""DPM-Solver++ SDE: the law that it keeps, and why its noises must be of one path."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from solverkit_plugins.dpm_solver import two_stage_sde

import solverkit as sk
from solverkit.proofs.driving import in_one_run, traced
from solverkit.proofs.growth import diagonal
from solverkit.testing import order_grid

SCHEDULES = [sk.EDM(), sk.VP(), sk.Flow()]


def law_errors(schedule):
    """The largest relative error of the variance on a Gaussian, exactly, at 20, 40 and 80 uneven steps."""
    target, errors = diagonal(schedule), []
    for n in (20, 40, 80):
        grid, _ = order_grid(schedule, 1, n, high=8.0, low=0.2)
        _, spread = in_one_run([traced(sk.samplers()["dpmpp-sde"], grid, {})], target)
        wanted = grid[-1].alpha ** 2 * target.target.eigenvalues[0] + grid[-1] ** 2
        errors.append(float((spread**2 / wanted - 1).abs().max()))
    return errors


def slopes(errors):
    return [math.log2(a / b) for a, b in pairwise(errors)]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_increments_of_one_path_make_it_second_order_in_law(schedule, monkeypatch):
    errors = law_errors(schedule)
    assert min(slopes(errors)) > 1.9 and errors[-1] < 1e-3

    def independent(noise, s, m, t):
        return noise(s, m), noise(s, t)

    def shared(noise, s, m, t):
        z = noise(s, t)
        return z, z

    for other in (independent, shared):
        monkeypatch.setattr(two_stage_sde, "increments", other)
        wrong = law_errors(schedule)
        assert max(slopes(wrong)) < 1.2 and wrong[-1] > 10 * errors[-1], other.__name__


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_the_correlation_of_the_two_increments(schedule):
    s, m, t = (schedule.level(r) for r in (3.0, 1.5, 0.4))
    independent = iter(torch.eye(2, dtype=torch.float64))
    z_m, z_t = two_stage_sde.increments(lambda a, b: next(independent), s, m, t)
    assert float(z_m @ z_m) == pytest.approx(1) and float(z_t @ z_t) == pytest.approx(1)
    assert float(z_m @ z_t) == pytest.approx(math.sqrt((3.0 - 1.5) / (3.0 - 0.4)))
