"""The suite of decoders: `markov`, `markov-uniform` and `shakespeare`, every decoder that fits, quality against rows.

A decoder that sets its own pace is run once for each value of the option that sets it; its budget is then the ceiling, an
evaluation for each token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from ..errors import OptionError, UnknownNameError
from ..files.network import NETWORKS
from ..files.regular_file import read_json
from ..registry.registry import DecoderCard, registry
from . import sequences
from .suite import ExtraCells, ModelEntry, Suite
from .token_front import ALSO, BUDGETS, PACED

NAME, VERSION = "tokens", 1
SAMPLES = 64
GRID = "uniform"
PROCESSES = {"markov": "absorbing", "markov-uniform": "uniform", "shakespeare": "absorbing"}


def token_suite(
    models: Sequence[str] = (), decoders: Sequence[str] = (), budgets: Sequence[int] = (), num_samples: int | None = None,
    seed: int | None = None, batch_size: int | None = None, device: str | None = None, metrics: Sequence[str] = (),
) -> Suite:  # fmt: skip
    """The cells; empty means all of them.

    Raises:
        UnknownNameError: no such model, decoder or metric.
        OptionError: none of the decoders fits a model, or a number that cannot be run.
    """
    known = cast(dict[str, DecoderCard], registry().cards["decoders"])
    for kind, given, names in (
        ("model of the suite tokens", models, PROCESSES), ("decoder", decoders, known),
        ("metric of the suite tokens", metrics, sequences.METRICS),
    ):  # fmt: skip
        for name in given:
            if name not in names:
                raise UnknownNameError(kind, name, names)
    entries, cells = [], []
    for model in models or PROCESSES:
        options: dict[str, Any] = {"device": device} if device is not None and model == "shakespeare" else {}
        entries.append(ModelEntry(model, num_samples or SAMPLES, GRID, batch_size, options=options))
        for name, card in known.items():
            if card.process == PROCESSES[model] and (not decoders or name in decoders):
                nfe = (_length(model),) if name in PACED else tuple(budgets or BUDGETS)
                cells += [ExtraCells(model, name, GRID, o, nfe) for o in PACED.get(name, ALSO.get(name, ({},)))]
    if not cells:
        raise OptionError(f"none of the decoders {', '.join(decoders)} is for the noise of {', '.join(models)}.")
    return Suite(
        name=NAME, version=VERSION, models=tuple(entries), nfe=tuple(budgets or BUDGETS), seed=seed or 0,
        metrics=tuple(metrics or sequences.METRICS), extra=tuple(cells),
        given={cell.sampler: known[cell.sampler] for cell in cells},
    ).checked()  # fmt: skip


def _length(model: str) -> int:
    """Tokens of a sequence."""
    if (NETWORKS / model).is_dir():
        return int(read_json(NETWORKS / model / "config.json")["length"])
    return int(registry().cards["models"][model].defaults["length"])
