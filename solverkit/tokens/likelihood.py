"""Bound on the log-probability of tokens under a masked model."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..errors import OptionError
from ..flow.likelihood import Likelihood
from ..model.counting import counting
from ..run.noise import PROBE, sample_seeds
from .noise import TokenNoise

DRAWS, BATCH = 64, 64


def token_bound(
    model: Any, x: Tensor, method: str = "elbo", draws: int | None = None, seed: Any = 0, batch_size: int | None = None
) -> Likelihood:
    """-log p(x) <= E_k E_masks (L / k) sum over the k masked of -log c, k uniform on 1 .. L (Ou et al. 2025, k-DCE).

    It is the mean over all orders of the any-order autoregressive code, so it is log p(x) itself where the conditionals are
    exact, and has no variance on independent tokens. k is stratified over the draws. Given positions (a prompt) are never
    masked: the bound is that of the rest.

    Args:
        model: A masked token model that is told no time.
        x: Ids (B, L).
        method: "elbo".
        draws: Masks a sequence; default 64.
        seed, batch_size: As of `log_likelihood`.

    Returns:
        nats, and as `bits_per_dim` the bits a token of the free positions.

    Raises:
        OptionError: another method, a uniform process, a network that is told a time, or ids that the model does not have.
    """
    if method != "elbo":
        raise OptionError(
            f"a token model has method='elbo' alone, got {method!r}: 'ode' and 'vlb' are of continuous models."
        )
    if model.process.noise != "absorbing" or model.time is not None:
        raise OptionError("the bound is that of a masked model that is told no time (sk.Absorbing, time=None).")
    if x.dtype != torch.long or x.ndim != 2 or not x.numel() or bool(((x < 0) | (x >= model.vocabulary)).any()):
        raise OptionError(f"x must be ids (B, L), torch.long, 0 to {model.vocabulary - 1}.")
    n = DRAWS if draws is None else draws
    keys = sample_seeds(seed, len(x))
    given = torch.zeros_like(x, dtype=torch.bool) if model.prompt is None else (model.prompt >= 0).expand_as(x)
    free = ~given.to(x.device)
    values = torch.empty(n, len(x), dtype=torch.float64)
    with counting() as count:
        for a in range(0, len(x), batch_size or BATCH):
            part = slice(a, a + (batch_size or BATCH))
            noise = TokenNoise(keys[part], x.shape[1], x.device)
            clean, open_ = x[part], free[part]
            length = open_.sum(dim=1)
            for i in range(n):
                u = noise.uniform(PROBE, i)[:, 0]
                k = ((i + u) / n * length).long().clamp(max=x.shape[1] - 1) + 1
                rank = torch.where(open_, noise.order(i), math.inf).argsort(dim=1).argsort(dim=1)
                hidden = (rank < k[:, None]) & open_
                log_p = model(torch.where(hidden, model.mask, clean), k / length)
                found = log_p.double().gather(-1, clean[..., None])[..., 0]
                values[i, part] = (torch.where(hidden, found, 0.0).sum(dim=1) * length / k).cpu()
    nats = values.mean(dim=0)
    halves = (values[1:] - values[:-1]).square().mean(dim=0) / 2 if n > 1 else torch.full((len(x),), math.nan)
    bits = -nats / (free.sum(dim=1).cpu() * math.log(2.0))
    return Likelihood(nats, bits, (halves / n).sqrt(), count.rows / len(x))
