"""The digest of a value that is its own content: numbers, text, tensors."""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePath
from typing import Any

import numpy as np
import torch

from ..errors import FingerprintError


def plain(value: Any) -> bytes | None:
    """Values that are their own content."""
    if value is None or value is Ellipsis or value is NotImplemented or type(value) in (bool, int, complex, range, slice):
        return f"{type(value).__name__} {value!r}".encode()
    if type(value) is float:
        return f"float {value.hex()}".encode()
    if type(value) is str:
        return b"str " + value.encode("utf-8", "surrogatepass")
    if type(value) in (bytes, bytearray):
        return b"bytes " + bytes(value)
    if isinstance(value, PurePath):
        return f"path {value}".encode()
    if isinstance(value, re.Pattern):
        return f"pattern {value.pattern!r} {value.flags}".encode()
    if isinstance(value, (torch.dtype, torch.layout, torch.memory_format, np.dtype)):
        return f"{type(value).__name__} {value}".encode()
    return None


def tensor_digest(tensor: torch.Tensor, path: str) -> bytes:
    try:
        dense = tensor.detach()
        dense = dense.dequantize() if dense.is_quantized else dense.to_dense() if dense.layout != torch.strided else dense
        content = dense.cpu().contiguous().flatten().resolve_conj().resolve_neg().view(torch.uint8).numpy()
    except (RuntimeError, NotImplementedError, TypeError, AttributeError) as error:
        raise FingerprintError(
            f"{path} is a {type(tensor).__name__} on {tensor.device} whose numbers cannot be read ({error}); the network "
            "has no fingerprint. Load its weights first."
        ) from None
    return hashed("tensor", f"{tensor.dtype}{tuple(tensor.shape)}".encode(), content.data)


def hashed(kind: str, *parts: Any) -> bytes:
    """Each part with its length before it: parts cannot run into one another."""
    digest = hashlib.sha256(kind.encode())
    for part in parts:
        digest.update(f"|{len(part)}|".encode())
        digest.update(part)
    return digest.digest()
