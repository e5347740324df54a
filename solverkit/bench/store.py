"""Result rows as files that people exchange: JSON lines, CSV, Parquet. What a run itself writes is `run_store`."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import BenchError, LoadError, OptionError
from ..files.regular_file import require_file
from .provenance import provenance
from .row import CELL_KEYS, Row

__all__ = [
    "CELL_KEYS", "DATABASE", "LINES", "Row", "append", "as_lines", "latest", "provenance", "read", "require_writable",
    "write_csv", "write_lines", "write_parquet", "written",
]  # fmt: skip

DATABASE, LINES = "run.sqlite", "results.jsonl"


def require_writable(path: Path) -> None:
    """Open a file for appending (it is made where it is not there), before anything costly is done.

    Raises:
        BenchError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            require_file(path)
        path.open("ab").close()
    except LoadError as error:
        raise BenchError(f"results cannot be written: {error}") from None
    except (FileExistsError, NotADirectoryError):
        raise BenchError(f"cannot write {path}: a part of the path is a file, not a folder.") from None
    except OSError as error:
        raise BenchError(f"cannot write {path}: {error.strerror or error}.") from None


def append(path: Path, row: Row) -> None:
    """Append one row to a file of JSON lines.

    Raises:
        BenchError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            if file.tell() and _last_byte(file) != b"\n":  # an earlier run was cut off in the middle of a line
                file.write(b"\n")
            file.write(as_line(row))
            file.flush()
    except OSError as error:
        raise BenchError(f"cannot write {path}: {error.strerror or error}.") from None


def _last_byte(file: Any) -> bytes:
    file.seek(-1, os.SEEK_END)
    return bytes(file.read(1))


def as_line(row: Row) -> bytes:
    """One row as a line of JSON."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def as_lines(rows: Iterable[Row]) -> bytes:
    """Rows as lines of JSON."""
    return b"".join(map(as_line, rows))


def read(path: Path) -> list[Row]:
    """The rows of a run: a folder that `solverkit bench` wrote, its database, or a file of JSON lines.

    Lines that were cut off (a run was killed while writing) are left out.

    Raises:
        BenchError: the file cannot be read, or holds no result row.
    """
    if path.is_dir():
        path = path / (DATABASE if (path / DATABASE).exists() else LINES)
    if path.suffix == Path(DATABASE).suffix:
        from .run_store import RunStore

        with RunStore(path, readonly=True) as store:
            return _require_rows(store.rows(), path, 0)
    try:
        lines = require_file(path).read_text(encoding="utf-8", errors="replace").split("\n")
    except LoadError as error:
        raise BenchError(f"cannot read results: {error}") from None
    except OSError as error:
        raise BenchError(f"cannot read {path}: {error.strerror or error}.") from None
    rows, broken = [], 0
    for line in filter(str.strip, lines):
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            broken += 1
            continue
        if not isinstance(row, dict) or any(key not in row for key in (*CELL_KEYS, "status")):
            raise BenchError(f"{path} holds a line that is no result row of `solverkit bench`: {line[:80]}")
        rows.append(row)
    return _require_rows(rows, path, broken)


def _require_rows(rows: list[Row], path: Path, broken: int) -> list[Row]:
    if not rows:
        raise BenchError(f"{path} holds no result rows" + (f" ({broken} broken lines)." if broken else "."))
    return rows


def latest(rows: Iterable[Row]) -> list[Row]:
    """One row a cell and machine, the last that was measured, in the order of the first."""
    kept: dict[str, Row] = {}
    for row in rows:
        cell = [*(row[key] for key in CELL_KEYS), row.get("cache")]
        identity = [row.get("key") or cell, row.get("machine")]
        kept[json.dumps(identity, sort_keys=True)] = row
    return list(kept.values())


def write_lines(path: Path, rows: Iterable[Row]) -> None:
    """Rows as JSON lines.

    Raises:
        BenchError: the file cannot be written; what was there before still is.
    """
    written(path, lambda: as_lines(rows))


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Rows as a table of text: what is nested (options, intervals, values of single samples) as JSON.

    Raises:
        BenchError: the file cannot be written.
    """

    def content() -> bytes:
        text = io.StringIO()
        table = csv.DictWriter(text, columns(rows), lineterminator="\n")
        table.writeheader()
        table.writerows(flat(rows))
        return text.getvalue().encode()

    written(path, content)


def write_parquet(path: Path, rows: Sequence[Row]) -> None:
    """Rows as Parquet, by pyarrow; nested columns as JSON.

    Raises:
        OptionError: pyarrow is not installed.
        BenchError: the file cannot be written.
    """
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise OptionError("Parquet is written by pyarrow: pip install 'solverkit[parquet]', or take --csv.") from None

    def content() -> bytes:
        sink = pyarrow.BufferOutputStream()
        table = {name: [row.get(name) for row in flat(rows)] for name in columns(rows)}
        parquet.write_table(pyarrow.table(table), sink)
        return bytes(sink.getvalue())

    written(path, content)


def columns(rows: Iterable[Row]) -> list[str]:
    """The names that appear in rows, in the order of the first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def flat(rows: Iterable[Row]) -> list[Row]:
    """Rows whose nested columns are JSON."""
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, (dict, list)) else value


def written(path: Path, content: Callable[[], bytes]) -> None:
    """Write a file through a neighbour that is renamed: nobody sees half of it, and what was there stays on a full disk.

    Raises:
        BenchError: it cannot be written.
    """
    name = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".solverkit-", delete=False) as file:
            name = file.name
            file.write(content())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        if name is not None:
            Path(name).unlink(missing_ok=True)
        raise BenchError(f"cannot write {path}: {error.strerror or error}.") from None
