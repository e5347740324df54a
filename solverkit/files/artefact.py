"""A file that belongs to a network: beside its weights, in a file or folder of its own, or on the hub."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import LoadError
from .network import NETWORKS


def beside(source: str | None, file: str) -> Iterator[Path]:
    """The files of that name in the folder that a network was opened from, and bundled with it; those that are there."""
    for folder in dict.fromkeys((Path(source), NETWORKS / source)) if source else ():
        if (folder / file).is_file():
            yield folder / file


def located(source: str | os.PathLike[str], file: str, noun: str, made: str) -> Path:
    """The file that a bundled name, a file, a folder or a hub id means.

    Args:
        source: What the user said.
        file: Its name inside a folder.
        noun: What it holds, for errors.
        made: How it is made, or what else may be said, for errors.

    Raises:
        LoadError: nothing there.
    """
    if not isinstance(source, (str, os.PathLike)) or not os.fspath(source):
        raise LoadError(f"{noun}: expected a name, file, folder or hub id, got {source!r}.")
    text = os.fspath(source)
    path = Path(source)
    if path.is_dir():
        if not (path / file).is_file():
            raise LoadError(f"{path} has no {file}.")
        return path / file
    if path.exists():
        return path
    if (NETWORKS / text / file).is_file():
        return NETWORKS / text / file
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text) and path.suffix != Path(file).suffix:
        return download(text, file)
    bundled = ", ".join(sorted(folder.parent.name for folder in NETWORKS.glob(f"*/{file}"))) or "none"
    raise LoadError(
        f"no {noun} to read at {text!r}: expected a bundled name ({bundled}), a file, a folder with {file}, or a hub id "
        f"org/name. {made}"
    )


def download(repo: str, file: str) -> Path:
    """The file of a hub repository.

    Raises:
        LoadError: it cannot be downloaded.
    """
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, file))
    except Exception as error:  # offline, gated, misspelt: the hub's own words say which
        raise LoadError(
            f"cannot download {file} of {repo!r} from the hub: {type(error).__name__}: {error} Check the name and the "
            "connection, or give the path of a local file."
        ) from error


def push(
    save: Callable[[Path], Path], repo: str, token: str | None, private: bool, file: str, page: str | None = None
) -> str:
    """Upload what `save` writes as `file` of a model repository; returns its address.

    Args:
        save: Writes the file to the path that it is given.
        repo, token, private: Of the hub.
        file: Its name there.
        page: The repository's README.md, written first, and only where the repository has none.

    Raises:
        LoadError: the hub refused, or cannot be reached.
    """
    from huggingface_hub import HfApi

    try:
        with tempfile.TemporaryDirectory() as folder:
            written, api = save(Path(folder) / file), HfApi(token=token)
            api.create_repo(repo, exist_ok=True, private=private)
            if page is not None and not api.file_exists(repo_id=repo, filename="README.md"):
                api.upload_file(path_or_fileobj=page.encode(), path_in_repo="README.md", repo_id=repo)
            return str(api.upload_file(path_or_fileobj=str(written), path_in_repo=file, repo_id=repo))
    except LoadError:
        raise
    except Exception as error:
        raise LoadError(f"cannot upload to {repo!r}: {type(error).__name__}: {error}") from error
