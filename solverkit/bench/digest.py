"""Digests of files and of modules that are loaded."""

from __future__ import annotations

import functools
import hashlib
import sys
from pathlib import Path


def file_digest(path: str) -> str:
    """Of a file's bytes; read again where it has changed."""
    stat = Path(path).stat()
    return _digest(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=256)
def _digest(path: str, modified: int, size: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def module_digest(module: str) -> str:
    """A digest of the source of a module that is loaded; empty where it has none."""
    path = getattr(sys.modules.get(module), "__file__", None)
    return file_digest(path) if path else ""
