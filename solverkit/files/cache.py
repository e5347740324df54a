"""The user's cache: where it is, and files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """$SOLVERKIT_CACHE/kind, or ~/.cache/solverkit/kind."""
    return Path(os.environ.get("SOLVERKIT_CACHE") or Path.home() / ".cache" / "solverkit") / kind


def write_whole(path: Path, content: bytes) -> None:
    """Write to a neighbour, then rename: a reader never sees half a file, whoever writes at the same time.

    Raises:
        OSError: it cannot be written; what was there before is still there.
    """
    file = tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", suffix=".part", delete=False)  # noqa: SIM115
    try:
        with file:
            file.write(content)
        os.chmod(file.name, 0o644)  # a temporary file is private; this one may be shipped or shared
        os.replace(file.name, path)
    except BaseException:
        Path(file.name).unlink(missing_ok=True)
        raise
