"""The bench of decoders: quality against the rows that a network evaluated, on `markov` and `shakespeare`.

On the chain: total variation of the bigrams and the gap of the entropy, -E log p of the samples against the exact one. On
text: bits a character under a fixed judge, and the entropy of the sequences beside it: a sampler that repeats itself has
few bits and little entropy, and does not win by it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..errors import BudgetError
from ..files.hub import load
from ..files.network import NETWORKS
from ..registry.catalogue import decoders
from ..run.sampling import sample
from ..tokens.judge import Judge, sequence_entropy
from ..tokens.targets import bigram_shares, total_variation

BUDGETS = (8, 16, 32, 64, 128, 256)
# decoders whose pace is set by an option: the budget is a ceiling, the option spans the front
PACED: dict[str, tuple[dict[str, Any], ...]] = {
    "threshold": tuple({"confidence": c} for c in (0.3, 0.5, 0.7, 0.9, 0.99)),
    "entropy-bounded": tuple({"gamma": g} for g in (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)),
    "block-refinement": ({},),
    "first-hitting": ({},),
}
ALSO: dict[str, tuple[dict[str, Any], ...]] = {
    "remdm": ({}, {"rule": "rescale"}, {"rule": "conf"}, {"rule": "loop"}),
    "choose-then-sample": ({"by": "entropy"}, {"by": "random"}),
    "p2": ({}, {"score": "random", "eta": 0.0}),
    "gibbs": ({}, {"selection": "margin"}),
}


class Subject(NamedTuple):
    """A model of the bench, how many sequences are drawn, and what real data score."""

    name: str
    model: Any
    num_samples: int
    judge: Judge | None


def subject(name: str, count: int, length: int | None = None, device: Any = None) -> Subject:
    """`markov`, `markov-uniform` or `shakespeare`."""
    if name.startswith("markov"):
        noise = "uniform" if name.endswith("uniform") else "absorbing"
        return Subject(name, load("markov", length=length or 64, noise=noise), count, None)
    given: dict[str, Any] = {} if length is None else {"length": length}
    model: Any = load(name, device=device, **given)
    return Subject(name, model, count, Judge.load(NETWORKS / name, model.vocabulary))


def quality(one: Subject, x: torch.Tensor) -> dict[str, float]:
    """The metrics of sequences (B, L), with the standard errors of means over sequences."""
    if one.judge is None:
        target = one.model.target
        nats = -target.log_prob(x) / x.shape[1]
        return {
            "bigram_tv": total_variation(bigram_shares(x, target.vocabulary), target.bigrams),
            "entropy_gap": float(nats.mean()) - target.entropy,
            "entropy_gap_error": _error(nats),
        }
    bits, entropy = one.judge.bits(x), sequence_entropy(x, one.model.vocabulary)
    return {
        "judge_bits": float(bits.mean()),
        "judge_bits_error": _error(bits),
        "sequence_entropy": float(entropy.mean()),
        "sequence_entropy_error": _error(entropy),
    }


def _error(values: torch.Tensor) -> float:
    return float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def reference(one: Subject, seed: int = 1) -> dict[str, Any]:
    """What as many real sequences score: exact samples, or held-out text."""
    if one.judge is None:
        return {
            "model": one.name,
            "decoder": "exact samples",
            **quality(one, one.model.target.sample(one.num_samples, seed=seed)),
        }
    said = json.loads((NETWORKS / one.name / "judge.json").read_text())[f"windows_of_{one.model.length}"]
    return {"model": one.name, "decoder": "held-out text", "judge_bits": said["bits"], "sequence_entropy": said["entropy"]}


def cells(
    one: Subject, names: Iterable[str] | None, budgets: Sequence[int]
) -> Iterator[tuple[str, dict[str, Any], int | None]]:
    """(decoder, options, steps asked for); own_pace decoders once an option set, the others at each budget."""
    for name, card in decoders().items():
        if card.process != one.model.process.noise or (names is not None and name not in names):
            continue
        for options in PACED.get(name, ALSO.get(name, ({},))):
            yield from ((name, options, n) for n in ([None] if name in PACED else budgets))


def run(
    one: Subject,
    names: Iterable[str] | None = None,
    budgets: Sequence[int] = BUDGETS,
    seed: int = 0,
    batch_size: int | None = None,
) -> Iterator[dict[str, Any]]:
    """One row a cell: what was asked for, rows asked and evaluated, quality, seconds. Begins with what real data score."""
    yield {**reference(one), "num_samples": one.num_samples}
    for name, options, budget in cells(one, names, budgets):
        row = {
            "model": one.name,
            "decoder": name,
            "options": options,
            "budget": budget,
            "num_samples": one.num_samples,
            "seed": seed,
        }
        began = time.perf_counter()
        try:
            result = sample(
                one.model, name, nfe=budget, num_samples=one.num_samples, seed=seed, batch_size=batch_size, **options
            )
        except BudgetError as error:
            yield {**row, "status": str(error)}
            continue
        counts = {"rows": result.nfe, "rows_asked": result.reports["rows asked"], "seconds": time.perf_counter() - began}
        yield {**row, "status": "ok", **counts, **quality(one, result.x)}


def front_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a run as `write_front` takes them, what real data score first."""
    made: list[dict[str, Any]] = []
    for model in dict.fromkeys(row["model"] for row in rows):
        mine = [row for row in rows if row["model"] == model and row["status"] == "ok"]
        metrics = _metrics(model)
        floors = next((row["floors"] for row in mine if all(name in row["floors"] for name in metrics)), None)
        if floors is not None:
            real = {name: floors[name] for name in metrics}
            made.append({"model": model, "decoder": mine[0]["against"][metrics[0]], **real})
        made += [{**row, "decoder": row["sampler"], "rows": row["nfe"]} for row in mine]
    return made


