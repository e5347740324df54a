"""The classical samplers against the classes of diffusers, state by state on their own levels: 1e-5 relative in float32."""

from __future__ import annotations

import math

import diffusers
import pytest
import torch
from native_scheduler import draws, run_native, run_ours, start, table, told, worst

import solverkit as sk
from solverkit.proofs.growth import faults
from solverkit.testing import CHECKS, check_name

SPACINGS = ("linspace", "leading", "trailing")
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SCHEDULE = sk.VP("scaled_linear", 0.00085, 0.012)


def interleaved(peer, shift):
    """The ratios of the evaluations of a native two-stage class, and of its end."""
    stages = [float(peer.sigmas_interpol[i + shift]) for i in range(len(peer.timesteps))]
    nodes = [float(s) for s in peer.sigmas]
    return [*(stages[i] if i % 2 else nodes[i] for i in range(len(peer.timesteps))), 0.0]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [1, 5, 12])
def test_kdpm2(spacing, steps):
    peer = diffusers.KDPM2DiscreteScheduler(timestep_spacing=spacing, **BETAS)
    peer.set_timesteps(steps)
    run = run_native(peer, start(), interleaved(peer, 0))
    assert worst(run_ours("kdpm2", {}, start(), told(run, SCHEDULE, nodes=2)), run) <= 1e-5


@pytest.mark.parametrize("spacing", SPACINGS)
def test_kdpm2_ancestral(spacing):
    peer, noises = diffusers.KDPM2AncestralDiscreteScheduler(timestep_spacing=spacing, **BETAS), draws(9)
    peer.set_timesteps(9)

    def step(output, t, sample, i):
        return peer.step(output, t, sample, generator=torch.Generator().manual_seed(1 + i // 2)).prev_sample

    run = run_native(peer, start(), interleaved(peer, -1), step)
    ours = run_ours("kdpm2-ancestral", {}, start(), told(run, SCHEDULE, nodes=2), noises)
    assert worst(ours, run) <= 1e-5


@pytest.mark.parametrize("spacing", SPACINGS)
def test_lms(spacing):
    peer = diffusers.LMSDiscreteScheduler(timestep_spacing=spacing, **BETAS)
    for steps in (1, 3, 10):
        peer.set_timesteps(steps)
        run = run_native(peer, start())
        assert worst(run_ours("lms", {}, start(), told(run, SCHEDULE)), run) <= 1e-5


PNDM = [
    {"timestep_spacing": "leading", "steps_offset": 1},  # as Stable Diffusion has it
    {"timestep_spacing": "trailing"},
    {"timestep_spacing": "trailing", "set_alpha_to_one": True},
]


@pytest.mark.parametrize("settings", PNDM)
@pytest.mark.parametrize("begin", ["plms", "prk"])
@pytest.mark.parametrize("steps", [5, 10, 20])
def test_pndm(settings, begin, steps):
    peer = diffusers.PNDMScheduler(skip_prk_steps=begin == "plms", **settings, **BETAS)
    peer.set_timesteps(steps)
    assert len(peer.timesteps) == steps + (1 if begin == "plms" else 9)
    ratios = [*(float(table(peer)[int(t)]) for t in peer.timesteps), 0.0]
    if not settings.get("set_alpha_to_one"):
        ratios[-1] = float(table(peer)[0])
    run = run_native(peer, start(), ratios)
    nodes = {float(table(peer)[int(t)]) for t in peer._timesteps} | {ratios[-1]}
    grid = told(run, SCHEDULE)
    grid = type(grid)(tuple(level for level in grid if float(level) in nodes), SCHEDULE)
    assert len(grid) == steps + 1
    assert worst(run_ours("pndm", {"start": begin}, start(), grid), run) <= 1e-5


@pytest.mark.parametrize("check", CHECKS, ids=check_name)
def test_the_runge_kutta_start_of_pndm(check):
    """All proofs but that one step more does not hurt: the first steps cost four evaluations, and are that much better."""
    card, options = sk.samplers()["pndm"], {"start": "prk"}
    if check_name(check) == "growth":
        assert not [found for found in faults(card, options) if "times that of Euler" in found]
    else:
        check(card, options)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm(variance, spacing):
    settings = {"variance_type": f"fixed_{variance}", "timestep_spacing": spacing, "clip_sample": False}
    peer = diffusers.DDPMScheduler(**settings, **BETAS)
    peer.set_timesteps(10)
    ratios = [*(float(table(peer)[int(t)]) for t in peer.timesteps), 0.0]

    def step(output, t, sample, i):
        return peer.step(output, t, sample, generator=torch.Generator().manual_seed(1 + i)).prev_sample

    run = run_native(peer, start(), ratios, step)
    options = {"variance": variance}
    assert worst(run_ours("ddpm", {**options, "released": True}, start(), told(run, SCHEDULE), draws(10)), run) <= 1e-5
    ours = run_ours("ddpm", options, start(), told(run, SCHEDULE), draws(10))
    noisy_end = variance == "large" and spacing == "trailing"  # there the last timestep is 99, and diffusers adds noise
    assert worst(ours[:-1], run._replace(states=run.states[:-1])) <= 1e-5
    assert (worst(ours, run) > 0.05) == noisy_end


@pytest.mark.parametrize("schedule", [sk.EDM(), sk.VP(), sk.Flow()], ids=lambda s: type(s).__name__)
def test_the_large_variance_is_right_for_data_of_variance_one(schedule):
    """x_0 ~ N(0, 1) and the exact denoiser: each step keeps the marginal exactly with variance="large"."""
    grid = sk.make_grid("flow" if schedule.frame else "karras", schedule, 6, last="min")

    def model(x, s):
        return (s.alpha / (s.alpha**2 + s * s)) * x

    unit = torch.eye(len(grid), dtype=torch.float64)  # row 0: the start; row k: draw k alone
    for variance, tolerance in (("large", 1e-12), ("small", math.inf)):
        supply = iter(unit[1:])
        x = unit[0] * math.sqrt(grid[0].alpha ** 2 + grid[0] ** 2)
        end = sk.samplers()["ddpm"].fn(model, x, grid, lambda s, t, supply=supply: next(supply), variance=variance)
        error = abs(float(end.square().sum()) - (grid[-1].alpha ** 2 + grid[-1] ** 2))
        assert error <= tolerance
        assert variance == "large" or error > 0.01
