"""The order of each step of a multistep method: by the growth and the length of the steps, not by their number."""

from __future__ import annotations

import math

import pytest
import torch

import solverkit as sk
from solverkit.steps import usable_orders

SD = sk.VP("scaled_linear", 0.00085, 0.012)


def grid_of(*lengths):
    """A grid with steps of these lengths in log-SNR, ending above 0."""
    ratios = [0.5]
    for h in lengths:
        ratios.append(ratios[-1] * math.exp(-h))
    return sk.Grid.from_ratios(sk.EDM(), ratios)


def test_history_fills_and_endings_fall():
    grid = grid_of(*[0.2] * 7)
    assert usable_orders(3, grid, lower_order_final=False) == [1, 2, 3, 3, 3, 3, 3]
    assert usable_orders(3, grid) == [1, 2, 3, 3, 3, 2, 1]
    assert usable_orders(2, grid) == [1, 2, 2, 2, 2, 2, 1]
    assert usable_orders(1, grid) == [1] * 7


def test_a_step_that_grows_too_much_is_of_first_order_and_leaves_its_successor_second():
    assert usable_orders(3, grid_of(0.2, 0.2, 0.2, 0.6, 0.6, 0.6, 0.6), False) == [1, 2, 3, 1, 2, 3, 3]
    assert usable_orders(3, grid_of(0.2, 0.2, 0.2, 0.6, 0.6, 0.6, 0.6), False, released=True) == [1, 2, 3, 3, 3, 3, 3]


def test_long_steps_have_no_third_order_anywhere_in_a_run():
    assert max(usable_orders(3, grid_of(0.5, 0.5, 0.5, 0.9), False)) == 2
    assert max(usable_orders(3, grid_of(0.5, 0.5, 0.5, 0.85), False)) == 3


def test_infinite_steps_are_of_first_order():
    flow = sk.make_grid("flow", sk.Flow(), 6)
    assert usable_orders(3, flow, False)[:3] == [1, 1, 2] and usable_orders(3, flow, False)[-1] == 1


def test_the_rule_does_not_know_how_many_steps_there_are():
    """At 14 steps and at 15 the endings are the same: the published rule has one below 15 steps only."""
    ends = [usable_orders(3, sk.make_grid("leading", SD, n))[-3:] for n in (14, 15)]
    assert ends[0] == ends[1]
    released = [usable_orders(3, sk.make_grid("leading", SD, n), released=True)[-3:] for n in (14, 15)]
    assert released[0] != released[1]


@pytest.mark.parametrize("name", ["dpmpp-2m", "dpmpp-3m", "unipc"])
@pytest.mark.parametrize("layout", ["leading", "linspace"])
@pytest.mark.parametrize("n", [14, 15, 30])
def test_the_layouts_of_stable_diffusion_are_never_worse_than_euler(name, layout, n):
    target = sk.problems.mixture(schedule=SD)
    grid = sk.make_grid(layout, SD, n)
    fine = [grid[0].ratio * (1e-2 / grid[0].ratio) ** (i / 200) for i in range(201)]
    exact = sk.sample(target, "rk4", levels=[*fine, 0.0], num_samples=8, dtype=torch.float64).x
    error, euler = (
        float((sk.sample(target, s, grid=grid, num_samples=8, dtype=torch.float64).x - exact).square().mean().sqrt())
        for s in (name, "euler")
    )
    assert error <= euler, (error, euler)