def label(row: dict[str, Any]) -> str:
    """A decoder with the options that tell it from itself; paced ones are one line whatever their pace."""
    options = {} if row["decoder"] in PACED else row["options"]
    return " ".join([row["decoder"], *(str(v) for v in options.values())])


def write_front(rows: Sequence[dict[str, Any]], picture: Path) -> None:
    """Quality against evaluated rows: a row of panels a model, a line a decoder, real data dashed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    models = list(dict.fromkeys(row["model"] for row in rows))
    figure, axes = plt.subplots(len(models), 2, figsize=(14, 4.6 * len(models)), squeeze=False)
    colours = plt.get_cmap("tab10")
    for line, model in zip(axes, models):
        mine = [row for row in rows if row["model"] == model]
        done = [row for row in mine if row.get("status") == "ok"]
        names = list(dict.fromkeys(label(row) for row in done))
        for axis, metric in zip(line, _metrics(model)):
            for i, name in enumerate(names):
                points = sorted((row["rows"], _shown(row, metric)) for row in done if label(row) == name)
                axis.plot(*zip(*points), marker="os^D"[i // 10 % 4], ms=4, lw=1, color=colours(i % 10), label=name)
            for row in mine:
                if "status" not in row:
                    axis.axhline(_shown(row, metric), ls="--", lw=1, color="black", label=row["decoder"])
            axis.set_xscale("log", base=2)
            if metric in ("bigram_tv", "entropy_gap"):
                axis.set_yscale("log")
            axis.set_xlabel("rows evaluated a sequence")
            axis.set_title(f"{model}: {_TITLES[metric]}", fontsize=9)
        line[1].legend(bbox_to_anchor=(1.02, 0.5), loc="center left", fontsize=7, frameon=False)
    figure.tight_layout()
    figure.savefig(picture, dpi=110)
    plt.close(figure)


def _shown(row: dict[str, Any], metric: str) -> float:
    return abs(float(row[metric]))


_TITLES = {
    "bigram_tv": "total variation of bigrams",
    "entropy_gap": "|-E log p - exact|, nats a token",
    "judge_bits": "bits a character under the 5-gram judge",
    "sequence_entropy": "entropy of a sequence, bits",
}


def _metrics(model: str) -> tuple[str, str]:
    return ("bigram_tv", "entropy_gap") if model.startswith("markov") else ("judge_bits", "sequence_entropy")
