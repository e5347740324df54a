"""The bench of systems: evaluations against how near generated graphs are to real ones, on `communities`."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import BudgetError
from ..files.hub import load
from ..run.sampling import sample
from ..targets.communities import communities
from .graph_metrics import STATISTICS, discrepancies, statistics

BUDGETS = (5, 10, 20, 50, 100)
FAST = 50  # the largest budget of samplers that converge before it
REAL, FLOORS = 1024, 32  # real graphs that all are compared with; sets of as many real graphs as were generated


class Entry(NamedTuple):
    """One sampler of the suite: its name and options, its grid (None: its own choice), and its name in tables."""

    sampler: str
    grid: str | None
    label: str
    most: int = FAST


ENTRIES = (
    Entry("s4:snr=0.05,scale_eps=0.7", "score-sde", "S4", 100),
    Entry("s4:correct=False", "score-sde", "S4, no correction", 100),
    Entry("gdss-pc", "score-sde", "PC (Euler-Maruyama, Langevin)", 100),
    Entry("gdss-pc:n_steps=0", "score-sde", "Euler-Maruyama", 100),
    Entry("ddpm", None, "ddpm"),
    Entry("dpmpp-2m-sde", None, "dpmpp-2m-sde"),
    Entry("dpmpp-2m", None, "dpmpp-2m"),
    Entry("dpmpp-2m", "score-sde", "dpmpp-2m, times even"),
    Entry("unipc", None, "unipc"),
    Entry("dpmpp-3m", None, "dpmpp-3m"),
    Entry("euler", None, "euler"),
    Entry("deis", None, "deis"),
)  # fmt: skip


def real_graphs(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """A (n, 20, 20) and mask (n, 20)."""
    _, A, mask = communities(n, generator=torch.Generator().manual_seed(seed))
    return A, mask


def floor(n: int, real: Mapping[str, Tensor]) -> dict[str, float]:
    """The 95 % point of each MMD^2 when n real graphs take the place of generated ones: what is below is a tie."""
    sets = [discrepancies(statistics(*real_graphs(n, 1000 + i)), real) for i in range(FLOORS)]
    return {name: float(torch.tensor([one[name].value for one in sets]).quantile(0.95)) for name in STATISTICS}


def run(
    num_samples: int = 128, entries: Iterable[Entry] = ENTRIES, budgets: Sequence[int] = BUDGETS, seed: int = 0,
    device: Any = None, batch_size: int | None = None, done: Collection[tuple[str, int]] = (),
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """One row a cell: sampler, evaluations, seconds, each MMD^2 and its standard error. Begins with the floor.

    Args:
        num_samples: Graphs a cell.
        entries, budgets: What is run.
        seed, device, batch_size: As of `sk.sample`.
        done: (label, budget) of cells that are there already; the floor is then, too.
    """
    joint: Any = load("communities", device=device)
    real = statistics(*real_graphs(REAL, 1))
    start: dict[str, Any] = {"suite": "graphs", "num_samples": num_samples, "seed": seed}
    if not done:
        yield {**start, "label": "real", **floor(num_samples, real)}
    chosen = list(entries)
    for budget in budgets:
        for entry in (e for e in chosen if budget <= e.most):
            row = {**start, "label": entry.label, "sampler": entry.sampler, "grid": entry.grid, "budget": budget}
            if (entry.label, budget) in done:
                continue
            began = time.perf_counter()
            try:
                made: Any = sample(
                    joint, entry.sampler, nfe=budget, num_samples=num_samples, seed=seed, grid=entry.grid,
                    batch_size=batch_size, on_nonfinite="mark",
                )  # fmt: skip
            except BudgetError as error:
                yield {**row, "status": str(error)}
                continue
            found = discrepancies(statistics(made.x["adjacency"], made.mask), real)
            figures = {name: value for name, (value, _) in found.items()}
            errors = {f"{name}_error": error for name, (_, error) in found.items()}
            seconds = {"seconds": time.perf_counter() - began, "nonfinite": len(made.nonfinite)}
            yield {**row, "status": "ok", "nfe": made.nfe, **seconds, **figures, **errors}


def write_front(rows: Sequence[Mapping[str, Any]], picture: Path) -> None:
    """MMD^2 against evaluations, a panel a statistic; the floor dashed, and what is below it drawn on it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(STATISTICS), figsize=(5.2 * len(STATISTICS), 4.4), layout="constrained")
    done = [row for row in rows if row.get("status") == "ok"]
    for axis, name in zip(axes, STATISTICS):
        least = rows[0][name]
        for i, label in enumerate(dict.fromkeys(row["label"] for row in done)):
            points = sorted((row["nfe"], max(row[name], least)) for row in done if row["label"] == label)
            colour, mark = plt.get_cmap("tab10")(i % 10), "os^D"[i // 10]
            axis.plot(*zip(*points), marker=mark, ms=4, lw=1, color=colour, label=label)
        axis.axhline(least, ls="--", lw=1, color="black", label="real graphs, 95 %")
        axis.set(xscale="log", yscale="log", xlabel="evaluations", title=f"{name}: MMD²")
    axes[-1].legend(bbox_to_anchor=(1.02, 0.5), loc="center left", fontsize=8, frameon=False)
    figure.savefig(picture, dpi=110)
    plt.close(figure)
