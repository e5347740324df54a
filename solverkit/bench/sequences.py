"""Metrics of token sequences: against an exact chain where there is one, else under the judge beside the network.

A sampler that repeats itself has few bits and little entropy: bits and entropy are as good as they are near those of real
text, and neither low nor high is good.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..files.network import NETWORKS
from ..files.regular_file import read_json
from ..tokens.judge import Judge, sequence_entropy
from ..tokens.targets import MarkovChain, bigram_shares, total_variation
from .measured import Measured, of_samples, of_set

if TYPE_CHECKING:
    from .judged import Run

METRICS = ("bigram_tv", "entropy_gap", "judge_bits", "sequence_entropy")
REAL_SEED = 1


def bigram_tv(run: Run) -> Measured | None:
    """Total variation between the shares of neighbouring pairs and the exact ones of a chain; None without one."""
    chain = _chain(run)
    if chain is None:
        return None

    def distance(x: torch.Tensor) -> float:
        return total_variation(bigram_shares(x, chain.vocabulary), chain.bigrams)

    made = of_set(distance, run.x)
    return Measured(made.value, made.interval, floor=distance(chain.sample(len(run.x), REAL_SEED)), against="exact samples")


def entropy_gap(run: Run) -> Measured | None:
    """-E log p of the samples less the exact entropy of the chain, nats a token; None without one."""
    chain = _chain(run)
    if chain is None:
        return None

    def gaps(x: torch.Tensor) -> torch.Tensor:
        return -chain.log_prob(x) / x.shape[1] - chain.entropy

    made = of_samples(gaps(run.x), "mean")
    floor = float(gaps(chain.sample(len(run.x), REAL_SEED)).mean())
    return Measured(made.value, made.interval, made.values, floor, "exact samples")


def judge_bits(run: Run) -> Measured | None:
    """Bits a character under the n-gram that lies beside the network (judge.safetensors); None without one."""
    folder = _judged(run)
    if folder is None:
        return None
    return _beside_text(Judge.load(folder, run.denoiser.vocabulary).bits(run.x), run.x.shape[1], folder, "bits")


def entropy_of_sequences(run: Run) -> Measured | None:
    """Entropy of the characters within a sequence, bits; None without a judge, whose text says what is right."""
    folder = _judged(run)
    if folder is None:
        return None
    return _beside_text(sequence_entropy(run.x, run.denoiser.vocabulary), run.x.shape[1], folder, "entropy")


def _chain(run: Run) -> MarkovChain | None:
    target = getattr(run.denoiser, "target", None)
    return target if isinstance(target, MarkovChain) else None


def _judged(run: Run) -> Path | None:
    """The folder of the network, where there is a judge in it."""
    source = getattr(run.denoiser, "source", None)
    if source is None or run.x.is_floating_point():
        return None
    folder = NETWORKS / source if (NETWORKS / source).is_dir() else Path(source)
    return folder if (folder / "judge.safetensors").is_file() else None


def _beside_text(values: torch.Tensor, length: int, folder: Path, what: str) -> Measured:
    """A mean over sequences; its floor is what windows of held-out text of that length have, where the judge was told."""
    path = folder / "judge.json"
    said = read_json(path).get(f"windows_of_{length}", {}) if path.is_file() else {}
    made = of_samples(values, "mean")
    return Measured(made.value, made.interval, made.values, said.get(what), "held-out text" if what in said else "")


def register_metrics(register: Callable[..., None]) -> None:
    """Put them beside the others."""
    register("bigram_tv", bigram_tv, unit="total variation", min_samples=4)
    register("entropy_gap", entropy_gap, statistic="mean", unit="nats a token", to_floor=True)
    register("judge_bits", judge_bits, statistic="mean", unit="bits a character", to_floor=True)
    register("sequence_entropy", entropy_of_sequences, statistic="mean", unit="bits a character", to_floor=True)
