"""One SQLite file a run: a finished cell is one transaction, so that a run which is killed at any moment goes on.

    cells    key, position                    what was planned, in the order of the suite
    results  key, machine, row                one row of JSON a cell and machine
    pictures key, tensors                     a few samples of a cell, for the report
    claims   key, owner, process, boot, beat  which process works on a cell now
    requests request, keys                    the cells of a command that was given before (`request`)

Two processes may work on one run: each claims a cell before it computes it. A claim ends with its process (on the same
computer at once, on another after `LEASE` seconds without a sign of life).
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import BenchError
from .provenance import machine
from .row import CELL_KEYS, Row

VERSION = 2
LEASE, BEAT = 30.0, 5.0  # seconds
WAIT = 60.0  # seconds that a transaction waits for those of other processes
SCHEMA = """
CREATE TABLE IF NOT EXISTS cells (key TEXT PRIMARY KEY, position INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS results (key TEXT, machine TEXT, row TEXT NOT NULL, PRIMARY KEY (key, machine));
CREATE TABLE IF NOT EXISTS pictures (key TEXT PRIMARY KEY, tensors BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS claims (
    key TEXT, machine TEXT, owner TEXT, process INTEGER, boot TEXT, beat REAL, PRIMARY KEY (key, machine)
);
CREATE TABLE IF NOT EXISTS requests (request TEXT PRIMARY KEY, keys TEXT NOT NULL);
"""


class RunStore:
    """The database of a run.

    Args:
        path: Of the file; made where it is not there.
        readonly: Nothing is written, and the file must be there.

    Raises:
        BenchError: it cannot be opened: no right, a full disk, no database, or one that a newer version wrote.
    """

    def __init__(self, path: Path, readonly: bool = False) -> None:
        self.path, self.owner = path, uuid.uuid4().hex
        self._beating: threading.Event | None = None
        with self._told("open"):
            if not readonly:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._db = self._connect(readonly)
        try:
            self._prepare(readonly)
        except BenchError:
            self._db.close()
            raise

    def _connect(self, readonly: bool) -> sqlite3.Connection:
        if not readonly:
            return sqlite3.connect(self.path, timeout=WAIT, isolation_level=None)
        if not self.path.is_file():
            raise BenchError(f"cannot read {self.path}: no such file.")
        where = self.path.absolute().as_uri()
        # a folder that cannot be written has no room for the files beside a database: it is then read as it stands
        beside = [self.path.with_name(self.path.name + end) for end in ("-wal", "-shm")]
        frozen = not os.access(self.path.parent, os.W_OK) and not any(p.exists() for p in beside)
        return sqlite3.connect(f"{where}?mode=ro{'&immutable=1' if frozen else ''}", uri=True, timeout=WAIT)

    def _prepare(self, readonly: bool) -> None:
        with self._told("open"):
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise BenchError(
                    f"{self.path} was written by a newer solverkit (version {version} of its tables, this one knows "
                    f"{VERSION}): update solverkit, or take another folder."
                )
            if readonly:
                self._db.execute("SELECT count(*) FROM results").fetchone()
                return
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            if version < VERSION:
                self._db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
            self._db.execute("DELETE FROM claims WHERE 0")  # told now if it cannot be written

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back what was claimed and close the file."""
        if self._beating is not None:
            self._beating.set()
            with suppress(sqlite3.Error):
                self._db.execute("DELETE FROM claims WHERE owner = ?", (self.owner,))
        self._db.close()

    def plan(self, keys: Sequence[str]) -> None:
        """Note the cells of a run in their order; those that are known keep their places."""
        with self._told("write"), self._transaction():
            first = self._db.execute("SELECT coalesce(max(position), -1) + 1 FROM cells").fetchone()[0]
            self._db.executemany(
                "INSERT OR IGNORE INTO cells VALUES (?, ?)", [(key, first + i) for i, key in enumerate(keys)]
            )

    def note(self, request: str, keys: Sequence[str]) -> None:
        """Keep which cells a request is made of."""
        with self._told("write"):
            self._db.execute("INSERT OR REPLACE INTO requests VALUES (?, ?)", (request, json.dumps(list(keys))))

    def recall(self, request: str) -> list[Row] | None:
        """The rows of a request that was noted, measured on this machine; None where it was not, or one is missing."""
        with self._told("read"):
            found = self._db.execute("SELECT keys FROM requests WHERE request = ?", (request,)).fetchone()
        rows = [] if found is None else [self.finished(key) for key in json.loads(found[0])]
        return [row for row in rows if row is not None] if rows and all(row is not None for row in rows) else None

    def finished(self, key: str) -> Row | None:
        """The row of a cell that was measured on this machine."""
        with self._told("read"):
            found = self._db.execute("SELECT row FROM results WHERE key = ? AND machine = ?", (key, machine())).fetchone()
        return None if found is None else json.loads(found[0])

    def claim(self, key: str) -> bool:
        """Take a cell, unless it is measured or another process that lives works on it."""
        now = time.time()
        with self._told("write"), self._transaction():
            if self._db.execute("SELECT 1 FROM results WHERE key = ? AND machine = ?", (key, machine())).fetchone():
                return False
            held = self._db.execute(
                "SELECT owner, process, boot, beat FROM claims WHERE key = ? AND machine = ?", (key, machine())
            ).fetchone()
            if held is not None and held[0] != self.owner and _lives(held[1], held[2], held[3], now):
                return False
            self._db.execute(
                "INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?, ?, ?)",
                (key, machine(), self.owner, os.getpid(), _boot(), now),
            )
        if self._beating is None:
            self._beating = threading.Event()
            threading.Thread(target=_beat, args=(self.path, self.owner, self._beating), daemon=True).start()
        return True

    def finish(self, key: str, row: Row, picture: bytes | None = None) -> None:
        """Store the row of a cell, its samples for the report, and give back the claim: one transaction."""
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
        with self._told("write"), self._transaction():
            self._db.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?)", (key, row.get("machine") or "", text))
            if picture is not None:
                self._db.execute("INSERT OR REPLACE INTO pictures VALUES (?, ?)", (key, picture))
            self._db.execute("DELETE FROM claims WHERE key = ? AND machine = ?", (key, machine()))

    def release(self, key: str) -> None:
        """Give back a claim without a row."""
        with suppress(sqlite3.Error):
            self._db.execute("DELETE FROM claims WHERE key = ? AND owner = ?", (key, self.owner))

    def forget(self, keys: Iterable[str]) -> None:
        """Drop the rows of cells on this machine, so that they are measured again."""
        with self._told("write"), self._transaction():
            self._db.executemany("DELETE FROM results WHERE key = ? AND machine = ?", [(key, machine()) for key in keys])

    def merge(self, rows: Iterable[Row]) -> int:
        """Take rows that another store or machine measured, and say how many were new; a later row of a cell wins."""
        new = 0
        with self._told("write"), self._transaction():
            for row in rows:
                key = row.get("key") or json.dumps([row.get(name) for name in CELL_KEYS], sort_keys=True)
                place = (key, row.get("machine") or "")
                old = self._db.execute("SELECT row FROM results WHERE key = ? AND machine = ?", place).fetchone()
                if old is not None and (json.loads(old[0]).get("time") or "") >= (row.get("time") or ""):
                    continue
                new += 1
                position = self._db.execute("SELECT coalesce(max(position), -1) + 1 FROM cells").fetchone()[0]
                self._db.execute("INSERT OR IGNORE INTO cells VALUES (?, ?)", (key, position))
                self._db.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?)", (*place, json.dumps(row)))
        return new

    def rows(self) -> list[Row]:
        """All rows, in the order in which their cells were planned."""
        with self._told("read"):
            found = self._db.execute(
                "SELECT row FROM results LEFT JOIN cells USING (key) ORDER BY position, results.rowid"
            ).fetchall()
            return [json.loads(text) for (text,) in found]

    def pictures(self) -> dict[str, bytes]:
        """Samples of the cells that have some, by key."""
        with self._told("read"):
            return dict(self._db.execute("SELECT key, tensors FROM pictures").fetchall())

    def add_picture(self, key: str, picture: bytes) -> None:
        """Samples that belong to no cell (the converged ones), under a key of their own."""
        with self._told("write"):
            self._db.execute("INSERT OR IGNORE INTO pictures VALUES (?, ?)", (key, picture))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Errors of SQLite and of the system, in words that say what to do."""
        try:
            yield
        except sqlite3.Error as error:
            raise BenchError(f"cannot {what} {self.path}: {_reason(error, self.path)}") from None
        except (FileExistsError, NotADirectoryError):
            raise BenchError(f"cannot {what} {self.path}: a part of the path is a file, not a folder.") from None
        except OSError as error:
            raise BenchError(f"cannot {what} {self.path}: {error.strerror or error}.") from None


def _reason(error: sqlite3.Error, path: Path) -> str:
    text = str(error)
    if "full" in text:
        return "the disk is full. The rows that were stored are safe; make room and run the same command again."
    if "readonly" in text or "read-only" in text:
        return "it is read-only. Take another folder, or change its rights."
    if "not a database" in text or "malformed" in text:
        return (
            f"it is damaged, or no run of solverkit ({text}). It was left as it is: move it away to begin anew; "
            f"{path.with_name('results.jsonl').name} beside it, where there is one, holds the rows that were exported."
        )
    if "locked" in text:
        return f"another process kept it locked for {WAIT:g} seconds."
    if "unable to open" in text:
        return "it cannot be opened: no such folder, a folder in its place, or no right."
    return f"{text}."


def _beat(path: Path, owner: str, stop: threading.Event) -> None:
    """Say that the process lives, until it has ended."""
    while not stop.wait(BEAT):
        with suppress(sqlite3.Error):
            db = sqlite3.connect(path, timeout=BEAT)
            with db:
                db.execute("UPDATE claims SET beat = ? WHERE owner = ?", (time.time(), owner))
            db.close()


def _lives(process: int, boot: str | None, beat: float, now: float) -> bool:
    if now - beat > LEASE:
        return False
    if boot is not None and boot == _boot():
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
        except OSError:
            return True
    return True


def _boot() -> str | None:
    """What tells this start of this computer apart from others; None where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None


def encoded(tensors: dict[str, Any]) -> bytes:
    """Tensors as bytes of safetensors."""
    from safetensors.torch import save

    return save({name: tensor.contiguous() for name, tensor in tensors.items()})
