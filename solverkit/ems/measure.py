"""l, s and b of a network, measured along its own converged trajectories (Zheng et al. 2023, section 3.1)."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..diagnosis.probed import Probed, signs
from ..errors import DenoiserError, OptionError, StatsError
from ..model.counting import counting
from ..run.noise import sample_seeds
from ..tuning.trajectories import converge, usual_evaluations

RIDGE = 1e-4  # of the data's variance: where f varies less along the trajectories, s goes to 0
Tables = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def measure(
    denoiser: Any, samples: int = 256, nodes: int = 120, probes: int = 1, evaluations: int | None = None,
    batch_size: int = 64, ridge: float = RIDGE, seed: int = 31_000,
) -> tuple[Tables, dict[str, Any]]:  # fmt: skip
    """(lams, l, s, b) at about `nodes` levels, and where they come from.

    l = E diag(1 - alpha dD/dx) by probes, v * (J^T v) with E[v v^T] = I (Hutchinson; by finite differences where there is
    no gradient). f = (1 - l) y - D and its derivative along the trajectory, by central differences, give s = Cov(f, f') /
    (Var f + ridge) and b = E f' - s E f, each coordinate for itself. The probes of a sample are the same at all levels, so
    that their error is smooth in lam. Without the ridge s would be 0 / 0 where the data are Gaussian: there f is constant.

    Args:
        denoiser: Of the network, guided or not; it knows the shape of a sample.
        samples: Trajectories, at least 8.
        nodes: Levels, at least 8; at most those of the converged run.
        probes: Of each sample at each level.
        evaluations: Of a converged run; by default 1024 of an exact target and 128 of a network.
        batch_size: Rows of one call.
        ridge: See above, over the mean variance of the data.
        seed: Of the noises.

    Raises:
        OptionError: counts out of range.
        StatsError: the shape of a sample is not known.
    """
    for name, value, least in (("samples", samples, 8), ("nodes", nodes, 8), ("probes", probes, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise OptionError(f"{name} must be an integer of at least {least}, got {value!r}.")
    if not 0 < ridge < math.inf:
        raise OptionError(f"ridge must be a number above 0, got {ridge!r}.")
    shape = getattr(denoiser, "shape", None)
    if shape is None:
        raise StatsError("this denoiser does not know the shape of a sample.")
    exact = hasattr(denoiser, "target")
    dtype = torch.float64 if exact else torch.float32
    asked = max(evaluations or usual_evaluations(denoiser), nodes * (4 if exact else 1))
    with counting() as count:
        runs = [
            converge(denoiser, len(keys), keys, asked, keep=nodes)
            for keys in _chunks(sample_seeds(seed, samples), batch_size)
        ]
        grid = runs[0].grid
        used = [i for i, level in enumerate(grid) if math.isfinite(level.lam)]
        lams = torch.tensor([grid[i].lam for i in used], dtype=torch.float64)
        signed = [signs(sample_seeds(seed, samples), tuple(shape), k) for k in range(probes)]
        own, answers, gains = [], [], []
        for i in used:
            x = torch.cat([run.states[i] for run in runs]).cpu().double()
            probed = Probed(denoiser, grid[i], batch_size, dtype)
            try:
                products = probed.pulled(x, signed)
            except DenoiserError:
                products = [probed.forward(x, v) for v in signed]
            diagonal = torch.stack([v * p for v, p in zip(signed, products)]).mean(0)
            gains.append((1 - grid[i].alpha * diagonal).mean(0))
            own.append(x / grid[i].alpha)
            answers.append(probed.denoised(x))
    l = torch.stack(gains)  # noqa: E741
    f = torch.stack([(1 - gain) * y - d for gain, y, d in zip(l, own, answers)])  # (n, B, *shape)
    slope = torch.gradient(f, spacing=(lams,), dim=0, edge_order=1)[0]
    around, change = f - f.mean(1, keepdim=True), slope - slope.mean(1, keepdim=True)
    variance = float(answers[-1].var(0).mean())
    s = (around * change).mean(1) / (around.square().mean(1) + ridge * variance)
    b = slope.mean(1) - s * f.mean(1)
    source = {"source": "network", "samples": samples, "nodes": len(lams), "probes": probes, "ridge": ridge}
    return (lams, l, s, b), {**source, "evaluations": count.rows, "products": count.products}


def _chunks(keys: list[int], size: int) -> list[list[int]]:
    return [keys[i : i + size] for i in range(0, len(keys), size)]
