"""Reading arrays of data from files: .npy, .npz and .safetensors; nothing is opened for writing, or unpickled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import LoadError
from .regular_file import require_file

KINDS = (".npy", ".npz", ".safetensors")
KEYS = ("x", "train_x", "x_train", "images", "latents")


def read_array(path: Path, key: str | None = None, prefer: Sequence[str] = KEYS) -> torch.Tensor:
    """One array of a file, in its own dtype.

    A .npy file is mapped, not read: what is changed in the tensor stays in memory, the file is opened for reading only.

    Args:
        path: A .npy, .npz or .safetensors file.
        key: Which array of several; an .npy file has no names.
        prefer: Names to look for where no key is given; else the only array there is.

    Raises:
        LoadError: another kind of file, no regular file, a corrupt one, Python objects in the place of numbers, no array of
            that name, or several and no key.
    """
    path = Path(path)
    reader = {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors}.get(path.suffix.lower())
    if reader is None:
        raise LoadError(f"arrays are read from {', '.join(KINDS)} files, got {path.name!r}.")
    require_file(path)
    try:
        return reader(path, lambda names: _choose(path, names, key, prefer))
    except LoadError:
        raise
    except PermissionError as error:
        raise LoadError(f"cannot read {path}: {error.strerror}.") from None
    except Exception as error:  # numpy, zipfile and safetensors raise a dozen types for files that are not theirs
        reason = str(error).strip().split("\n")[0][:200]
        reason = "Python objects" if "allow_pickle" in reason else f"{type(error).__name__}: {reason}"
        raise LoadError(f"cannot read {path}: it is corrupt, or holds no numbers ({reason}).") from None


def to_units(x: torch.Tensor) -> torch.Tensor:
    """8-bit values in [-1, 1] as float32; everything else as it is, in units of its own."""
    return x.float() / 127.5 - 1 if x.dtype == torch.uint8 else x


Choice = Callable[[Iterable[str]], str]


def _choose(path: Path, names: Iterable[str], key: str | None, prefer: Sequence[str]) -> str:
    held = list(names)
    if key is not None:
        chosen: str | None = key
    else:
        chosen = next((name for name in prefer if name in held), held[0] if len(held) == 1 else None)
    if chosen not in held:
        asked = f", and no {key!r}" if key is not None else ""
        raise LoadError(f"{path} holds {', '.join(held) or 'nothing'}{asked}: say which array by its key.")
    return chosen  # type: ignore[return-value]


def _npy(path: Path, choose: Choice) -> torch.Tensor:
    try:
        array: Any = np.load(path, mmap_mode="c")  # copy on write
    except ValueError as error:
        if "mmap" not in str(error):  # an array without entries cannot be mapped
            raise
        array = np.load(path)
    return _tensor(array)


def _npz(path: Path, choose: Choice) -> torch.Tensor:
    with np.load(path) as arrays:
        return _tensor(arrays[choose(arrays.files)])


def _safetensors(path: Path, choose: Choice) -> torch.Tensor:
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        tensor: torch.Tensor = file.get_tensor(choose(list(file.keys())))
    return tensor


def _tensor(array: np.ndarray) -> torch.Tensor:
    if not array.dtype.isnative:  # big-endian files
        array = array.astype(array.dtype.newbyteorder("="))
    return torch.from_numpy(array)
