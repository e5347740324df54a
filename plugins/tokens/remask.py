"""Decoders that mask tokens again: ReMDM, and the corrector of discrete flow matching."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

import solverkit as sk
from solverkit import Grid
from solverkit.errors import OptionError
from solverkit.tokens import numbered

REMDM = "Wang et al. 2025, arXiv 2503.00307 (ReMDM)"
Rule = Literal["cap", "rescale", "conf", "loop"]
LOOP = {"t_on": 0.55, "t_off": 0.05, "alpha_on": 0.9}


@sk.sampler(
    "remdm",
    biased=lambda options: options["rule"] == "conf",
    reference=f"{REMDM}, section 4",
    cite="wang2025remdm",
    remembers=lambda options: options["rule"] == "conf",
    variants=({"rule": "rescale"}, {"rule": "conf"}, {"rule": "loop"}),
)
def remdm(model: Any, x: Tensor, grid: Grid, noise: Any, rule: Rule = "cap", eta: float = 0.02) -> Tensor:
    """A revealed token is masked again with probability r, a masked one revealed with q = (a_t - (1 - r) a_s) / (1 - a_s).

    a = 1 - m. For any r up to (1 - a_t) / a_s the marginal q(z_t | x_0) is kept. It corrects early mistakes of a network;
    with exact conditionals the joint law gets worse, of an order below 1 (`benchmarks/tokens_findings.py remasking`).
    "conf" looks at the tokens: likely ones stay longer, so its law is biased even where tokens are independent.

    Args:
        rule: "cap": r = min(eta, cap); "rescale": r = eta cap; "conf": cap times a softmax over the revealed positions of
            minus the probability that the token had when it was drawn; "loop": plain down to t = 0.55, then masked share
            0.1 and r = eta until 0.05, then plain.
        eta: How much is masked again.
    """
    if not 0 <= eta <= 1:
        raise OptionError(f"remdm needs 0 <= eta <= 1, got {eta}.")
    drawn_with = torch.full(x.shape, torch.inf, dtype=torch.float64, device=x.device)
    for k, s, t in numbered(grid):
        a_s, a_t, looping = _looped(s, t) if rule == "loop" else (1 - s, 1 - t, False)
        cap = min(1.0, (1 - a_t) / a_s) if a_s > 0 else 1.0
        r: Any = {"cap": min(eta, cap), "rescale": eta * cap, "conf": cap, "loop": eta if looping else 0.0}[rule]
        log_c, masked = model(x, s), x == model.mask
        shown = ~masked & model.free
        if rule == "conf":
            r = r * torch.where(shown, -drawn_with, -torch.inf).softmax(dim=1).nan_to_num() * shown
        q = ((a_t - (1 - r) * a_s) / (1 - a_s)) if a_s < 1 else 1.0
        revealed, hidden = noise.happens(q, k, masked), noise.happens(r, k, shown)
        token = noise.token(log_c, k, revealed)
        drawn_with = torch.where(revealed, log_c.double().gather(-1, token[..., None])[..., 0].exp(), drawn_with)
        x = torch.where(revealed, token, torch.where(hidden, model.mask, x))
    return x


def _looped(s: float, t: float) -> tuple[float, float, bool]:
    """(a_s, a_t, whether tokens are masked again) of ReMDM-loop, s and t as places in the run."""

    def alpha(place: float) -> float:
        if place >= LOOP["t_on"]:
            return LOOP["alpha_on"] * (1 - place) / (1 - LOOP["t_on"])
        return 1 - (1 - LOOP["alpha_on"]) * min(place / LOOP["t_off"], 1.0)

    return alpha(s), alpha(t), LOOP["t_off"] <= t and s <= LOOP["t_on"]


@sk.sampler("dfm-corrector", order=1, reference="Gat et al. 2024, arXiv 2407.15595, section 3", cite="gat2024")
def dfm_corrector(model: Any, x: Tensor, grid: Grid, noise: Any, strength: float = 10.0, power: float = 0.25) -> Tensor:
    """Forward rate a and backward rate b = a - 1 at once, a = 1 + strength (t (1 - t))^power, t = 1 - m the clean share.

    A masked token is revealed with probability a (m_s - m_t) / m_s, a revealed one masked again with b (m_s - m_t) / (1 -
    m_s), each at most 1. The published loop shortens a step where they would exceed 1; here the grid is what was asked for.
    """
    for k, s, t in numbered(grid):
        a = 1 + strength * (s * (1 - s)) ** power
        q = 1.0 if t == 0 else min(a * (s - t) / s, 1.0)
        back = min((a - 1) * (s - t) / (1 - s), 1.0) if t > 0 and s < 1 else 0.0
        log_c, masked = model(x, s), x == model.mask
        revealed, hidden = noise.happens(q, k, masked), noise.happens(back, k, ~masked & model.free)
        x = torch.where(revealed, noise.token(log_c, k, revealed), torch.where(hidden, model.mask, x))
    return x
