"""Runs of diffusers' own scheduler classes, and of a sampler on their levels, state by state."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

import solverkit as sk
from solverkit.grid.grid import Grid
from solverkit.process.level import Level, from_ratio

SCALED = ("Euler", "Heun", "KDPM2", "LMS", "DPMSolverSDE")  # their latents are in the sigma frame, the network's are scaled


class Run(NamedTuple):
    """The states that the network saw, in VP coordinates, and the end; the ratios and told times of the evaluations."""

    states: list[torch.Tensor]
    ratios: list[float]
    times: list[float]


def network(x: torch.Tensor, t: float) -> torch.Tensor:
    """A smooth epsilon prediction that depends on time: no closed form is needed, both sides ask it the same."""
    t = float(t) / 1000
    return 0.9 * x * t + 0.3 * torch.sin(2 * x + t) + 0.1 * torch.roll(x, 1, dims=-1) * (1 - t)


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def start(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def draws(count: int) -> list[torch.Tensor]:
    """Standard normal tensors to give both sides."""
    return [start(seed) for seed in range(1, count + 1)]


def table(peer: Any) -> torch.Tensor:
    """sigma / alpha at the trained timesteps."""
    return ((1 - peer.alphas_cumprod.double()) / peer.alphas_cumprod.double()).sqrt()


def run_native(
    peer: Any, x: torch.Tensor, ratios: Sequence[float] | None = None, step: Callable[..., Any] | None = None
) -> Run:
    """Run a native scheduler, after its set_timesteps, from x in VP coordinates.

    Args:
        ratios: sigma / alpha of each evaluation and of the end, where they are not its `sigmas`.
        step: step(output, t, sample, i) -> next sample, in place of `peer.step`.
    """
    levels = [float(s) for s in peer.sigmas.double()] if ratios is None else list(ratios)
    scaled = type(peer).__name__.startswith(SCALED)
    scales = [(1 + r * r) ** 0.5 if scaled else 1.0 for r in levels]
    sample, states, times = x * scales[0], [], []
    for i, t in enumerate(peer.timesteps):
        if hasattr(peer, "is_scale_input_called"):
            peer.is_scale_input_called = True
        states.append(sample / scales[i])
        times.append(float(t))
        output = network(states[-1], t)
        sample = peer.step(output, t, sample).prev_sample if step is None else step(output, t, sample, i)
    return Run([*states, sample / scales[len(states)]], levels[: len(states) + 1], times)


def told(run: Run, schedule: Any = None, nodes: int = 1) -> Grid:
    """Our grid on the peer's own levels, told the peer's own times. Levels that are asked twice are one node.

    Args:
        nodes: 2 where every second evaluation is at a stage inside a step.
    """
    schedule = schedule or sk.VP()
    pairs = dict(zip(run.ratios[:-1][::nodes], run.times[::nodes])) | {run.ratios[-1]: 0.0}
    levels = []
    for r in sorted(pairs, reverse=True):
        alpha, sigma = schedule.alpha_sigma(r)
        levels.append(Level(from_ratio(r, schedule.frame), pairs[r], alpha + schedule.frame * sigma, schedule.frame))
    return Grid(tuple(levels), schedule)


def run_ours(
    sampler: str, options: dict[str, Any], x: torch.Tensor, grid: Grid, noises: Sequence[torch.Tensor] = (),
    prediction: str = "epsilon",
) -> list[torch.Tensor]:  # fmt: skip
    """The states that our sampler asks about, in VP coordinates, and the end; noises are its draws, in their order."""
    card, seen = sk.samplers()[sampler], []
    ask = sk.wrap(lambda y, t: network(y, t[0]), prediction, grid.schedule)
    supply: Iterator[torch.Tensor] = iter(noises)

    def model(y: torch.Tensor, s: Any) -> torch.Tensor:
        seen.append(y * s.scale)
        return ask(y, s)

    end = card.fn(model, x / grid[0].scale, grid, lambda s, t: next(supply), **card.check(options))
    return [*seen, end * grid[-1].scale]


def worst(ours: Sequence[torch.Tensor], run: Run) -> float:
    """The largest relative difference of two runs, state by state."""
    assert len(ours) == len(run.states), (len(ours), len(run.states))
    return max(relative(a, b) for a, b in zip(ours, run.states))


def supplying(peer: Any, noises: Sequence[torch.Tensor]) -> Callable[..., Any]:
    """A step of a stochastic peer that takes its noise as an argument."""
    assert "variance_noise" in inspect.signature(peer.step).parameters
    return lambda output, t, sample, i: peer.step(output, t, sample, variance_noise=noises[i]).prev_sample
