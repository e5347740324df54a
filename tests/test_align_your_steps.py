"""The published levels of Align Your Steps, as a grid."""

from __future__ import annotations

import numpy as np
import pytest

import solverkit as sk
from solverkit import SolverKitScheduler
from solverkit.errors import OptionError, ScheduleError

STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


@pytest.fixture(scope="module")
def latent():
    return sk.VP("scaled_linear", beta_start=0.00085, beta_end=0.012)


@pytest.mark.parametrize(("table", "name"), [("sd15", "StableDiffusion"), ("sdxl", "StableDiffusionXL")])
def test_ten_steps_are_the_published_timesteps_and_sigmas(latent, table, name):
    from diffusers.schedulers.scheduling_utils import AysSchedules

    grid = sk.make_grid(f"ays:table={table}", latent, 10)
    assert [round(level.time) for level in grid][:-1] == AysSchedules[f"{name}Timesteps"]
    assert [float(s) for s in grid] == pytest.approx(AysSchedules[f"{name}Sigmas"], abs=4e-3)


def test_video_and_the_end_at_the_smallest_level():
    from diffusers.schedulers.scheduling_utils import AysSchedules

    schedule = sk.EDM(sigma_min=0.002, sigma_max=700.0)
    published = AysSchedules["StableDiffusionVideoSigmas"]
    assert [float(s) for s in sk.make_grid("ays:table=svd", schedule, 10)] == pytest.approx(published, rel=1e-12)
    assert float(sk.make_grid("ays:table=svd,last=min", schedule, 10)[-1]) == pytest.approx(0.002)


def test_other_counts_are_even_in_the_index_and_linear_in_log_sigma(latent):
    ten = sk.make_grid("ays:last=min", latent, 10)
    twenty = np.log([float(s) for s in sk.make_grid("ays:last=min", latent, 20)])
    assert twenty[::2] == pytest.approx(np.log([float(s) for s in ten]), abs=1e-9)
    assert twenty[1::2] == pytest.approx((twenty[:-1:2] + twenty[2::2]) / 2, abs=1e-9)
    for n in (1, 4, 7, 25):
        grid = sk.make_grid("ays", latent, n)
        assert len(grid) == n + 1 and grid[-1] == 0 and float(grid[0]) == pytest.approx(14.6146, abs=1e-3)


def test_the_scheduler_of_a_pipeline_has_them():
    scheduler = SolverKitScheduler.from_config(STABLE_DIFFUSION, sampler="dpmpp-2m", grid="ays")
    scheduler.set_timesteps(10)
    assert scheduler.timesteps.round().tolist() == [999, 850, 736, 645, 545, 455, 343, 233, 124, 24]


@pytest.mark.parametrize("model", ["mnist", "mnist-flow", "mixture"])
def test_a_network_that_no_table_is_for_is_refused(model):
    with pytest.raises(ScheduleError, match="no table is for it"):
        sk.sample(sk.load(model), "euler", nfe=10, num_samples=1, grid="ays")


def test_options_that_do_not_exist(latent):
    for text in ("ays:table=flux", "ays:last=end"):
        with pytest.raises(OptionError, match="must be"):
            sk.make_grid(text, latent, 10)
