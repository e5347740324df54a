"""Imputation against the optimum on `series`, a Gaussian process over four time series whose conditional law is known.

    python benchmarks/imputation.py             rows in --out are not measured again; then tables.py imputation
    python benchmarks/imputation.py --bias      the exact bias of each method on two correlated coordinates, by recursion
    python benchmarks/imputation.py --picture   docs/imputation.png, quantile bands

16 truths, 50 samples each. Tasks: forecasting the last 8 of 24 times, and 50 % missing at random. "conditional" is the
exact conditional denoiser as a network whose observed part is an input: what a perfectly trained CSDI would be. An interval
is two standard errors of the difference to the optimum's own samples, over the truths, which all share. Evaluations are
counted; products with the Jacobian cost more and are counted beside them.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from markdown_table import table

import solverkit as sk
from solverkit import constraints, inverse
from solverkit.errors import BudgetError
from solverkit.problems import ExactDenoiser, GaussianMixture, posterior, series
from solverkit.proofs.affine import affine_law

ROOT = Path(__file__).parents[1]
OUT = ROOT / "benchmarks" / "results" / "imputation.jsonl"
PICTURE = ROOT / "docs" / "imputation.png"
TRUTHS, SAMPLES = 16, 50
BUDGETS = (5, 10, 20, 50)
METHODS: dict[str, dict[str, Any]] = {
    "conditional, ddpm": {"method": "conditional", "sampler": "ddpm"},
    "conditional, dpmpp-2m": {"method": "conditional", "sampler": "dpmpp-2m"},
    "conditional, dpmpp-3m-sde": {"method": "conditional", "sampler": "dpmpp-3m-sde"},
    "mmps, ddpm": {"method": "mmps", "sampler": "ddpm"},
    "mmps, dpmpp-2m": {"method": "mmps", "sampler": "dpmpp-2m"},
    "pigdm, ddpm": {"method": "pigdm", "sampler": "ddpm"},
    "replacement, ddpm": {"method": "replacement", "sampler": "ddpm"},
    "replacement, dpmpp-2m": {"method": "replacement", "sampler": "dpmpp-2m"},
    "chain, ddpm": {"method": "chain", "sampler": "ddpm"},
    "repaint, ddpm": {"method": "repaint", "jump_length": 1, "jumps": 4},
}


def masks() -> dict[str, torch.Tensor]:
    forecast = (torch.arange(24) < 16).expand(1, 4, 24).clone()
    missing = torch.rand(1, 4, 24, generator=torch.Generator().manual_seed(3)) < 0.5
    return {"forecast": forecast, "missing": missing}


def conditionals(prior: ExactDenoiser, truths: torch.Tensor, mask: torch.Tensor) -> list[GaussianMixture]:
    A = inverse.inpainting(mask[0])
    return [posterior(prior, A, one[mask[0]][None], 0.0).target for one in truths]


def conditional_network(exact: list[GaussianMixture], truths: torch.Tensor) -> Any:
    """net(x, sigma, observed=, mask=): the exact denoiser of each truth's conditional law; linear, so made once a level."""
    means = torch.stack([e.mean for e in exact]).reshape(truths.shape)
    covariance = exact[0].covariance  # of a Gaussian it does not depend on the values
    values, basis = torch.linalg.eigh(covariance)
    values = values.clamp_min(0.0)

    def net(x: torch.Tensor, sigma: torch.Tensor, observed: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        own = (observed[:, None] - (truths * mask[:1].to(truths)).to(observed)).flatten(2).abs().amax(2).argmin(1)
        mean = means[own].to(x)
        shrink = (basis * (values / (values + float(sigma[0]) ** 2))) @ basis.T
        off = torch.where(mask.bool(), torch.zeros_like(x), x - mean).flatten(1)
        return mean + (off @ shrink.to(x)).reshape(x.shape)

    return sk.wrap(net, "denoised", sk.EDM(), shape=truths.shape[1:])


def scores(made: sk.Imputation, truths: torch.Tensor) -> dict[str, list[float]]:
    """CRPS and MAE of each truth."""
    ones = [sk.Imputation(made.samples[i : i + 1], made.mask[i : i + 1], 0.0, 0) for i in range(len(truths))]
    return {
        "crps": [one.crps(truths[i : i + 1]) for i, one in enumerate(ones)],
        "mae": [one.mae(truths[i : i + 1]) for i, one in enumerate(ones)],
    }


def measured(out: Path) -> None:
    prior = series()
    truths = prior.target.sample(TRUTHS, seed=5)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out.is_file() else []
    known = {(r["task"], r["method"], r["budget"]) for r in rows}

    def keep(row: dict[str, Any]) -> None:
        rows.append(row)
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(row["task"], row["method"], row["budget"], f"{sum(row['crps']) / TRUTHS:.4f}", flush=True)

    for task, mask in masks().items():
        exact = conditionals(prior, truths, mask)
        net = conditional_network(exact, truths)
        if (task, "optimum", 0) not in known:
            drawn = torch.stack([e.sample(SAMPLES, seed=i) for i, e in enumerate(exact)])
            best = sk.Imputation(drawn, mask.expand_as(truths), 0.0, 0)
            keep({"task": task, "method": "optimum", "budget": 0, "nfe": 0, "products": 0, **scores(best, truths)})
        for name, options in METHODS.items():
            for budget in BUDGETS:
                if (task, name, budget) in known:
                    continue
                model = net if options["method"] == "conditional" else prior
                try:
                    made = sk.impute(model, truths, mask, SAMPLES, nfe=budget, batch_size=2048, **options)
                except BudgetError:
                    continue
                row = {"task": task, "method": name, "budget": budget, "nfe": made.nfe, "products": made.products}
                keep({**row, **scores(made, truths)})


def bias() -> None:
    """x_1 = 1.3 is known, correlation 0.8: the law of x_2 should be N(1.04, 0.36)."""
    rho, c = 0.8, 1.3
    half = math.sqrt(0.5)
    basis = torch.tensor([[[half, half], [half, -half]]], dtype=torch.float64)
    values = torch.tensor([[1 + rho, 1 - rho]], dtype=torch.float64)
    d = ExactDenoiser(GaussianMixture(torch.ones(1), torch.zeros(1, 2), basis, values), sk.EDM())
    known, mask = torch.tensor([[c, 0.0]], dtype=torch.float64), torch.tensor([[True, False]])
    A, y = inverse.inpainting(mask[0]), known[:, :1]
    lines = []
    for name, noise, sampler, options in (
        ("replacement, fresh noise", "fresh", "ddpm", {}), ("replacement, one noise", "fixed", "ddpm", {}),
        ("replacement, chain-consistent noise", "chain", "ddpm", {}),
        ("repaint, jump_length 1, jumps 4", "fresh", "repaint", {"jump_length": 1, "jumps": 4}),
        ("repaint, jump_length 1, jumps 10", "fresh", "repaint", {"jump_length": 1, "jumps": 10}),
        ("pigdm", "", "ddpm", {}), ("mmps", "", "ddpm", {}),
    ):  # fmt: skip
        cells = []
        for steps in (10, 50, 250):
            if sampler == "repaint" and steps == 250:
                cells.append("-")
                continue
            grid = sk.make_grid("karras", d.schedule, steps)
            model = getattr(inverse, name)(d, A, y, 0.0) if not noise else d
            constraint = constraints.inpaint(known, mask, noise) if noise else None  # type: ignore[arg-type]
            mean, covariance = affine_law(sampler, model, grid, constraint, **options)
            cells.append(f"{float(mean[1]):.3f}, {float(covariance[1, 1]):.3f}")
        lines.append([name, *cells])
        print(lines[-1], flush=True)
    lines.append(["the conditional law", *[f"{rho * c:.3f}, {1 - rho**2:.3f}"] * 3])
    print(table(["mean, variance", "10 steps", "50 steps", "250 steps"], lines))


def picture() -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    prior, ways = series(), ("mmps, ddpm", "replacement, ddpm", "repaint, ddpm")
    truths = prior.target.sample(TRUTHS, seed=5)[:1]
    figure, axes = plt.subplots(2, 4, figsize=(13, 4.8), sharex=True, sharey=True)
    for line, (task, mask) in zip(axes, masks().items()):
        exact = conditionals(prior, truths, mask)[0]
        mean, width = exact.mean.reshape(4, 24)[0], exact.covariance.diagonal().clamp_min(0).sqrt().reshape(4, 24)[0]
        off = 1.645 * width
        bands: dict[str, tuple[Any, Any, Any]] = {"exact conditional law": (mean - off, mean, mean + off)}
        for name in ways:
            made = sk.impute(prior, truths, mask, 400, nfe=50, **METHODS[name])
            low, middle, high = made.quantiles([0.05, 0.5, 0.95])[:, 0, 0]
            bands[f"{name}, NFE 50"] = (low, middle, high)
        times, seen = torch.arange(24), mask[0, 0]
        for axis, (name, (low, middle, high)) in zip(line, bands.items()):
            axis.fill_between(times, low, high, color="#4477aa", alpha=0.3, linewidth=0, label="90 % of samples")
            axis.plot(times, middle, color="#4477aa", linewidth=1.5, label="median")
            axis.plot(times[~seen], truths[0, 0][~seen], "x", color="#cc3311", markersize=5, label="truth, not shown")
            axis.plot(times[seen], truths[0, 0][seen], "o", color="black", markersize=3.5, label="observed")
            if task == "forecast":
                axis.set_title(name, fontsize=10)
            axis.spines[["top", "right"]].set_visible(False)
        line[0].set_ylabel({"forecast": "forecast", "missing": "50 % missing"}[task])
    for axis in axes[1]:
        axis.set_xlabel("time")
    figure.legend(*axes[0][0].get_legend_handles_labels(), ncol=4, fontsize=9, frameon=False, loc="lower center")
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(PICTURE, dpi=100)
    print(PICTURE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--bias", action="store_true")
    parser.add_argument("--picture", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.bias:
        bias()
    elif arguments.picture:
        picture()
    else:
        measured(arguments.out)


if __name__ == "__main__":
    main()
