"""Parity with diffusers' own scheduler classes, on the same levels, to 1e-5 relative in float32.

The peers' tables are float32: their sigma at small t is off by up to 1e-4 (1 - alphas_cumprod cancels), which shows in the
last step only: 1e-4 is allowed there. UniPC bh1 runs to sigma_min: with a final 0 the peer returns NaN (B(h) = -inf).
"""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch

import solverkit as sk
from solverkit.grid.grid import Grid
from solverkit.process.level import Level

STEPS = 10
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}

# (peer, its options, our sampler, its options)
CASES = [
    ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": True, "timestep_spacing": "trailing"}, "ddim", {}),
    ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}, "euler", {}),
    ("HeunDiscreteScheduler", {"timestep_spacing": "trailing"}, "heun", {}),
    ("DPMSolverMultistepScheduler", {"solver_order": 2}, "dpmpp-2m", {}),
    ("DPMSolverMultistepScheduler", {"solver_order": 2, "solver_type": "heun"}, "dpmpp-2m", {"solver_type": "heun"}),
    ("DPMSolverMultistepScheduler", {"solver_order": 3}, "dpmpp-3m", {"released": True}),
    ("DPMSolverMultistepScheduler", {"solver_order": 1}, "dpm-solver-1", {}),
    ("DPMSolverSinglestepScheduler", {"solver_order": 2}, "dpmpp-2s", {"inner": "nodes"}),
    ("DPMSolverSinglestepScheduler", {"solver_order": 3}, "dpmpp-3s", {"inner": "nodes"}),
    (
        "DPMSolverSinglestepScheduler",
        {"solver_order": 2, "algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
        "dpm-solver-2",
        {"inner": "nodes"},
    ),
    (
        "DPMSolverSinglestepScheduler",
        {"solver_order": 3, "algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
        "dpm-solver-3",
        {"inner": "nodes"},
    ),
    ("UniPCMultistepScheduler", {"solver_order": 2, "solver_type": "bh2"}, "unipc", {"order": 2}),
    (
        "UniPCMultistepScheduler",
        {"solver_order": 2, "solver_type": "bh1", "final_sigmas_type": "sigma_min"},
        "unipc",
        {"order": 2, "variant": "bh1", "released": True},
    ),
    ("UniPCMultistepScheduler", {"solver_order": 3, "solver_type": "bh2"}, "unipc", {"order": 3}),
    (
        "UniPCMultistepScheduler",
        {"solver_order": 3, "solver_type": "bh1", "final_sigmas_type": "sigma_min"},
        "unipc",
        {"order": 3, "variant": "bh1", "released": True},
    ),
    ("DEISMultistepScheduler", {"solver_order": 1}, "deis", {"order": 1, "variable": "log-rho"}),
    ("DEISMultistepScheduler", {"solver_order": 2}, "deis", {"order": 2, "variable": "log-rho"}),
    ("DEISMultistepScheduler", {"solver_order": 3}, "deis", {"order": 3, "variable": "log-rho"}),
]


def network(x: torch.Tensor, t: float) -> torch.Tensor:
    """A smooth epsilon prediction that depends on time: no closed form is needed, both sides ask it the same."""
    t = float(t) / 1000
    return 0.9 * x * t + 0.3 * torch.sin(2 * x + t) + 0.1 * torch.roll(x, 1, dims=-1) * (1 - t)


def run_peer(name: str, options: dict, x: torch.Tensor) -> tuple[list[torch.Tensor], list[float], list[float]]:
    """Every state that the peer's network sees (VP coordinates), the levels sigma/alpha, and the told times."""
    peer = getattr(diffusers, name)(num_train_timesteps=1000, **BETAS, **options)
    peer.set_timesteps(STEPS)
    scaled = name in ("EulerDiscreteScheduler", "HeunDiscreteScheduler")
    table = ((1 - peer.alphas_cumprod.double()) / peer.alphas_cumprod.double()).sqrt()
    if name == "DDIMScheduler":
        ratios = [*(float(table[int(t)]) for t in peer.timesteps), 0.0]
    else:
        ratios = [float(s) for s in peer.sigmas.double()]
    states, times = [], []
    sample = x * (1 + ratios[0] ** 2) ** 0.5 if scaled else x
    for i, t in enumerate(peer.timesteps):
        states.append(sample / (1 + ratios[i] ** 2) ** 0.5 if scaled else sample)
        times.append(float(t))
        sample = peer.step(network(states[-1], t), t, sample).prev_sample
    states.append(sample if not (scaled and ratios[-1] > 0) else sample / (1 + ratios[-1] ** 2) ** 0.5)
    return states, ratios, times


def told(ratios: list[float], times: list[float]) -> Grid:
    """Our grid on the peer's own levels, told the peer's own times."""
    pairs = dict(zip(ratios, [*times, 0.0]))
    levels = [Level(r, pairs[r], 1 / np.hypot(1.0, r)) for r in dict.fromkeys(ratios)]
    return Grid(tuple(levels), sk.VP("scaled_linear", 0.00085, 0.012))


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(("peer", "peer_options", "sampler", "options"), CASES)
def test_parity_step_by_step(peer, peer_options, sampler, options):
    if peer.endswith(("MultistepScheduler", "SinglestepScheduler")):
        peer_options = {"timestep_spacing": "trailing", **peer_options}
        if "Singlestep" in peer:
            peer_options.pop("timestep_spacing")
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    states, ratios, times = run_peer(peer, peer_options, x)
    grid = told(ratios, times)
    denoiser = sk.wrap(lambda y, t: network(y, t[0]), "epsilon", grid.schedule)
    result = sk.sample(denoiser, sampler, x=x, grid=grid, return_trajectory=True, **options)
    ours = list(result.trajectory)
    assert len(ours) == len(states)
    errors = [relative(a, b) for a, b in zip(ours, states)]
    assert max(errors[:-1]) <= 1e-5, errors
    assert errors[-1] <= 1e-4, errors
