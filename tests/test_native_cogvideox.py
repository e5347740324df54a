"""The DPM scheduler of CogVideoX is `dpmpp-2m-sde` with the published rule of orders and no ending."""

from __future__ import annotations

import diffusers
import pytest
import torch
from native_scheduler import Run, network, run_ours, start, table, told, worst

import solverkit as sk

OPTIONS = {"released": True, "lower_order_final": False}


def run_peer(peer, steps):
    """A run as its pipeline makes it, and the draws that it really uses: the second of two, where it makes two."""
    peer.set_timesteps(steps)
    sample, old, back, states, used = start(), None, None, [], []
    for i, t in enumerate(peer.timesteps):
        states.append(sample)
        generator = torch.Generator().manual_seed(i)
        sample, old = peer.step(network(sample, t), old, t, back, sample, generator=generator)
        back = t
        generator.manual_seed(i)
        pair = [torch.randn(sample.shape, generator=generator) for _ in range(2)]
        used.append(pair[0] if i in (0, len(peer.timesteps) - 1) else pair[1])
    ratios = [*(float(table(peer)[int(t)]) for t in peer.timesteps), 0.0]
    return Run([*states, sample], ratios, [float(t) for t in peer.timesteps]), used


@pytest.mark.parametrize("steps", [1, 2, 10, 20, 50])
@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_parity(steps, zero_snr, prediction):
    if zero_snr and prediction == "epsilon":
        prediction = "sample"  # at alpha = 0 a noise prediction says nothing of x_0
    settings = {"timestep_spacing": "trailing", "rescale_betas_zero_snr": zero_snr, "prediction_type": prediction}
    peer = diffusers.CogVideoXDPMScheduler(**settings)
    run, used = run_peer(peer, steps)
    schedule = sk.VP("scaled_linear", 0.00085, 0.012, snr_shift_scale=3.0, zero_terminal_snr=zero_snr)
    grid = told(run, schedule)
    assert worst(run_ours("dpmpp-2m-sde", OPTIONS, start(), grid, used, prediction), run) <= 1e-5


def test_without_a_last_alpha_of_one_the_last_step_is_of_first_order():
    peer = diffusers.CogVideoXDPMScheduler(timestep_spacing="trailing", set_alpha_to_one=False)
    run, used = run_peer(peer, 20)
    run.ratios[-1] = float(table(peer)[0])
    grid = told(run, sk.VP("scaled_linear", 0.00085, 0.012, snr_shift_scale=3.0))
    first = run_ours("dpmpp-2m-sde", {**OPTIONS, "euler_at_final": True}, start(), grid, used)
    assert worst(first, run) <= 1e-5
    assert worst(run_ours("dpmpp-2m-sde", OPTIONS, start(), grid, used), run) > 1e-4
