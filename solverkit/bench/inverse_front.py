"""The bench of inverse problems: posterior samplers at four tasks, on `mixture`, whose posterior is exact, and on `mnist`.

Half of the pixels (inpainting), means of 4 x 4 patches (super-resolution), a Gaussian blur, random projections; noise 0.05.
On `mixture` truths are drawn from the target, and as many samples for each. On `mnist` truths are pictures that the network
drew itself, and there is one sample for each.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import UnknownNameError
from ..files.hub import load
from ..measurement.linear import Linear
from ..measurement.operators import average_pool, blur, inpainting, random_projection
from ..model.guidance.measured import diffpir, measured, mmps, pigdm, tmpd
from ..run.sampling import sample
from ..targets.conditioned import posterior

STD = 0.05
MODELS = ("mixture", "mnist")
TASKS = ("inpainting", "super-resolution", "blur", "projections")
EXACT = "exact draws"
ETA = 2 / math.pi * math.asin(math.sqrt(0.1))  # of cps, whose noise is then DiffPIR's with zeta 0.1


class Method(NamedTuple):
    """The denoiser that knows the measurement, the sampler, and its steps and options."""

    make: Callable[..., Any]
    sampler: str
    options: Mapping[str, Any]


def methods(model: str, variance: float) -> dict[str, Method]:
    """What is run on a model; `variance`: the mean variance of a coordinate of its data, which diffpir is told."""
    exact, released = partial(diffpir, variance=variance), partial(diffpir, rho="released")
    if model == "mixture":
        return {
            "pigdm": Method(pigdm, "ddpm", {"steps": 50}),
            "tmpd": Method(tmpd, "ddpm", {"steps": 50}),
            "mmps 1 iteration": Method(partial(mmps, iterations=1), "ddpm", {"steps": 50}),
            "mmps 5 iterations": Method(mmps, "ddpm", {"steps": 50}),
            "mmps 5 iterations dpmpp-2m": Method(mmps, "dpmpp-2m", {"steps": 20}),
            "diffpir exact rho": Method(exact, "ddpm", {"steps": 50}),
            "diffpir released": Method(released, "cps", {"steps": 50, "eta": ETA}),
            "dps zeta 0.3": Method(measured, "dps", {"steps": 50, "zeta": 0.3}),
            "dps zeta 0.3 200 steps": Method(measured, "dps", {"steps": 200, "zeta": 0.3}),
            "daps": Method(measured, "daps", {"steps": 20, "langevin_steps": 50}),
            "daps exact draw": Method(measured, "daps", {"steps": 20, "inner": "exact"}),
            "red-diff": Method(measured, "red-diff", {"steps": 100, "lr": 0.02}),
        }
    return {
        "pigdm": Method(partial(pigdm, limit=1.0), "ddpm", {"steps": 30}),
        "mmps 3 iterations": Method(partial(mmps, iterations=3, limit=1.0), "ddpm", {"steps": 30}),
        "diffpir exact rho": Method(exact, "ddpm", {"steps": 30}),
        "diffpir released": Method(released, "cps", {"steps": 30, "eta": ETA}),
        "dps": Method(measured, "dps", {"steps": 100, "zeta": 1.0}),
        "daps": Method(measured, "daps", {"steps": 12, "ode_steps": 3}),
        "red-diff": Method(measured, "red-diff", {"steps": 50}),
    }


def operators(side: int, std: float, rows: int) -> dict[str, Linear]:
    """One a task, on pictures (1, side, side)."""
    half = torch.zeros(1, side, side, dtype=torch.bool)
    half[..., : side // 2] = True
    shape = (1, side, side)
    made = inpainting(half), average_pool(shape, 4), blur(shape, std), random_projection(shape, rows)
    return dict(zip(TASKS, made))


def values_of(A: Linear, truths: Tensor, seed: int) -> Tensor:
    """A x_0 and its noise."""
    y = A(truths)
    return y + STD * torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7 + seed)).to(y)


def run(
    model: str, count: int, names: Sequence[str] = (), seed: int = 0, device: Any = None,
    batch_size: int | None = None, done: Collection[tuple[str, str]] = (),
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """One row a task and method: what it cost, and figures of each truth.

    On `mixture`: `mean`, the RMS distance of the samples' mean to the exact posterior mean over the posterior's RMS width;
    `width`, the samples' variance over the exact one; `covered`, the share of coordinates of the truth between the 5 % and
    the 95 % quantile of the samples. On `mnist`: `error`, RMS to the truth, and `missed`, what the values are missed by, in
    units of their noise.

    Args:
        model: "mixture" or "mnist".
        count: Truths; on `mixture` also samples for each.
        names: Of methods; none: all.
        seed, device, batch_size: As of `sk.sample`.
        done: (task, method) of rows that are there already.

    Raises:
        UnknownNameError: no such model or method.
    """
    if model not in MODELS:
        raise UnknownNameError("model", model, MODELS)
    cells = _on_mixture if model == "mixture" else _on_digits
    start = {"suite": "inverse", "model": model, "count": count, "seed": seed}
    for task, name, made in cells(count, seed, device, batch_size, names, done):
        yield {**start, "task": task, "method": name, **made}


def _chosen(names: Sequence[str], known: Mapping[str, Any]) -> list[str]:
    for name in names:
        if name not in known:
            raise UnknownNameError("method", name, known)
    return list(names or known)


def _on_mixture(
    count: int, seed: int, device: Any, batch_size: int | None, names: Sequence[str], done: Collection[tuple[str, str]]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    prior: Any = load("mixture", device=device)
    truths = prior.target.sample(count, seed=11 + seed)
    known = methods("mixture", float(prior.target.covariance.diagonal().mean()))
    chosen = [EXACT, *_chosen(names, known)]
    for task, image in operators(8, 1.0, 16).items():
        A = image.over((64,))
        y = values_of(A, truths, seed)
        exact = [posterior(prior, A, one, STD).target for one in y]
        means, widths = torch.stack([e.mean for e in exact]), torch.stack([e.covariance.diagonal() for e in exact])
        for name in chosen:
            if (task, name) in done:
                continue
            began, nfe, products = time.perf_counter(), 0.0, 0
            if name == EXACT:
                x = torch.stack([e.sample(count, seed=i) for i, e in enumerate(exact)])
            else:
                known_y = known[name].make(prior, A, y.repeat_interleave(count, 0), STD)
                made = sample(
                    known_y, known[name].sampler, shape=(count * count, 64), batch_size=batch_size or 2048, seed=seed,
                    **known[name].options,
                )  # fmt: skip
                x, nfe, products = made.x.detach().cpu().double().reshape(count, count, 64), made.nfe, made.products
            low, high = x.quantile(0.05, 1), x.quantile(0.95, 1)
            found = {
                "mean": ((x.mean(1) - means).square().mean(1) / widths.mean(1)).sqrt(),
                "width": x.var(1).mean(1) / widths.mean(1),
                "covered": ((truths >= low) & (truths <= high)).double().mean(1),
            }
            yield task, name, {**_cost(nfe, products, began), **_listed(found)}


def _on_digits(
    count: int, seed: int, device: Any, batch_size: int | None, names: Sequence[str], done: Collection[tuple[str, str]]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    known = methods("mnist", 0.35)
    chosen = _chosen(names, known)
    net: Any = load("mnist", device=device)
    labels = (3 * torch.arange(count) + 2) % 10
    drawn = sample(
        load("mnist", labels=labels, device=device), "unipc", nfe=20, num_samples=count, seed=100 + seed,
        batch_size=batch_size or 64,
    )  # fmt: skip
    truths = drawn.x.cpu()
    for task, A in operators(28, 2.0, 98).items():
        y = values_of(A, truths, seed)
        if (task, "truth") not in done and not names:
            shift = A(torch.full_like(truths, -1.0))  # black, not grey, where nothing was measured
            seen = A.adjoint(A.solve(y - shift, 1.0, 0.0)) - 1 if A.gram is not None else y
            yield task, "truth", {"pictures": _pictures(truths), "measured": _pictures(seen)}
        for name in chosen:
            if (task, name) in done:
                continue
            began, method = time.perf_counter(), known[name]
            made = sample(
                method.make(net, A, y, STD), method.sampler, shape=tuple(truths.shape), batch_size=batch_size or 64,
                seed=seed, **method.options,
            )  # fmt: skip
            x = made.x.detach().cpu()
            error = (x.clamp(-1, 1) - truths).square().flatten(1).mean(1).sqrt()
            missed = (A(x) - y).square().flatten(1).mean(1).sqrt() / STD
            found = {**_cost(made.nfe, made.products, began), **_listed({"error": error, "missed": missed})}
            yield task, name, {**found, "pictures": _pictures(x)}


def _cost(nfe: float, products: int, began: float) -> dict[str, Any]:
    return {"nfe": nfe, "products": products, "seconds": time.perf_counter() - began}


def _listed(found: Mapping[str, Tensor]) -> dict[str, list[float]]:
    return {name: [round(float(one), 5) for one in values] for name, values in found.items()}


def _pictures(x: Tensor, most: int = 3) -> list[list[int]]:
    """The first three as bytes, row by row."""
    return [(127.5 * (one.clamp(-1, 1) + 1)).round().long().flatten().tolist() for one in x[:most]]


def figures(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Of a row, over its truths. `mixture`: median (RMS) distance of the mean, median width, coverage ± two standard
    errors; `mnist`: median error and its quartiles, median of what the values are missed by."""
    if row["model"] == "mixture":
        mean, width, covered = (torch.tensor(row[k], dtype=torch.float64) for k in ("mean", "width", "covered"))
        rms, off = float(mean.square().mean().sqrt()), 200 * float(covered.std()) / math.sqrt(len(covered))
        shown = f"{rms:.2f}" if rms < 100 else f"{rms:.0e}"
        share = f"{100 * float(covered.mean()):.0f} ± {off:.0f} %"
        return f"{float(mean.median()):.2f} ({shown})", f"{float(width.median()):.2f}", share
    error, missed = (torch.tensor(row[k], dtype=torch.float64) for k in ("error", "missed"))
    low, median, high = error.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
    return f"{median:.2f} ({low:.2f}-{high:.2f})", f"{float(missed.median()):.1f}"


