"""The multistep classes of diffusers with their default settings, on their own layouts, are one of our option sets each.

All states of a run agree to 1e-5 relative in float32. Runs below and from 15 steps on end by different rules.
"""

from __future__ import annotations

import diffusers
import pytest
from native_scheduler import draws, relative, run_native, run_ours, start, supplying, told

STEPS = (5, 10, 14, 15, 20, 30, 50)
DPMPP, DEIS, UNIPC = "DPMSolverMultistepScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler"
SDE = {"algorithm_type": "sde-dpmsolver++"}
LOG_RHO = {"variable": "log-rho", "released": True}

DEFAULTS = [
    (DPMPP, {}, "dpmpp-2m", {"released": True}),
    (DPMPP, {"solver_order": 3}, "dpmpp-3m", {"released": True}),
    (DPMPP, SDE, "dpmpp-2m-sde", {"released": True}),
    (UNIPC, {}, "unipc", {"order": 2, "released": True}),
    (UNIPC, {"solver_order": 3}, "unipc", {"order": 3, "released": True}),
    (DEIS, {}, "deis", {"order": 2, **LOG_RHO}),
    (DEIS, {"solver_order": 3}, "deis", {"order": 3, **LOG_RHO}),
]


def errors(peer: str, settings: dict, sampler: str, options: dict, steps: int) -> list[float]:
    """Relative differences of all states of a run."""
    native = getattr(diffusers, peer)(**settings)
    native.set_timesteps(steps)
    if peer == DEIS and settings.get("solver_order") == 3:
        native.sigmas = native.sigmas.double()  # its weights of third order cancel in float32, by 2e-5
    noises = draws(steps)
    step = supplying(native, noises) if "algorithm_type" in settings and "sde" in settings["algorithm_type"] else None
    run = run_native(native, start(), step=step)
    ours = run_ours(sampler, options, start(), told(run), noises)
    assert len(ours) == len(run.states)
    return [relative(a, b) for a, b in zip(ours, run.states)]


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize(("peer", "settings", "sampler", "options"), DEFAULTS)
def test_the_default_run_is_reproduced(peer, settings, sampler, options, spacing):
    for steps in STEPS:
        found = errors(peer, {**settings, "timestep_spacing": spacing}, sampler, options, steps)
        assert max(found) <= 1e-5, (steps, found)


@pytest.mark.parametrize(
    ("settings", "sampler"),
    [({}, "dpmpp-2m"), ({"solver_order": 3}, "dpmpp-3m"), (SDE, "dpmpp-2m-sde")],
)
@pytest.mark.parametrize("final", [{}, {"euler_at_final": True}, {"lower_order_final": False}])
def test_the_end_at_the_smallest_level(settings, sampler, final):
    """There the last step is of full order from 15 steps on, unless euler_at_final says otherwise."""
    both = {**settings, **final, "final_sigmas_type": "sigma_min"}
    for steps in (6, 14, 15, 20):
        assert max(errors(DPMPP, both, sampler, {"released": True, **final}, steps)) <= 1e-5, steps
    other = {} if final == {"euler_at_final": True} else {"euler_at_final": True}
    assert max(errors(DPMPP, both, sampler, {"released": True, **other}, 20)) > 1e-4


@pytest.mark.parametrize(("order", "setting"), [(2, "use_karras_sigmas"), (2, "use_exponential_sigmas")])
def test_deis_repeats_its_last_level_on_other_layouts(order, setting):
    """Its last step then changes nothing, and what is left ends one step later than its rule of orders believes."""
    for steps in (8, 16):
        native = diffusers.DEISMultistepScheduler(**{setting: True})
        native.set_timesteps(steps)
        run = run_native(native, start())
        assert run.ratios[-1] == run.ratios[-2]
        ours = run_ours("deis", {"order": order, **LOG_RHO, "lower_order_final": False}, start(), told(run))
        assert len(ours) == len(run.states) - 1
        assert max(relative(a, b) for a, b in zip(ours, run.states)) <= 1e-5


def test_the_rule_of_orders_is_what_makes_the_difference():
    """From 15 steps on native DEIS ends with a second-order step; ours does so with released=True only."""
    options = {"order": 2, "variable": "log-rho"}
    assert max(errors(DEIS, {}, "deis", options, 14)) <= 1e-5
    assert errors(DEIS, {}, "deis", options, 15)[-1] > 1e-3
