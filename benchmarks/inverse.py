"""Posterior samplers at four tasks: on `mixture`, where the posterior is exact, and on the bundled digits.

    python benchmarks/inverse.py mixture          the table of docs/inverse.md; rows in --out are not measured again
    python benchmarks/inverse.py mnist            its second table, and docs/inverse.png

Tasks: half of the pixels (inpainting), means of 4 x 4 patches (super-resolution), a Gaussian blur, random projections. On
`mixture` 32 truths are drawn from the target, and 32 samples for each: the RMS distance of the samples' mean to the exact
posterior mean, over the exact posterior's RMS width (median over the truths, and RMS); the samples' variance over the exact
one (median); and how many coordinates of the truth lie between the 5 % and the 95 % quantile of their samples, with two
standard errors over the truths. On `mnist`
truths are pictures that the network drew itself. An evaluation's cost is counted (NFE a sample), products with the Jacobian
are counted beside it, and seconds are those of the run.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from markdown_table import table

import solverkit as sk
from solverkit import inverse
from solverkit.problems import posterior

ROOT = Path(__file__).parents[1]
OUT = ROOT / "benchmarks" / "results" / "inverse.jsonl"
STD = 0.05
TRUTHS = SAMPLES = 32


class Method(NamedTuple):
    """A row: the denoiser that knows the measurement, the sampler, its steps and options."""

    make: Callable[..., Any]
    sampler: str
    options: dict[str, Any]


def methods(variance: float) -> dict[str, Method]:
    """variance: mean variance of a coordinate of the data, which diffpir is told."""
    eta = 2 / math.pi * math.asin(math.sqrt(0.1))
    exact = lambda *m: inverse.diffpir(*m, variance=variance)  # noqa: E731
    released = lambda *m: inverse.diffpir(*m, rho="released")  # noqa: E731
    return {
        "pigdm": Method(inverse.pigdm, "ddpm", {"steps": 50}),
        "tmpd": Method(inverse.tmpd, "ddpm", {"steps": 50}),
        "mmps, 1 iteration": Method(lambda *m: inverse.mmps(*m, iterations=1), "ddpm", {"steps": 50}),
        "mmps, 5 iterations": Method(inverse.mmps, "ddpm", {"steps": 50}),
        "mmps, 5 iterations, dpmpp-2m": Method(inverse.mmps, "dpmpp-2m", {"steps": 20}),
        "diffpir, exact rho": Method(exact, "ddpm", {"steps": 50}),
        "diffpir, released": Method(released, "cps", {"steps": 50, "eta": eta}),
        "dps, zeta 0.3": Method(inverse.measured, "dps", {"steps": 50, "zeta": 0.3}),
        "dps, zeta 0.3, 200 steps": Method(inverse.measured, "dps", {"steps": 200, "zeta": 0.3}),
        "daps": Method(inverse.measured, "daps", {"steps": 20, "langevin_steps": 50}),
        "daps, exact draw": Method(inverse.measured, "daps", {"steps": 20, "inner": "exact"}),
        "red-diff": Method(inverse.measured, "red-diff", {"steps": 100, "lr": 0.02}),
    }


def tasks(side: int, blur: float, rows: int) -> dict[str, inverse.Linear]:
    half = torch.zeros(1, side, side, dtype=torch.bool)
    half[..., : side // 2] = True
    shape = (1, side, side)
    return {
        "inpainting": inverse.inpainting(half), "super-resolution": inverse.average_pool(shape, 4),
        "blur": inverse.blur(shape, blur), "projections": inverse.random_projection(shape, rows),
    }  # fmt: skip


def values_of(A: inverse.Linear, truths: torch.Tensor) -> torch.Tensor:
    y = A(truths)
    return y + STD * torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7)).to(y)


def cell(row: dict[str, Any]) -> str:
    """Median (RMS) distance of the mean, median width, coverage with two standard errors: over the truths."""
    mean, width, covered = (torch.tensor(row[k], dtype=torch.float64) for k in ("mean", "width", "covered"))
    rms, off = float(mean.square().mean().sqrt()), 200 * float(covered.std()) / math.sqrt(len(covered))
    shown = f"{rms:.2f}" if rms < 100 else f"{rms:.0e}"
    share = f"{100 * float(covered.mean()):.0f} ± {off:.0f} %"
    return f"{float(mean.median()):.2f} ({shown}), {float(width.median()):.2f}, {share}"


def on_mixture(out: Path) -> None:
    prior = sk.problems.mixture()
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out.is_file() else []
    known = {(row["task"], row["method"]) for row in rows}
    truths = prior.target.sample(TRUTHS, seed=11)
    variance = float(prior.target.covariance.diagonal().mean())
    for task, image in tasks(8, 1.0, 16).items():
        A = image.over((64,))
        y = values_of(A, truths)
        exact = [posterior(prior, A, one, STD).target for one in y]
        means, widths = torch.stack([e.mean for e in exact]), torch.stack([e.covariance.diagonal() for e in exact])
        todo: dict[str, Method | None] = {"exact draws": None, **methods(variance)}
        for name, method in todo.items():
            if (task, name) in known:
                continue
            began = time.perf_counter()
            nfe, products = 0.0, 0
            if method is None:
                x = torch.stack([e.sample(SAMPLES, seed=i) for i, e in enumerate(exact)])
            else:
                denoiser = method.make(prior, A, y.repeat_interleave(SAMPLES, 0), STD)
                run = sk.sample(denoiser, method.sampler, shape=(TRUTHS * SAMPLES, 64), batch_size=2048, **method.options)
                x, nfe, products = run.x.double().reshape(TRUTHS, SAMPLES, 64), run.nfe, run.products
            low, high = x.quantile(0.05, 1), x.quantile(0.95, 1)
            per = {
                "mean": ((x.mean(1) - means).square().mean(1) / widths.mean(1)).sqrt(),
                "width": x.var(1).mean(1) / widths.mean(1),
                "covered": ((truths >= low) & (truths <= high)).double().mean(1),
            }
            row = {"task": task, "method": name, "nfe": nfe, "products": products, "seconds": time.perf_counter() - began}
            row |= {k: [round(float(one), 5) for one in v] for k, v in per.items()}
            rows.append(row)
            print(task, name, cell(row), flush=True)
            out.parent.mkdir(parents=True, exist_ok=True)
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    lines = []
    for name in ("exact draws", *methods(variance)):
        own = {row["task"]: row for row in rows if row["method"] == name}
        first = next(iter(own.values()))
        cells = [cell(r) for r in own.values()]
        cost = f"{first['nfe']:.0f}" + (f" + {first['products']}" if first["products"] else "")
        lines.append([name, cost, *cells])
    print(table(["", "NFE + products", *tasks(8, 1.0, 16)], lines))


def on_digits(out: Path) -> None:
    import matplotlib.pyplot as plt

    n = 3
    net = sk.load("mnist")
    digits = [sk.sample(sk.load("mnist", labels=k), "unipc", nfe=20, num_samples=1, seed=k).x for k in (2, 5, 9)]
    truths = torch.cat(digits)
    eta = 2 / math.pi * math.asin(math.sqrt(0.1))
    three = lambda *m: inverse.mmps(*m, iterations=3, limit=1.0)  # noqa: E731
    unit = lambda *m: inverse.pigdm(*m, limit=1.0)  # noqa: E731
    exact = lambda *m: inverse.diffpir(*m, variance=0.35)  # noqa: E731
    released = lambda *m: inverse.diffpir(*m, rho="released")  # noqa: E731
    chosen = {
        "pigdm": Method(unit, "ddpm", {"steps": 30}),
        "mmps, 3 iterations": Method(three, "ddpm", {"steps": 30}),
        "diffpir, exact rho": Method(exact, "ddpm", {"steps": 30}),
        "diffpir, released": Method(released, "cps", {"steps": 30, "eta": eta}),
        "dps": Method(inverse.measured, "dps", {"steps": 100, "zeta": 1.0}),
        "daps": Method(inverse.measured, "daps", {"steps": 12, "ode_steps": 3}),
        "red-diff": Method(inverse.measured, "red-diff", {"steps": 50}),
    }
    found = tasks(28, 2.0, 98)
    figure, axes = plt.subplots(2 + len(chosen), n * len(found), figsize=(0.75 * n * len(found), 0.65 * (2 + len(chosen))))
    lines: dict[str, list[str]] = {name: [] for name in chosen}
    cost: dict[str, str] = {}
    for k, (task, A) in enumerate(found.items()):
        y = values_of(A, truths)
        shift = A(torch.full_like(truths, -1.0))  # black, not grey, where nothing was measured
        seen = A.adjoint(A.solve(y - shift, 1.0, 0.0)) - 1 if A.gram is not None else y
        pictures = {"truth": truths, "measured": seen}
        for name, method in chosen.items():
            run = sk.sample(method.make(net, A, y, STD), method.sampler, shape=truths.shape, **method.options)
            pictures[name] = run.x.detach()
            x = run.x.detach().clamp(-1, 1)
            error = (x - truths).square().flatten(1).mean(1).sqrt()
            missed = (A(run.x.detach()) - y).square().flatten(1).mean(1).sqrt() / STD
            lines[name].append(f"{float(error.median()):.2f}, {float(missed.median()):.1f}")
            cost[name] = f"{run.nfe:.0f}" + (f" + {run.products}" if run.products else "") + f", {run.seconds:.0f} s"
            print(task, name, lines[name][-1], cost[name], flush=True)
        for j, (name, picture) in enumerate(pictures.items()):
            for i in range(n):
                axis = axes[j, k * n + i]
                axis.imshow(picture[i, 0].clamp(-1, 1), cmap="gray", vmin=-1, vmax=1)
                axis.set_xticks([])
                axis.set_yticks([])
                for spine in axis.spines.values():
                    spine.set_visible(False)
                if k == 0 and i == 0:
                    axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
                if j == 0 and i == 0:
                    axis.set_title(task, fontsize=9, loc="left")
    figure.subplots_adjust(0.13, 0.005, 0.998, 0.95, 0.04, 0.04)
    figure.savefig(out, dpi=110)
    print(table(["", "NFE + products, seconds", *found], [[name, cost[name], *cells] for name, cells in lines.items()]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=("mixture", "mnist"))
    parser.add_argument("--out", type=Path, help="rows (mixture) or picture (mnist)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.model == "mixture":
        on_mixture(arguments.out or OUT)
    else:
        on_digits(arguments.out or ROOT / "docs" / "inverse.png")


if __name__ == "__main__":
    main()
