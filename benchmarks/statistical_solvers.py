"""DPM-Solver-v3 beside the solvers that know the data's Gaussian, and those that know nothing, on the exact mixture.

    python benchmarks/statistical_solvers.py --out rows.jsonl
    python benchmarks/statistical_solvers.py --network mnist --noises 512 --device cuda
    python benchmarks/statistical_solvers.py --finding

The first measures l, s and b of `mixture` (256 trajectories, none of the noises that are judged on), runs every solver on
the same noises and three grids, one of which is chosen on 64 noises, and prints figures on 512 others: RMS of the
distance to the converged solution, its 95 % interval over resampled noises, and the median. The second does so for a
network with its bundled statistics (or those of --stats) on its own grid. The third shows what l does without b on a
diagonal Gaussian. Rows: benchmarks/results/statistical-solvers.jsonl, the tables of docs/model-statistics.md.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import torch

import solverkit as sk
from solverkit.ems.closed import OfGaussian
from solverkit.tuning.trajectories import converge

NOISES, CHOOSING, SEED = 512, 64, 4_400_000
BUDGETS, GRIDS = (5, 6, 8, 10), ("flow", "karras", "log-snr")


def solvers(model: sk.problems.ExactDenoiser) -> dict[str, tuple[str, dict[str, object]]]:
    """name -> (sampler, options)."""
    full = sk.ModelStats.measured(model, samples=256)
    v3 = "dpm-solver-v3"
    return {
        "dpm-solver-v3": (v3, {"stats": full}),
        "dpm-solver-v3, pseudo corrector": (v3, {"stats": full, "corrector": "pseudo"}),
        "dpm-solver-v3, order 2": (v3, {"stats": full, "order": 2}),
        "dpm-solver-v3 as released": (v3, {"stats": full, "corrector": "pseudo", "released": True}),
        "dpm-solver-v3, l and b alone": (v3, {"stats": full.without("s")}),
        "dpm-solver-v3, l alone": (v3, {"stats": full.without("s", "b")}),
        "dpm-solver-v3, (1, 0, 0)": (v3, {"stats": "data"}),
        "gaussian-exponential, same grid": ("gaussian-exponential", {"stats": "mixture", "start": float("inf")}),
        "gaussian-exponential": ("gaussian-exponential", {"stats": "mixture"}),
        "dpmpp-2m": ("dpmpp-2m", {}),
        "dpmpp-3m": ("dpmpp-3m", {}),
        "unipc": ("unipc", {}),
        "tuned": ("tuned", {"plan": "mixture"}),
    }


def compare(out: Path | None) -> None:
    model = sk.problems.mixture()
    ends = converge(model, CHOOSING + NOISES, SEED, 1024, keep=1)
    rows = []
    for name, (sampler, options) in solvers(model).items():
        for nfe in BUDGETS:
            tried = {}
            for grid in (None,) if sampler == "tuned" else GRIDS:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)
                    x = sk.sample(model, sampler, nfe=nfe, x=ends.own_start, grid=grid, dtype=torch.float64, **options).x
                tried[grid or "its own"] = (x - ends.own_end).flatten(1).square().mean(1).sqrt()
            few = slice(0, CHOOSING)
            grid = min(tried, key=lambda g: float(tried[g][few].square().mean()))
            errors = tried[grid][CHOOSING:]
            rows.append({"model": "mixture", "solver": name, "nfe": nfe, "grid": grid, **figures(errors[:, None])})
            print(rows[-1], flush=True)
    if out is not None:
        with out.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


def network(name: str, path: Path | None, device: str, noises: int, out: Path | None) -> None:
    """Its own grid; statistics from `path`, else those bundled with the network."""
    model = sk.load(name, device=device)
    stats = sk.ModelStats.of(model) if path is None else sk.ModelStats.load(path)
    assert isinstance(stats, sk.ModelStats)
    ends = converge(model, noises, SEED, 128, keep=1)
    v3 = "dpm-solver-v3"
    tried: dict[str, tuple[str, dict[str, object]]] = {
        "dpm-solver-v3": (v3, {"stats": stats}),
        "dpm-solver-v3 as released": (v3, {"stats": stats, "corrector": "pseudo", "released": True}),
        "dpm-solver-v3, l and b alone": (v3, {"stats": stats.without("s")}),
        "dpm-solver-v3, l alone": (v3, {"stats": stats.without("s", "b")}),
        "dpm-solver-v3, (1, 0, 0)": (v3, {"stats": "data"}),
        "gaussian-exponential": ("gaussian-exponential", {}), "teleport": ("teleport", {}), "dpmpp-2m": ("dpmpp-2m", {}),
        "unipc": ("unipc", {}), "tuned": ("tuned", {"plan": name}),
    }  # fmt: skip
    rows = []
    for said, (sampler, options) in tried.items():
        for nfe in BUDGETS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                x = sk.sample(model, sampler, nfe=nfe, x=ends.own_start.to(device), batch_size=128, **options).x.cpu()
            rows.append({"model": name, "solver": said, "nfe": nfe, "grid": "its own", **figures(x - ends.own_end.cpu())})
            print(rows[-1], flush=True)
    if out is not None:
        with out.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


def figures(off: torch.Tensor) -> dict[str, float]:
    """RMS of the samples' distances, its interval, and the median."""
    errors = off.flatten(1).square().mean(1).sqrt()
    low, high = interval(errors)
    return {"rms": float(errors.square().mean().sqrt()), "low": low, "high": high, "median": float(errors.median())}


