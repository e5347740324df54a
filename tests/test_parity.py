"""Parity with diffusers' own scheduler classes, on the same levels, to 1e-5 relative in float32.

The peers' tables are float32: their sigma at small t is off by up to 1e-4 (1 - alphas_cumprod cancels), which shows in the
last step only: 1e-4 is allowed there. UniPC bh1 runs to sigma_min: with a final 0 the peer returns NaN (B(h) = -inf).
"""

from __future__ import annotations

import diffusers
import pytest
from native_scheduler import relative, run_native, run_ours, start, table, told

import solverkit as sk

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


@pytest.mark.parametrize(("peer", "peer_options", "sampler", "options"), CASES)
def test_parity_step_by_step(peer, peer_options, sampler, options):
    if peer.endswith(("MultistepScheduler", "SinglestepScheduler")):
        peer_options = {"timestep_spacing": "trailing", **peer_options}
        if "Singlestep" in peer:
            peer_options.pop("timestep_spacing")
    native = getattr(diffusers, peer)(num_train_timesteps=1000, **BETAS, **peer_options)
    native.set_timesteps(STEPS)
    ratios = None if hasattr(native, "sigmas") else [*(float(table(native)[int(t)]) for t in native.timesteps), 0.0]
    run = run_native(native, start(), ratios)
    ours = run_ours(sampler, options, start(), told(run, sk.VP("scaled_linear", 0.00085, 0.012)))
    assert len(ours) == len(run.states)
    errors = [relative(a, b) for a, b in zip(ours, run.states)]
    assert max(errors[:-1]) <= 1e-5, errors
    assert errors[-1] <= 1e-4, errors
