"""The single-step class of diffusers, and `dpmpp-singlestep` on its levels, state by state."""

from __future__ import annotations

import diffusers
import pytest
from native_scheduler import run_native, run_ours, start, told, worst
from solverkit_plugins.dpm_solver.singlestep import group_orders

import solverkit as sk

STEPS = range(1, 16)


def native(steps, **settings):
    peer = diffusers.DPMSolverSinglestepScheduler(**settings)
    peer.set_timesteps(steps)
    return peer


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
def test_the_groups_are_those_of_diffusers(order, lower, final):
    for steps in STEPS:
        peer = native(steps, solver_order=order, lower_order_final=lower, final_sigmas_type=final)
        ratios = [*(float(steps + 1 - i) for i in range(steps)), 0.0 if final == "zero" else 0.5]
        groups = group_orders(order, sk.Grid.from_ratios(sk.EDM(), ratios), lower)
        assert [i for k in groups for i in range(1, k + 1)] == peer.order_list, steps


def test_a_step_from_alpha_0_is_a_group_of_its_own():
    for n in STEPS:
        groups = group_orders(3, sk.make_grid("flow", sk.Flow(), n))
        assert sum(groups) == n and groups[0] == 1 and groups[-1] == 1


@pytest.mark.parametrize("solver_type", ["midpoint", "heun"])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize(
    ("sampler", "settings"),
    [
        ("dpmpp-singlestep", {}),
        ("dpmpp-singlestep", {"final_sigmas_type": "sigma_min"}),
        ("dpm-singlestep", {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
    ],
)
def test_parity(sampler, settings, lower, order, solver_type):
    both = {"solver_type": solver_type, "lower_order_final": lower}
    for steps in (1, 2, 3, 6, 7, 8, 12):
        run = run_native(native(steps, solver_order=order, **both, **settings), start())
        assert worst(run_ours(sampler, {"order": order, **both}, start(), told(run)), run) <= 1e-5, steps


def test_it_is_the_packed_method_where_the_groups_agree():
    """On 7 steps to 0 the groups are those of `dpmpp-3s`, and the nodes are its stages."""
    run = run_native(native(7, solver_order=3), start())
    ours, packed = (
        run_ours(name, options, start(), told(run))
        for name, options in (("dpmpp-singlestep", {"order": 3}), ("dpmpp-3s", {"inner": "nodes"}))
    )
    assert worst(ours, run._replace(states=packed)) == 0
