"""What is opened as a file is one: a pipe or a device would be waited for, or read without end."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from ..errors import LoadError

JSON_BYTES = 64 * 2**20  # a config or an index of weights is a thousandth of it


def require_file(path: Path, limit: int | None = None) -> Path:
    """The path, if it is a regular file (or a link to one) of at most `limit` bytes; it is not opened.

    Raises:
        LoadError: nothing there, a folder, a pipe, a device, a socket, or a file above the limit.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise LoadError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if not stat.S_ISREG(found.st_mode):
        kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
        kind = next((name for is_it, name in kinds if is_it(found.st_mode)), "a device")
        raise LoadError(f"{path} cannot be read: expected a file, and it is {kind}.")
    if limit is not None and found.st_size > limit:
        raise LoadError(f"{path} holds {found.st_size} bytes, expected at most {limit}: it is no such file.")
    return path


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object of a file.

    Raises:
        LoadError: no regular file of at most 64 MiB, no JSON, JSON that is nested too deep to be read, or no object.
    """
    try:
        content = json.loads(require_file(path, JSON_BYTES).read_text(encoding="utf-8"))
    except LoadError:
        raise
    except RecursionError:
        raise LoadError(f"{path} cannot be read: it is nested too deep for a config. Download or save it again.") from None
    except (OSError, ValueError) as error:
        raise LoadError(f"{path} cannot be read: {error}. Download or save the folder again.") from error
    if not isinstance(content, dict):
        raise LoadError(f"{path} holds a {type(content).__name__}, expected a JSON object.")
    return content
