"""Flow maps: a network of two times, asked from one level to the next."""

from __future__ import annotations

from typing import Any, Literal

import solverkit as sk
from solverkit import Grid
from solverkit.errors import OptionError
from solverkit.steps import exact_step


@sk.sampler(
    "flow-map",
    reference="Geng et al. 2025, arXiv 2505.13447, eq. 12; Kim et al. 2024, arXiv 2310.02279, eq. 9",
    cite="geng2025 kim2024",
    variants=({"kind": "sde"},),
)
def flow_map(model: Any, x: Any, grid: Grid, noise: Any, kind: Literal["ode", "sde"] = "ode") -> Any:
    """The map from each level to the next ("ode"), or to the data and noised anew ("sde").

    ode    x+ = psi(x, s, t) = (t / s) x + alpha_t (1 - r) g(x, s, t),    g the answer of a network of two times
    sde    x+ = alpha_t g(x, s, 0) + t z

    A perfect map is exact in one step and in any number of them. Needs a denoiser of `sk.wrap_map`.
    Source: Geng et al. 2025 (MeanFlow), eq. 12; Kim et al. 2024 (CTM), eq. 9 and gamma = 0, 1 of its Algorithm 3.

    Args:
        kind: "ode" or "sde".
    """
    if kind not in ("ode", "sde"):
        raise OptionError(f"kind must be 'ode' or 'sde', got {kind!r}.")
    data = grid.at(0.0)
    for s, t in grid.steps():
        if kind == "ode":
            x = exact_step(x, model(x, s, to=t), s, t)
            continue
        sample = model(x, s, to=data)
        x = t.alpha * sample if t == 0 else t.alpha * sample + t * noise(s, t)
    return x
