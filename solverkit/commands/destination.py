"""Files that the user names: looked at before the work, so that no run ends with "cannot write"."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..errors import OptionError


def require_writable(path: Path, kinds: Sequence[str] = (), option: str = "--out") -> None:
    """Nothing is made: folders that are missing are made with the file, by `with_folder`.

    Args:
        path: Of a file that will be written (and replaced, if it is there).
        kinds: Suffixes that it may have; none: any.
        option: That names it.

    Raises:
        OptionError: another suffix, a folder or a pipe in the place of the file, or no right to write.
    """
    try:
        if there := _exists(path):
            mode = path.stat().st_mode
            if not stat.S_ISREG(mode):
                raise OptionError(f"cannot write to {path}: it is {'a folder' if stat.S_ISDIR(mode) else 'no file'}.")
        if kinds and path.suffix.lower() not in kinds:
            given = repr(path.suffix) if path.suffix else "nothing"
            raise OptionError(f"{option} {str(path)!r} ends with {given}, expected one of {', '.join(kinds)}.")
        if there:
            path.open("ab").close()
        else:
            _require_room(path.parent)
    except OSError as error:
        raise OptionError(f"cannot write to {path}: {error.strerror or error}.") from None


def require_folder(path: Path) -> None:
    """As `require_writable`, of a folder that files will be written into.

    Raises:
        OptionError: a file in its place, or no right to write.
    """
    try:
        if _exists(path) and not path.is_dir():
            raise OptionError(f"cannot write into {path}: it is a file, expected a folder.")
        _require_room(path)
    except OSError as error:
        raise OptionError(f"cannot write into {path}: {error.strerror or error}.") from None


def require_readable(path: Path, folder: bool = True) -> None:
    """Raises OptionError if there is nothing at the path, or (folder=False) a folder, or it may not be read."""
    try:
        if not path.is_dir():
            if not stat.S_ISREG(path.stat().st_mode):
                raise OptionError(f"cannot read {path}: it is a pipe or a device, expected a file.")
            path.open("rb").close()
        elif not folder:
            raise OptionError(f"cannot read {path}: it is a folder, expected a file.")
    except OSError as error:
        raise OptionError(f"cannot read {path}: {error.strerror or error}.") from None


def with_folder(path: Path) -> Path:
    """The path, after its folder was made.

    Raises:
        OptionError: the folder cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"cannot write to {path}: {error.strerror or error}.") from None
    return path


def _exists(path: Path) -> bool:
    """As `path.exists()`, but a name that cannot be one is an error."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True


def _require_room(folder: Path) -> None:
    """Whether a file can be made in the nearest folder that is there: rights alone do not say (read-only disks)."""
    while not _exists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(20, f"{folder} is no folder")
    handle, name = tempfile.mkstemp(prefix=".solverkit-", dir=folder)
    os.close(handle)
    os.unlink(name)
