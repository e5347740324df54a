"""The two-stage SDE class of diffusers on its own Brownian tree, and `dpmpp-sde` on the increments of that tree."""

from __future__ import annotations

import math

import diffusers
import pytest
from native_scheduler import run_native, run_ours, start, told, worst

import solverkit as sk


class Recorded:
    """The Brownian path of the native class, and the independent increments that it is made of."""

    def __init__(self, path):
        self.path, self.seen, self.parts = path, [], []

    def __call__(self, a, b):
        z = self.path(a, b)
        self.seen.append((float(a), float(b), z))
        if len(self.seen) % 2 == 0:
            (s, m, z_m), (_, t, z_t) = self.seen[-2:]
            rest = (math.sqrt(s - t) * z_t - math.sqrt(s - m) * z_m) / math.sqrt(m - t)
            self.parts += [z_m, rest]
        return z


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("steps", [1, 6, 15])
def test_the_native_class_on_its_own_brownian_tree(spacing, steps):
    pytest.importorskip("torchsde")
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    peer = diffusers.DPMSolverSDEScheduler(timestep_spacing=spacing, **betas)
    peer.set_timesteps(steps)
    nodes = [float(s) for s in peer.sigmas]
    stages = [math.sqrt(nodes[i - 1] * nodes[i]) for i in range(1, len(nodes))]
    ratios = [*(stages[i - 1] if i % 2 else nodes[i] for i in range(len(peer.timesteps))), 0.0]
    tree = diffusers.schedulers.scheduling_dpmsolver_sde.BrownianTreeNoiseSampler
    low = min(s for s in nodes if s > 0)
    path = peer.noise_sampler = Recorded(tree(start(), low, max(nodes), seed=3))
    run = run_native(peer, start(), ratios)
    grid = told(run, sk.VP("scaled_linear", 0.00085, 0.012), nodes=2)
    assert len(path.parts) == 2 * (steps - 1)
    assert worst(run_ours("dpmpp-sde", {}, start(), grid, path.parts), run) <= 1e-5