def interval(errors: torch.Tensor, draws: int = 1000) -> tuple[float, float]:
    """95 % of the RMS over resampled noises."""
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(len(errors), (draws, len(errors)), generator=generator)
    found = errors[index].square().mean(1).sqrt().sort().values
    return float(found[int(0.025 * draws)]), float(found[int(0.975 * draws) - 1])


def finding() -> None:
    """One first-order step from sigma/alpha = 10 to 0.02 on N(mean, diag(1 .. 0.001)), 512 states of it at 10."""
    generator = torch.Generator().manual_seed(0)
    variances = torch.logspace(0, -3, 8, dtype=torch.float64)
    mean = torch.randn(8, generator=generator, dtype=torch.float64)
    basis = torch.eye(8, dtype=torch.float64)[None]
    target = sk.problems.GaussianMixture(torch.ones(1), mean[None], basis, variances[None])
    model = sk.problems.ExactDenoiser(target, sk.EDM())
    x = mean + (variances + 100).sqrt() * torch.randn(NOISES, 8, generator=generator, dtype=torch.float64)
    grid = sk.Grid((model.schedule.at(10.0), model.schedule.at(0.02)), model.schedule)
    exact = model.transport(x, 10.0, 0.02)
    measured = sk.ModelStats.measured(model, samples=256)
    for name, stats in {
        "l, s and b in closed form": OfGaussian(variances, mean), "l alone, closed form": OfGaussian(variances, 0 * mean),
        "l, s and b measured": measured, "l alone, measured": measured.without("s", "b"), "(1, 0, 0), DPM-Solver++": "data",
    }.items():  # fmt: skip
        options = {"stats": stats, "order": 1, "corrector": "none"}
        off = sk.sample(model, "dpm-solver-v3", x=x, grid=grid, dtype=torch.float64, **options).x - exact
        errors = off.square().mean(1).sqrt()
        low, high = interval(errors)
        rms, median = float(errors.square().mean().sqrt()), float(errors.median())
        print(f"{name:28s} RMS {rms:.3g} ({low:.3g}-{high:.3g}) median {median:.3g}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--finding", action="store_true")
    parser.add_argument("--network")
    parser.add_argument("--stats", type=Path)
    parser.add_argument("--noises", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    if given.finding:
        finding()
    elif given.network is not None:
        network(given.network, given.stats, given.device, given.noises, given.out)
    else:
        compare(given.out)
