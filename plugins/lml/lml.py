"""Levenberg-Marquardt-Langevin as published, told in closed form, around any solver."""

from __future__ import annotations

import bisect
import math
from typing import Any, Literal

import solverkit as sk
from solverkit import Grid, Level
from solverkit.errors import OptionError
from solverkit.plan.plan import advance, begin
from solverkit.plan.trace import trace
from solverkit.steps import parse_options

from .direction import correction, published_correction, random_turn

Insertion = Literal["direction", "ddim", "data-increment", "noise-increment"]

# lambda by number of evaluations (the largest entry not above it), from the released README
PRESETS: dict[str, tuple[tuple[int, float], ...]] = {
    "cifar10": (
        (5, 8e-4), (7, 1e-3), (10, 8e-4), (12, 1e-3), (20, 5e-4), (30, 3e-4), (50, 1e-4), (100, 5e-5),
    ),
    "celebahq": ((1, 5e-3),),
    "stable-diffusion": ((1, 1e-3),),
    "t2i": ((1, 6e-3),),
    "controlnet": ((1, 1e-3),),
    "flux": ((1, 1e-2),),
}  # fmt: skip


LML_2025 = "arXiv 2505.24222"


def _plain(options: dict[str, Any]) -> bool:
    return options["momentum"] == 0 and not options["released"] and not options["random_angle"]


def _order(options: dict[str, Any]) -> int | None:
    """Of the default solver, where nothing is changed."""
    return 2 if _plain(options) and options["solver"] == "dpmpp-2m" and options["insertion"] != "ddim" else None


@sk.sampler(
    "lml",
    order=_order,
    order_options={"solver": "dpmpp-2m:lower_order_final=false"},
    linear=_plain,
    restarts=False,  # the last direction is a memory that does not fade with the step
    reference=LML_2025,
    cite="wang2025lml",
    variants=(
        {"momentum": 5e-5, "solver": "unipc", "damping": "cifar10"},
        {"momentum": 5e-5, "insertion": "ddim"},
        {"momentum": 5e-5, "insertion": "data-increment"},
        {"momentum": 1e-6, "insertion": "noise-increment", "solver": "dpm-solver-1"},
    ),
    option_examples=({"released": True}, {"random_angle": 0.1}),
)
def lml(
    model: Any,
    x: Any,
    grid: Grid,
    noise: Any,
    solver: str = "dpmpp-2m",
    damping: float | str = 1e-3,
    momentum: float = 0.0,
    insertion: Insertion = "direction",
    released: bool = False,
    random_angle: float = 0.0,
) -> Any:
    """A solver whose direction is replaced by (lambda I + m m^T)^-1 of it, rescaled to its norm; m mixes in the last one.

    In closed form (`direction.py`) that is out = (v - c w) / norm: the part w of the last direction that is orthogonal to
    the present one is subtracted, c = kappa |v|^2 / lambda for small kappa. With momentum = 0, the published default, it is
    the solver itself. Previous directions belong to the run.
    Source: arXiv 2505.24222 and its released code; closed form derived from the latter (docs/lml.md).

    Args:
        solver: Any traceable sampler, its options behind its name ("dpm-solver-1", "unipc:order=2").
        damping: lambda, or a preset of the released README: cifar10 (by NFE), celebahq, stable-diffusion, t2i, controlnet,
            flux.
        momentum: kappa.
        insertion: What is corrected. "direction": the network's answer, v = (x - D) / s, that is epsilon or the velocity,
            before the solver sees it. As published: "ddim", the direction term of DDIM alone (`solver` is not used);
            "data-increment" and "noise-increment", all that a solver of one evaluation a step adds to (t/s) x
            (DPM-Solver++) or to (alpha_t/alpha_s) x (DPM-Solver). The published flow Euler is "direction" with
            solver="euler".
        released: The released float32 formula, whose result at momentum = 0 is rounding noise; for comparison.
        random_angle: A control: turn by so many radians towards random noise instead. Stochastic then.

    Raises:
        OptionError: an unknown preset, damping that is not above 0, momentum outside [0, 1), or an increment of a solver
            that asks more than once a step.
    """
    if isinstance(damping, str) and damping not in PRESETS:
        raise OptionError(f"damping must be a number or one of {', '.join(PRESETS)}, got {damping!r}.")
    if not (isinstance(damping, str) or damping > 0) or not 0 <= momentum < 1 or not 0 <= random_angle < math.pi:
        raise OptionError(
            "lml needs damping > 0, momentum in [0, 1) and random_angle in [0, pi), got "
            f"{damping}, {momentum}, {random_angle}."
        )
    name, options = parse_options("ddim" if insertion == "ddim" else solver)
    plan = trace(name, grid, **options)
    weight = preset(damping, plan.nfe) if isinstance(damping, str) else float(damping)
    if insertion in ("data-increment", "noise-increment") and not (all(plan.boundary) and not plan.draws):
        raise OptionError(f"an increment belongs to a deterministic solver of one evaluation a step, and {name!r} is none.")
    previous: Any = None

    def change(v: Any, s: Level) -> Any:
        """What is added to v."""
        nonlocal previous
        if random_angle:
            return random_turn(v, noise(s, s), float(random_angle))
        last, previous = (v if previous is None else previous), v
        return (published_correction if released else correction)(v, last, weight, float(momentum))

    x, state = begin(plan, x, noise.draw)
    for j, (s, boundary) in enumerate(zip(plan.levels, plan.boundary)):
        if boundary:
            grid.begin_step()
        denoised = model(x, s)
        if insertion == "direction":
            x, state = advance(plan, state, x, denoised - float(s) * change((1 / s) * (x - denoised), s), noise.draw)
            continue
        t = plan.levels[j + 1] if j + 1 < plan.nfe else grid[-1]
        if insertion == "ddim":  # alpha_t D + t eps
            eps = (1 / s) * (x - s.alpha * denoised)
            x = t.alpha * denoised + float(t) * (eps + change(eps, s)) if t > 0 else denoised
            continue
        after, state = advance(plan, state, x, denoised, noise.draw)
        if insertion == "noise-increment" and (t == 0 or s.alpha == 0):  # the form has no limit there
            x = after
            continue
        kept = t / s if insertion == "data-increment" else t.alpha / s.alpha
        x = after + change(after - kept * x, s)
    return x


def preset(name: str, nfe: int) -> float:
    """lambda of a preset at so many evaluations."""
    table = PRESETS[name]
    return table[max(bisect.bisect_right([n for n, _ in table], nfe) - 1, 0)][1]


