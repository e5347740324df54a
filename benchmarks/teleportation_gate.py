"""What teleport "auto" and gaussian-exponential do on networks that nothing about them was chosen on.

    python benchmarks/teleportation_gate.py                                  # exact mixtures
    python benchmarks/teleportation_gate.py --mnist mnist.npz --seconds 200  # and a small network, trained here first

Statistics come from the model alone. For each model, solver and budget: RMS error to the ODE on 128 noises, beside the
plain solver on the best of five grids (chosen in hindsight, on the same noises) and on the default one; the ratio of RMS
errors with a 95 % bootstrap interval, and the ratio of median errors. A ratio whose interval holds 1 is a tie.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from typing import Any

import numpy as np
import torch
from torch import nn

import solverkit as sk
from solverkit.errors import GridError
from solverkit.problems import mixture

SOLVERS = ("dpmpp-2m", "unipc", "ipndm")
BUDGETS = (6, 8, 10, 15)
GRIDS = (None, "karras", "log-snr", "time-uniform", "flow")
NOISES, SEED = 128, 90210
EXACT = {
    "20 dimensions, 7 modes, VP": lambda: mixture(dim=20, modes=7, seed=31, schedule=sk.VP()),
    "32 dimensions, 4 modes, EDM": lambda: mixture(dim=32, modes=4, seed=17, schedule=sk.EDM()),
    "40 dimensions, 15 modes, flow": lambda: mixture(dim=40, modes=15, seed=23, schedule=sk.Flow(shift=2)),
}


class Residual(nn.Module):
    """Epsilon of flat data: four residual blocks that see the time, 0 to 999."""

    def __init__(self, dim: int, width: int = 384) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(dim, width), nn.Linear(width, dim)
        self.time = nn.Sequential(nn.Linear(32, width), nn.SiLU(), nn.Linear(width, width))
        layers = (nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(copy.deepcopy(nn.Sequential(*layers)) for _ in range(4))
        self.register_buffer("rates", torch.linspace(0.6, 24, 16))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        angle = t.float()[:, None] / 1000 * self.rates
        h, told = self.first(x), self.time(torch.cat([angle.sin(), angle.cos()], 1))
        for block in self.blocks:
            h = h + block(h + told)
        return self.last(h)


def trained(path: str, seconds: float) -> sk.Denoiser:
    """A network of digits at 12 x 12, 144 numbers, that predicts epsilon on the discrete VP schedule."""
    torch.manual_seed(0)
    digits = torch.from_numpy(np.load(path)["train_x"]).float() / 127.5 - 1
    data, schedule = nn.functional.avg_pool2d(digits[:, None], 2)[:, :, 1:13, 1:13].flatten(1), sk.VP()
    scales = torch.tensor([schedule.alpha_sigma(schedule.ratio(t)) for t in range(1000)]).float()
    net, start, step = Residual(data.shape[1]), time.perf_counter(), 0
    optimizer, mean = torch.optim.Adam(net.parameters(), 1e-3), {k: v.clone() for k, v in net.state_dict().items()}
    while (spent := (time.perf_counter() - start) / seconds) < 1:
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 - spent) + 1e-5
        x = data[torch.randint(len(data), (256,))]
        t, noise = torch.randint(1000, (256,)), torch.randn_like(x)
        loss = (net(scales[t, :1] * x + scales[t, 1:] * noise, t) - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        for k, v in net.state_dict().items():
            mean[k].lerp_(v, 0.05 if step < 500 else 0.002)
    net.load_state_dict(mean)
    return sk.wrap(net.eval().requires_grad_(False), "epsilon", schedule, shape=(data.shape[1],))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist")
    parser.add_argument("--seconds", type=float, default=200.0)
    given = parser.parse_args()
    models: dict[str, Any] = {name: make() for name, make in EXACT.items()}
    if given.mnist:
        models["digits at 12 x 12, VP, trained"] = trained(given.mnist, given.seconds)
    for name, model in models.items():
        report(name, model)


def report(name: str, model: Any) -> None:
    stats = sk.GaussianStats.from_network(model, rank=min(64, math.prod(model.shape))).measured(model)
    run: dict[str, Any] = {"num_samples": NOISES, "seed": SEED}
    fine = sk.make_grid("karras", model.schedule, 96, ratio_min=max(model.schedule.ratio_min / 50, 2e-5))
    true = sk.sample(model, "rk4", grid=fine, dtype=torch.float64, **run).x

    def errors(sampler: str, **options: Any) -> torch.Tensor:
        return (sk.sample(model, sampler, **run, **options).x.double() - true).flatten(1).square().mean(1)

    print(f"{name}: {stats}\n| | NFE | best grid | default | auto | over best | median | over default | ran |")
    print("|" + "---|" * 9)
    for solver in (*SOLVERS, "gaussian-exponential"):
        for nfe in BUDGETS:
            base, plain = "dpmpp-2m" if solver == "gaussian-exponential" else solver, {}
            for grid in GRIDS:
                try:
                    plain[grid] = errors(base, nfe=nfe, grid=grid)
                except GridError:
                    continue
            best = min(plain.values(), key=lambda e: float(e.mean()))
            options = {} if solver == "gaussian-exponential" else {"solver": solver}
            sampler = "teleport" if options else solver
            ours = errors(sampler, nfe=nfe, stats=stats, **options)
            said = sk.sample(model, sampler, nfe=nfe, stats=stats, num_samples=1, **options).reports
            cells = [f"{float(e.mean().sqrt()):.4f}" for e in (best, plain[None], ours)]
            median = float((ours.median() / best.median()).sqrt())
            cells += [ratio(ours, best), f"{median:.2f}", ratio(ours, plain[None])]
            ran = f"{said['layout']} from {said['jump']:.3g} to {said['last']:.2g}"
            print(f"| {solver} | {nfe} | " + " | ".join(cells) + f" | {ran} |", flush=True)


def ratio(a: torch.Tensor, b: torch.Tensor) -> str:
    """RMS of a over RMS of b with a 95 % interval, the same noises drawn again and again."""
    rows = torch.randint(len(a), (2000, len(a)), generator=torch.Generator().manual_seed(0))
    ratios = (a[rows].mean(1) / b[rows].mean(1)).sqrt()
    low, high = ratios.quantile(torch.tensor([0.025, 0.975], dtype=ratios.dtype)).tolist()
    return f"{float((a.mean() / b.mean()).sqrt()):.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
