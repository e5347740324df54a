"""How many threads compute, and how idle ones wait: said before torch is imported, since OpenMP reads it only then.

By default an idle OpenMP thread spins: it asks again and again whether there is work, and so takes its core from whoever
computes. Where another process keeps one of few cores busy, a small network then waits for its own threads most of the
time. Threads that sleep instead cost next to nothing on idle cores.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping

PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}  # GNU's and LLVM's runtime; Intel's and LLVM's
DECIDING = (*PASSIVE, "GOMP_SPINCOUNT", "KMP_LIBRARY")


def wait_passively(environment: MutableMapping[str, str]) -> None:
    """Let idle threads sleep, where the user has not said how they wait, and torch is not there yet.

    Args:
        environment: Variables of the process, changed in place.
    """
    if "torch" not in sys.modules and not any(name in environment for name in DECIDING):
        environment.update(PASSIVE)


def use_threads(count: int | None) -> None:
    """Compute on that many threads; None leaves it to the environment. Imports torch where a count is given."""
    if count is None:
        return
    if "torch" not in sys.modules:
        os.environ.update(OMP_NUM_THREADS=str(count), MKL_NUM_THREADS=str(count))
    import torch

    torch.set_num_threads(count)
