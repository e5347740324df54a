"""Uniform noise: the exact posterior step, and a Gibbs corrector after it."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

import solverkit as sk
from solverkit import Grid
from solverkit.errors import OptionError
from solverkit.process.level import Level
from solverkit.tokens import numbered
from solverkit.tokens.steps import highest

D3PM = "Austin et al. 2021, arXiv 2107.03006, eq. 3"
Selection = Literal["random", "max", "margin", "current"]


def posterior_step(model: Any, x: Tensor, log_c: Tensor, s: Level, t: Level, k: int, noise: Any) -> Tensor:
    """x_0 drawn from c, then x_t from q(x_t | x_s, x_0): three routes, to x_0, to stay, or to any token."""
    v, a, b = model.vocabulary, s.alpha / t.alpha if t.alpha > 0 else 1.0, t.alpha
    x_0 = noise.token(log_c, k, model.free)
    clean = b * ((1 - a) / v + a * (x == x_0).double())
    stay, other = a * (1 - b) / v, (1 - a) * (1 - b) / v
    to_clean = noise.happens(clean / (clean + stay + other), k, model.free)
    to_stay = noise.happens(stay / (stay + other) if b < 1 else 0.0, k, model.free & ~to_clean)
    anywhere = model.free & ~to_clean & ~to_stay
    moved = noise.token(torch.zeros_like(log_c), k, anywhere)
    return torch.where(to_clean, x_0, torch.where(anywhere, moved, x))


@sk.sampler(
    "posterior", process="uniform", order=1,
    reference=f"{D3PM}; diffusers' DiscreteDDIMScheduler", cite="austin2021",
)
def posterior(model: Any, x: Tensor, grid: Grid, noise: Any) -> Tensor:
    """The reverse process with c frozen over a step, each token on its own: q(x_t | x_s, x_0) with x_0 drawn from c."""
    for k, s, t in numbered(grid):
        x = posterior_step(model, x, model(x, s), s, t, k, noise)
    return x


def leave_one_out(log_c: Tensor, x: Tensor, alpha: float, vocabulary: int) -> Tensor:
    """log P(x_0 at i | x_t without i): the logit of the token that is there, less log(1 + V alpha / (1 - alpha))."""
    seen = math.log1p(vocabulary * alpha / (1 - alpha))
    there = torch.full_like(log_c, 0.0).scatter_(-1, x[..., None], seen)
    return (log_c - there).log_softmax(dim=-1)


def select(log_p: Tensor, x: Tensor, where: Tensor, selection: str, tau: float, k: int, noise: Any) -> Tensor:
    """(B, L) bool: one position of `where`, drawn from a softmax of how uncertain it is over tau."""
    current = log_p.gather(-1, x[..., None])[..., 0]
    uncertain = {
        "random": lambda: torch.zeros_like(current),
        "max": lambda: -highest(log_p),
        "margin": lambda: log_p.scatter(-1, x[..., None], -torch.inf).amax(dim=-1) - current,
        "current": lambda: -current,
    }[selection]()
    log_w = torch.where(where, uncertain / tau, -torch.inf)
    places = torch.arange(x.shape[1], device=x.device)
    first = (places == 0).expand_as(x) & where.any(dim=1, keepdim=True)
    place = noise.token(log_w[:, None].expand(-1, x.shape[1], -1), k, first)[:, :1]
    return (places == place) & where


def sweep(
    model: Any, x: Tensor, t: Level, count: int, selection: str, tau: float, k: int, noise: Any
) -> Tensor:
    """`count` positions drawn anew from alpha c_loo + (1 - alpha) / V: Gibbs' conditional of x_t at a position.

    It keeps the law of x_t where one position is chosen by chance. A choice that looks at the tokens is no random scan, and
    does not (`benchmarks/tokens_findings.py gibbs`); neither do several positions at once.
    """
    log_c = leave_one_out(model(x, t), x, t.alpha, model.vocabulary)
    log_p = (t.alpha * log_c.double().exp() + (1 - t.alpha) / model.vocabulary).log()
    chosen = torch.zeros_like(model.free)
    for _ in range(count):
        chosen = chosen | select(log_p, x, model.free & ~chosen, selection, tau, k, noise)
    return torch.where(chosen, noise.token(log_p, k, chosen), x)


@sk.sampler(
    "gibbs",
    process="uniform",
    order=lambda options: 1 if options["selection"] == "random" and options["count"] == 1 else None,
    biased=lambda options: options["selection"] in ("current", "margin"),
    evaluations=lambda n, options: n + options["sweeps"] * (n - 1),
    reference=f"{D3PM}; diffusers' DiscreteDDIMScheduler",
    cite="austin2021",
    variants=({"selection": "margin"}, {"selection": "max"}, {"selection": "current"}, {"sweeps": 2, "count": 2}),
)
def gibbs(
    model: Any,
    x: Tensor,
    grid: Grid,
    noise: Any,
    selection: Selection = "random",
    sweeps: int = 1,
    count: int = 1,
    tau: float = 1.0,
) -> Tensor:
    """`posterior` with Gibbs sweeps at each level after the first and before the last, one evaluation each.

    Args:
        selection: How a sweep chooses what it draws anew: by chance, or by a low max, log-margin or current probability.
        sweeps: A level.
        count: Positions a sweep.
        tau: Temperature of the choice; small ones take the most uncertain position.
    """
    if sweeps < 0 or count < 1 or not tau > 0:
        raise OptionError(f"gibbs needs sweeps >= 0, count >= 1 and tau > 0, got {sweeps}, {count} and {tau}.")
    for k, s, t in numbered(grid):
        x = posterior_step(model, x, model(x, s), s, t, k, noise)
        for _ in range(sweeps if t > 0 else 0):
            x = sweep(model, x, t, count, selection, tau, k, noise)
    return x
