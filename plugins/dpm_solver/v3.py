"""DPM-Solver-v3: an exponential integrator whose linear part is measured from the network, coordinate by coordinate.

With y = x / alpha and model statistics l, s, b the network enters through f = (1 - l) y - D, which along the probability
flow obeys f' = s f + b + (what is left); the step is in `v3_weights.py`. (l, s, b) = (1, 0, 0) is DPM-Solver++, (0, -1, 0)
is DPM-Solver; for Gaussian data with independent coordinates one step of first order is exact.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch

import solverkit as sk
from solverkit import Grid, Level
from solverkit.ems.stats import ModelStats, Statistics
from solverkit.errors import OptionError, StatsError
from solverkit.steps import exact_step, usable_orders

from .multistep import ENDING
from .v3_weights import Weights, step_weights

Corrector = Literal["full", "pseudo", "same", "none"]
UNIT = {"stats": "isotropic:variance=0.8"}  # in any dimension: what the proofs run on


def prepare(denoiser: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Options with the statistics that lie beside the model where none were given; refuses those of another shape."""
    given = options.get("stats")
    found = ModelStats.of(denoiser) if given is None else ModelStats.load(given)
    if isinstance(found, ModelStats):
        found.require_match(denoiser)
    return {**options, "stats": found} if given is None else options


def _order(options: dict[str, Any]) -> int:
    order = int(options["order"])
    predicted = min(order, 2) if options["pseudo"] else order
    return {"none": predicted, "same": order, "pseudo": 2, "full": predicted + 1}[options["corrector"]]


@sk.op
def left_of(x: torch.Tensor, denoised: torch.Tensor, stats: Statistics, s: Level) -> torch.Tensor:
    """f = (1 - l) x / alpha - D, (B, *shape)."""
    if stats.shape and tuple(x.shape[1:]) != stats.shape:
        given = tuple(x.shape[1:])
        raise StatsError(f"these model statistics are of samples of shape {stats.shape}, and the run has {given}.")
    gain = (1 - stats.at(torch.tensor([s.lam], dtype=torch.float64))[0][0]) / s.alpha
    return _like(gain, x) * x - denoised


@sk.op
def statistical_step(x: torch.Tensor, left: list[torch.Tensor], weights: Weights) -> torch.Tensor:
    """gain x + constant + sum_i terms_i f_i, (B, *shape)."""
    out = _like(weights.gain, x) * x + _like(weights.constant, x)
    for f, term in zip(left, weights.terms):
        out = out + _like(term, x) * f
    return out


@sk.sampler(
    "dpm-solver-v3",
    order=_order,
    order_options=ENDING,
    reference="Zheng et al. 2023, arXiv 2310.13268",
    cite="zheng2023v3",
    multistep=True,
    informed=True,
    prepare=prepare,
    variants=(
        {**UNIT},
        {**UNIT, "order": 1, "corrector": "none"},
        {**UNIT, "order": 2},
        {**UNIT, "order": 3, "corrector": "none"},
        {**UNIT, "order": 3, "corrector": "pseudo", "pseudo": True},
        {"stats": "data", "order": 3, "corrector": "same"},
        {"stats": "noise", "order": 2, "corrector": "none"},
    ),
)
def dpm_solver_v3(
    model: Any,
    x: Any,
    grid: Grid,
    noise: Any,
    stats: Any,
    order: int = 3,
    corrector: Corrector = "full",
    pseudo: bool = False,
    released: bool = False,
    lower_order_final: bool = True,
) -> Any:
    """DPM-Solver-v3: multistep, one evaluation a step, with a corrector that costs none.

    The corrector keeps f of the predicted point for the corrected one. Steps from alpha = 0 and to 0 are DPM-Solver++'s of
    first order. The released derivatives ("pseudo") are k! times divided differences: third order is second order then.
    Source: Zheng et al. 2023, eq. 8 to 10 and Algorithm 1; thu-ml/DPM-Solver-v3 (levels there are snapped to the nodes of
    the statistics, and integrals are trapezoidal between them).

    Args:
        stats: l, s and b: `sk.ModelStats`, a file or folder, "data" (1, 0, 0), "noise" (0, -1, 0), or
            "isotropic:variance=V"; None takes those that lie beside the model.
        order: Of the predictor, 1 to 3.
        corrector: Through the new point and as many past ones as the predictor uses ("full", one order more); with the
            released derivatives ("pseudo", order 2); through one past point less ("same", as released without c_pseudo);
            or "none".
        pseudo: The predictor takes the released derivatives.
        released: The published rule of orders: full order whatever the steps.
        lower_order_final: The last step is of first order, the one before it at most of second.

    Raises:
        OptionError: order is none of 1, 2, 3.
        StatsError: statistics of another shape.
    """
    if not 1 <= order <= 3:
        raise OptionError(f"order must be 1, 2 or 3, got {order}.")
    if stats is None:
        denoiser = getattr(model, "denoiser", None)
        if denoiser is None:
            raise OptionError("without a model no statistics can be found: give stats=, a file, data or noise.")
        stats = ModelStats.of(denoiser)
    found = ModelStats.load(stats)
    history: list[tuple[Level, Any]] = []
    pending: tuple[Level, Weights, int] | None = None
    for used, (s, t) in zip(usable_orders(order, grid, lower_order_final, released), grid.steps()):
        denoised = model(x, s)
        here = left_of(x, denoised, found, s) if s.alpha > 0 else None
        if pending is not None:
            start, predicted, count = pending
            nodes = [level for level, _ in history[:count]]
            weights = step_weights(found, start, s, nodes, True, corrector == "pseudo").beyond(predicted)
            left: list[Any] = [*(f for _, f in history[: len(predicted.terms)]), here]
            x = statistical_step(x, left, weights)
        pending = None
        if here is not None:
            history = [(s, here), *history[: order - 1]]
        if t == 0 or not math.isfinite(s.lam):
            x = exact_step(x, denoised, s, t)
            continue
        past = history[:used]
        weights = step_weights(found, s, t, [level for level, _ in past], False, pseudo)
        x = statistical_step(x, [f for _, f in past], weights)
        if corrector != "none" and (corrector != "same" or used > 1):
            pending = (s, weights, used - 1 if corrector == "same" else used)
    return x


def _like(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A weight in x's dtype on x's device; cast on the host, since a device may know no float64."""
    return weight.to(x.dtype).to(x.device)
