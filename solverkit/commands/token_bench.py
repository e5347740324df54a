"""`solverkit bench --suite tokens`: decoders on `markov` and `shakespeare`, quality against counted rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from ..errors import OptionError, UnknownNameError
from .console import print_json, print_table, remark, settings
from .destination import with_folder
from .waiting import use_threads

MODELS, SAMPLES, SEED = ("markov", "markov-uniform", "shakespeare"), 64, 0


def bench_tokens(
    models: list[str], decoders: list[str], budgets: list[int], num_samples: int | None, seed: int | None,
    machine: tuple[str | None, int | None, int | None], refused: dict[str, Any], file: Path, picture: Path, as_json: bool,
) -> None:  # fmt: skip
    """Run the cells, append their rows to `file` as they come, print a table and draw the front.

    Raises:
        OptionError: an option of continuous suites.
        UnknownNameError: no such model or decoder.
    """
    for name, value in refused.items():
        if value:
            raise OptionError(f"{name} is for suites of continuous models; --suite tokens has its own cells.")
    device, batch, threads = machine
    use_threads(threads)
    from ..bench.token_front import BUDGETS, label, run, subject, write_front
    from ..registry.registry import registry

    for kind, given, known in (
        ("model of the suite tokens", models, MODELS),
        ("decoder", decoders, registry().cards["decoders"]),
    ):
        for name in given:
            if name not in known:
                raise UnknownNameError(kind, name, known)
    rows: list[dict[str, Any]] = []
    interrupted = False
    try:
        with with_folder(file).open("a", encoding="utf-8") as out:
            for name in models or MODELS:
                one = subject(name, num_samples or SAMPLES, device=device)
                for row in run(one, decoders or None, budgets or BUDGETS, SEED if seed is None else seed, batch):
                    rows.append(row)
                    out.write(json.dumps(row) + "\n")
                    out.flush()
                    if not (settings.quiet or as_json):
                        remark(f"{name} {label(row) if 'status' in row else row['decoder']} {row.get('budget') or ''}")
    except KeyboardInterrupt:
        interrupted = True
    if as_json:
        print_json(rows)
    elif rows:
        for name in dict.fromkeys(row["model"] for row in rows):
            _print(name, [row for row in rows if row["model"] == name], label)
        write_front(rows, picture)
        print(f"results: {file}\nreport:  {picture}")
    if interrupted:
        raise typer.Exit(130)


def _print(model: str, rows: list[dict[str, Any]], label: Any) -> None:
    quality = [name for name in rows[0] if name not in ("model", "decoder", "num_samples")]
    table = []
    for row in rows:
        done = row.get("status") == "ok"
        what = label(row) if "status" in row else row["decoder"]
        pace = (
            " ".join(f"{k}={v}" for k, v in row.get("options", {}).items()) if row.get("budget") is None else row["budget"]
        )
        counts = [f"{row[k]:.1f}" for k in ("rows_asked", "rows")] if done else ["", ""]
        figures = [f"{row[k]:.4f}" if k in row else "" for k in quality]
        table.append((what, str(pace if done else row.get("status", "")), *counts, *figures))
    print_table(
        f"{model}, {rows[0]['num_samples']} sequences",
        ("decoder", "asked for", "rows asked", "rows evaluated", *quality),
        table,
    )
