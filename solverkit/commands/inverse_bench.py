"""`solverkit bench --suite inverse`: posterior samplers at four tasks, on an exact mixture and on the bundled digits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from ..errors import BenchError, OptionError
from .console import print_json, print_table, remark, settings
from .destination import with_folder
from .waiting import use_threads

COUNT = {"mixture": 32, "mnist": 8}


def bench_inverse(
    models: list[str], names: list[str], num_samples: int | None, seed: int | None,
    machine: tuple[str | None, int | None, int | None], refused: dict[str, Any], file: Path, picture: Path, as_json: bool,
) -> None:  # fmt: skip
    """Run the rows that `file` does not have, append them as they come, print tables and draw the digits.

    Raises:
        OptionError: an option of other suites.
        UnknownNameError: no such model or method.
        BenchError: `file` holds rows of something else.
    """
    for name, value in refused.items():
        if value:
            raise OptionError(f"{name} is for other suites; --suite inverse has its own cells.")
    device, batch, threads = machine
    use_threads(threads)
    from ..bench.inverse_front import MODELS, run, write_pictures

    stored = _stored(file)
    rows: list[dict[str, Any]] = []
    interrupted = False
    try:
        for model in models or list(MODELS):
            count = num_samples or COUNT.get(model, 0)
            known = [row for row in stored if (row["model"], row["count"], row["seed"]) == (model, count, seed or 0)]
            rows += [row for row in known if not names or row["method"] in names]
            done = {(row["task"], row["method"]) for row in known}
            for row in run(model, count, names, seed or 0, device, batch, done):
                rows.append(row)
                with with_folder(file).open("a", encoding="utf-8") as out:
                    out.write(json.dumps(row) + "\n")
                if not (settings.quiet or as_json):
                    remark(f"{row['model']}, {row['task']}: {row['method']}")
    except KeyboardInterrupt:
        interrupted = True
    if as_json:
        print_json(rows)
    elif rows:
        for model in dict.fromkeys(row["model"] for row in rows):
            _print(model, [row for row in rows if row["model"] == model and row["method"] != "truth"])
        print(f"results: {file}")
        if any("pictures" in row for row in rows):
            write_pictures(rows, picture)
            print(f"report:  {picture}")
    if interrupted:
        raise typer.Exit(130)


def _stored(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        if all(row["suite"] == "inverse" for row in rows):
            return rows
    except (ValueError, KeyError, TypeError, UnicodeDecodeError):
        pass
    raise BenchError(f"{file} holds rows of something else: give another folder, --out FOLDER.")


def _print(model: str, rows: list[dict[str, Any]]) -> None:
    from ..bench.inverse_front import TASKS, cost, figures

    table = []
    for name in dict.fromkeys(row["method"] for row in rows):
        own = {row["task"]: row for row in rows if row["method"] == name}
        cells = ["\n".join(figures(own[task])) if task in own else "" for task in TASKS]
        table.append((name, cost(next(iter(own.values()))), *cells))
    count = rows[0]["count"] if rows else 0
    said = (
        f"mixture · {count} truths, {count} samples of each: distance of the mean, median (RMS); variance; coverage of 90 %"
        if model == "mixture"
        else f"mnist · {count} pictures: RMS error, median (quartiles); what the values are missed by, in their noise"
    )
    print_table(said, ("method", "NFE + products", *TASKS), table)
