"""Benchmarks: suites, the runner, metrics, the store and reports. The package can be called: sk.bench(models, samplers)."""

from __future__ import annotations

import sys
import types
from typing import Any


class _Callable(types.ModuleType):
    """A package that can be called: `sk.bench(...)` is `sk.bench.api.bench(...)`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from .api import bench

        return bench(*args, **kwargs)

    @property
    def __wrapped__(self) -> Any:  # what help() and signatures show
        from .api import bench

        return bench


sys.modules[__name__].__class__ = _Callable
