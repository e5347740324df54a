"""What a sampler keeps when it runs in lockstep on a system of components, on the exact coupled Gaussian."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import TraceError
from ..joint.clock import place
from ..joint.grids import joint_grids
from ..joint.lockstep import lockstep
from ..joint.model import JointDenoiser
from ..registry.registry import SamplerCard
from ..run.sampling import sample
from ..targets.coupled_gaussian import coupled_gaussian
from .finding import at_least, at_most, holds
from .order import order_grid

SAME, SAME_NORMS = 1e-8, 1e-6  # steps that depend on norms make more of rounding than a sum does
STEPS = (50, 98)  # 2 more than a multiple of 6, as in `order`; few, since every sampler runs them
SLACK = 0.35
SIZE, NODES = 4, 3
SPACE = (
    "an @sk.op that mixes entries (a norm over the batch or over padding, a sort, a constant that is added) does "
    "not respect the component's space; sums of states times numbers do"
)


def check_system(card: SamplerCard, options: Mapping[str, Any]) -> None:
    """In lockstep on a system: order, symmetry, permutations of nodes, padding and the batch.

    A sampler that is refused for its inner stages runs with stages="time"; its order is then at least 2 of what it declares
    (a third-order stage that is moved costs an order). What asks other models or levels, or is fitted to a network, is
    refused for systems and proves nothing here.
    """
    if not card.traceable or card.prepare is not None:
        return
    stages = stages_of(card, options)
    if stages is None:
        return
    _keeps_its_space(card, {**options, **stages})
    order = card.order_of(options)
    if order is None:
        return
    wanted = min(order, 2) if stages else order
    slope, errors = system_order(card, {**card.order_options, **options}, order, bool(stages))
    at_least(
        slope, wanted - SLACK,
        f"on a system: order {wanted} is expected, measured {slope:.2f} "
        f"(errors {', '.join(f'{e:.2e}' for e in errors)} at {STEPS} steps)",
        "a coefficient is taken from something else than this component's own levels (grid.schedule, a number that is "
        "written in the code), so that components with other schedules get a wrong one",
    )  # fmt: skip


def stages_of(card: SamplerCard, options: Mapping[str, Any]) -> dict[str, str] | None:
    """What a run on a system must say of stages: nothing, stages="time"; None where it is refused altogether."""
    joint = coupled_gaussian(2, 1)
    grids = joint_grids(joint, card, None, 6, None, None, {**card.defaults, **options})
    of = {name: dict(options) for name in grids}
    for by_time in (False, True):
        try:
            lockstep(card, grids, of, joint.lead, by_time)
        except TraceError as error:
            if "fall on different times" not in str(error):
                return None
        else:
            return {"stages": "time"} if by_time else {}
    return None


def _keeps_its_space(card: SamplerCard, options: Mapping[str, Any]) -> None:
    mask = torch.tensor([1.0] * NODES + [0.0] * (SIZE - NODES))
    padded = _run(card, coupled_gaussian(SIZE, mask=mask), options, 3)
    adj = padded["adj"]
    holds(torch.equal(adj, adj.transpose(1, 2)), "the adjacency is not symmetric at the end", SPACE)
    at_most(float(adj.diagonal(dim1=1, dim2=2).abs().max()), 0, "the adjacency has a diagonal at the end", SPACE)
    outside = max(float(padded["x"][:, NODES:].abs().max()), float(adj[:, NODES:].abs().max()))
    at_most(outside, 0, "there are values where the mask says that there is no node", SPACE)
    exact = coupled_gaussian(NODES)
    whole = _run(card, exact, options, 3)
    same = functools.partial(_same, SAME if card.is_linear(options) else SAME_NORMS)
    same(whole["adj"], adj[:, :NODES, :NODES], "padding changes a sample")
    order = torch.tensor([2, 0, 1])
    permuted = _run(card, exact.with_nodes(keys=order), options, 3)
    same(permuted["x"], whole["x"][:, order], "permuting the nodes' keys does not permute x")
    same(permuted["adj"], whole["adj"][:, order][:, :, order], "permuting the nodes' keys does not permute the adjacency")
    alone = _run(card, exact, options, [1])
    same(alone["adj"], whole["adj"][1:2], "a sample depends on its batch")


def _run(card: SamplerCard, joint: Any, options: Mapping[str, Any], seeds: Any) -> dict[str, Tensor]:
    n, seed = (seeds, 0) if isinstance(seeds, int) else (len(seeds), seeds)
    out = sample(joint, card, steps=6, num_samples=n, seed=seed, dtype=torch.float64, **options)
    return out.x  # type: ignore[return-value]


def _same(most: float, a: Tensor, b: Tensor, otherwise: str) -> None:
    off = float((a - b).abs().max()) / max(float(b.abs().max()), 1.0)
    at_most(off, most, f"{otherwise} ({off:.1e})", SPACE)


def system_order(
    card: SamplerCard, options: Mapping[str, Any], order: int, by_time: bool = False
) -> tuple[float, list[float]]:
    """Slope of log error against log h on the coupled Gaussian, and the errors (RMS to its probability flow)."""
    joint: Any = coupled_gaussian(3, 1)
    target = joint.net.target
    said = {**options, **({"stages": "time"} if by_time else {})}
    errors, lengths = [], []
    for n in STEPS:
        grid, h = order_grid(joint.lead_schedule, order, n, jagged=False)
        start, exact = _reference(place(joint.lead_schedule, grid[0]), place(joint.lead_schedule, grid[-1]))  # type: ignore[arg-type]
        out = sample(joint, card, grid=grid, x=target.states(start), **said).x
        errors.append(float((target.flat(out) - exact).square().mean().sqrt()))
        lengths.append(h)
    return math.log(errors[0] / max(errors[1], 1e-300)) / math.log(lengths[0] / lengths[1]), errors


@functools.lru_cache(maxsize=8)
def _reference(begin: float, end: float) -> tuple[Tensor, Tensor]:
    """Starting states and where the probability flow takes them, (B, D), in the components' own coordinates."""
    joint = coupled_gaussian(3, 1)
    target = joint.net.target  # type: ignore[attr-defined]
    schedules = {name: part.schedule for name, part in joint.components.items()}
    s, scale = _coefficients(joint, begin)
    y = target.mean + s * torch.randn(4, target.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return y * scale, target.transport(y, schedules, begin, end, 512) * _coefficients(joint, end)[1]


def _coefficients(joint: JointDenoiser, u: float) -> tuple[Tensor, Tensor]:
    """sigma / alpha and the model's own alpha of every coordinate at a time."""
    grids = joint_grids(joint, _NOTHING, None, None, None, [joint.lead_schedule.ratio(u), 0.0], {})
    x, adj = (grids[name][0] for name in ("x", "adj"))
    target = joint.net.target  # type: ignore[attr-defined]
    return target.each(float(x), float(adj)), target.each(x.scale, adj.scale)


_NOTHING = SamplerCard("none", lambda model, x, grid, noise: x, skip=4)