def cost(row: Mapping[str, Any]) -> str:
    """Evaluations, and products with the Jacobian."""
    return f"{row['nfe']:.0f}" + (f" + {row['products']}" if row["products"] else "")


def write_pictures(rows: Sequence[Mapping[str, Any]], picture: Path) -> None:
    """Three digits a task: the truth, what was measured, and what each method made of it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown: dict[tuple[str, str], Any] = {}
    for row in rows:
        if "pictures" in row:
            shown[row["task"], row["method"]] = row["pictures"]
            if "measured" in row:
                shown[row["task"], "measured"] = row["measured"]
    names = list(dict.fromkeys(name for _, name in shown))
    tasks = [task for task in TASKS if any(task == t for t, _ in shown)]
    n = max(len(pictures) for pictures in shown.values())
    size = (0.75 * n * len(tasks), 0.65 * len(names))
    panel, axes = plt.subplots(len(names), n * len(tasks), figsize=size, squeeze=False)
    for j, name in enumerate(names):
        for k, task in enumerate(tasks):
            for i in range(n):
                axis = axes[j, k * n + i]
                axis.set_axis_off()
                if (task, name) in shown and i < len(shown[task, name]):
                    axis.imshow(torch.tensor(shown[task, name][i]).reshape(28, 28), cmap="gray", vmin=0, vmax=255)
                if k == i == 0:
                    axis.text(-0.15, 0.5, name, transform=axis.transAxes, ha="right", va="center", fontsize=8)
                if j == i == 0:
                    axis.set_title(task, fontsize=9, loc="left")
    panel.subplots_adjust(wspace=0.04, hspace=0.04)
    panel.savefig(picture, dpi=110, bbox_inches="tight")
    plt.close(panel)
