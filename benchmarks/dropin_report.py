"""The table and the lists of dropin_parity.py."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dropin_classes import METHODS
from markdown_table import short, table

STEPS = 5
FINAL, SHOWN = 1e-4, 1e-5  # relative: the largest differences that count as the same run
LEGEND = f"""Each cell compares two plain runs of {STEPS} steps with the same seed:
`NativeClass.from_config(pipe.scheduler.config)` and `SolverKitScheduler.from_config(pipe.scheduler.config, sampler=...)`.

* "=": the same run. The final latents agree to {FINAL:.0e}, all that the network is shown in each step to {SHOWN:.0e},
  relative.
* "levels": the same once ours is given the timesteps and sigmas of the native class (of a flow, without a shift).
* A number: how far the final latents of the two plain runs are apart, relative.
* "alone": only ours runs there. "fails": ours does not run. "-": no native class for this network.
"""


@dataclass
class Cell:
    """One pipeline with one method.

    Attributes:
        text: As in the table.
        final, shown: Relative differences of the plain runs: of the result, and the largest of what a network was shown.
        first: The first call that was shown something else, and which input that was.
        levels_final, levels_shown, levels_first: The same where ours was given the native levels.
        named: "=" or "levels" where ours is the same once it is made from the native scheduler's own config.
        reason: Why the native class ("alone") or ours ("fails") did not run.
        lost: What the native class does not take over of the shipped config.
    """

    pipeline: str
    method: str
    native: str | None
    text: str = "-"
    calls: list[int] = field(default_factory=list)
    final: float | None = None
    shown: float | None = None
    first: str = ""
    levels_final: float | None = None
    levels_shown: float | None = None
    levels_first: str = ""
    named: str = ""
    reason: str = ""
    lost: list[str] = field(default_factory=list)


def number(value: float) -> str:
    """.03, 1.2, 3e-05."""
    return short(value) if value >= 0.005 else f"{value:.0e}"


def grouped(pairs: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    """One line for each reason: where it holds."""
    where: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for reason, pipeline, method in pairs:
        where[reason][pipeline].append(method)
    for reason, places in sorted(where.items()):
        by_methods: dict[str, list[str]] = defaultdict(list)
        for pipeline, methods in places.items():
            by_methods[", ".join(methods)].append(pipeline)
        yield f"* `{reason}`: " + "; ".join(f"{methods} of {', '.join(names)}" for methods, names in by_methods.items())


def markdown(cells: list[Cell], shipped: dict[str, str]) -> str:
    """The table with its legend and lists."""
    texts = {(c.pipeline, c.method): c.text for c in cells}
    lines = [[f"`{p}`", name, *(texts[p, m.name] for m in METHODS)] for p, name in shipped.items()]
    parts = [LEGEND, table(["pipeline", "ships with", *(m.name for m in METHODS)], lines)]
    lists = {
        "Why the native class does not run where ours does": [
            (c.reason, c.pipeline, c.method) for c in cells if c.text == "alone"
        ],
        "Where ours does not run": [(c.reason, c.pipeline, c.method) for c in cells if c.text == "fails"],
        "Same run once ours is made from the config of the native scheduler, plain (=) or on its levels": [
            (c.named, c.pipeline, c.method) for c in cells if c.named
        ],
        "What the native class loses of the config, or needs of the pipeline, where the runs differ": [
            (key, c.pipeline, c.method) for c in cells if c.text not in ("=", "-", "alone", "fails") for key in c.lost
        ],
    }  # fmt: skip
    parts += [f"{title}:\n" + "".join(line + "\n" for line in grouped(rows)) for title, rows in lists.items() if rows]
    return "\n".join(parts)


def write_rows(path: Path, cells: list[Cell]) -> None:
    rows = [asdict(c) for c in cells]
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
