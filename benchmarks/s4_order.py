"""What S4 does, by exact recursion of mean and variance: its order, where it pays, and whose norms size its Langevin step.

    python benchmarks/s4_order.py

A one-dimensional Gaussian N(0, v) on VP with beta from 0.1 to 1, started at the exact marginal, predictor alone, on times
even from 1 to 0.001; nothing is drawn, so the figures have no interval. Then the coupled Gaussian of 4 nodes; then a graph
with and without batch mates.
"""

from __future__ import annotations

import math

import torch

import solverkit as sk
from solverkit.joint.grids import joint_grids
from solverkit.joint.lockstep import drive, lockstep
from solverkit.registry.registry import resolve
from solverkit.targets.coupled_gaussian import coupled_gaussian

SAMPLERS = {
    "S4, as released": "s4:correct=False,noise_of=forward", "S4, exact noise": "s4:correct=False",
    "Euler-Maruyama": "gdss-pc:n_steps=0", "ddpm": "ddpm",
}  # fmt: skip
STEPS = (20, 40, 80, 160, 320)
END = 1e-3


def one_dimension(sampler: str, v: float, n: int) -> float:
    """|variance at the end of the chain - that of the marginal|."""
    schedule = sk.VP(continuous=True, beta_min=0.1, beta_max=1.0, time_scale=1.0)
    times = [1 - (1 - END) * i / n for i in range(n + 1)]
    grid = sk.Grid(tuple(schedule.level(schedule.ratio(t)) for t in times), schedule)
    plan = sk.trace(resolve(sampler), grid)
    first, last = grid[0], grid[-1]
    rows = 1 + plan.draws  # the start, and each draw, alone
    x = torch.zeros(rows, 1, dtype=torch.float64)
    x[0] = math.sqrt(first.alpha**2 * v + float(first) ** 2)
    made = iter(range(1, rows))

    def draw(ordinal: int, s: float, t: float) -> torch.Tensor:
        z = torch.zeros_like(x)
        z[next(made)] = 1
        return z

    x, state = sk.begin(plan, x, draw)
    for level in plan.levels:
        x, state = sk.advance(plan, state, x, v * level.alpha / (level.alpha**2 * v + float(level) ** 2) * x, draw)
    own = last.scale**2
    return abs(float(x.square().sum()) * own - (v + float(last) ** 2) * own)


def coupled(sampler: str, n: int) -> float:
    """Largest error of the chain's covariance on the coupled Gaussian at time 0.05, from time 0.9."""
    joint = coupled_gaussian(4, 2)
    target, card, top, end = joint.net.target, resolve(sampler), 0.9, 0.05
    levels = [joint.lead_schedule.ratio(top + (end - top) * i / n) for i in range(n + 1)]
    grids = joint_grids(joint, card, None, None, None, levels, {})
    plans = lockstep(card, grids, {name: {} for name in grids}, joint.lead)
    _, C = target.moments(*_each(target, grids, 0))
    starts = torch.cat([torch.zeros(1, target.dim, dtype=torch.float64), torch.linalg.cholesky(C).T])
    sizes = {"x": 8, "adj": 6}  # numbers of a draw
    draws = sum(plan.draws * sizes[name] for name, plan in plans.items())
    v = torch.cat([starts, torch.zeros(draws, target.dim, dtype=torch.float64)])
    row = iter(range(len(starts), len(v)))

    def unit(name: str):  # noqa: ANN202
        def draw(ordinal: int, s: float, t: float) -> torch.Tensor:
            flat = torch.zeros_like(v)
            for k in range(sizes[name]):
                flat[next(row), k + (8 if name == "adj" else 0)] = 1
            return target.states(flat)[name]

        return draw

    def ask(j: int, xs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return joint(xs, {name: plan.levels[j] for name, plan in plans.items()})

    out = target.flat(drive(plans, ask, target.states(v), {name: unit(name) for name in plans}))
    off = out[1:] - out[:1]
    return float((off.T @ off - target.moments(*_each(target, grids, -1))[1]).abs().max())


def _each(target, grids, i: int):  # noqa: ANN001, ANN202
    x, adj = grids["x"][i], grids["adj"][i]
    return target.each(x.alpha, adj.alpha), target.each(float(x), float(adj))


def batch_mates() -> tuple[float, float]:
    """How far a graph moves without its batch mates, released norms and norms of its own (RMS over graphs, 20 steps)."""
    joint = sk.load("coupled-gaussian")
    moved = []
    for rule in (True, False):
        together = sk.sample(joint, "s4", nfe=20, num_samples=8, grid="score-sde", batch_norms=rule).x["adj"]
        pairs = [
            sk.sample(joint, "s4", nfe=20, seed=[i], num_samples=1, grid="score-sde", batch_norms=rule).x["adj"][0]
            for i in range(8)
        ]
        moved.append(float((together - torch.stack(pairs)).square().mean().sqrt()))
    return moved[0], moved[1]


def main() -> None:
    print("order of the variance (slope from 160 to 320 steps) and its error at 20 steps, N(0, v)")
    for label, sampler in SAMPLERS.items():
        figures = []
        for v in (0.02, 0.3, 1.0):
            errors = [one_dimension(sampler, v, n) for n in STEPS]
            figures.append(f"v={v}: {errors[0]:.1e}, order {math.log2(errors[-2] / errors[-1]):.2f}")
        print(f"  {label:18s} {'; '.join(figures)}")
    print("coupled Gaussian, largest error of the covariance at 20, 40, 80 steps")
    for label, sampler in SAMPLERS.items():
        errors = [coupled(sampler, n) for n in (20, 40, 80)]
        print(f"  {label:18s} {', '.join(f'{e:.2e}' for e in errors)}; order {math.log2(errors[-2] / errors[-1]):.2f}")
    released, own = batch_mates()
    print(f"S4 on graphs alone against in a batch of 8, RMS: released norms {released:.3f}, norms of its own {own:.1e}")


if __name__ == "__main__":
    main()
