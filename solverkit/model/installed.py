"""Where code comes from: an installed package, known by its version, or somebody's own files, known by their content."""

from __future__ import annotations

import functools
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Their releases keep what a module or a function computes: a fingerprint outlives them.
STEADY = {"solverkit", "solverkit_plugins", "torch", "numpy", "diffusers", "transformers", "builtins"}


@functools.lru_cache(maxsize=1024)
def origin(module: str | None) -> str | None:
    """What stands for the code of a module: "" for the standard library and steady packages, a version for other installed
    ones; None for code that is nobody's release (a script, a notebook, files beside them), which has to be read."""
    top = (module or "__main__").partition(".")[0]
    if top in STEADY or top in sys.builtin_module_names:
        return ""
    if top == "__main__" or top not in sys.modules:
        return None
    file = getattr(sys.modules[top], "__file__", None)
    if file is None:  # a namespace package, or a module made by hand
        return None
    path = Path(file).resolve()
    if {"site-packages", "dist-packages"} & set(path.parts):
        try:
            return version(top)
        except PackageNotFoundError:
            given = getattr(sys.modules[top], "__version__", None)
            return None if given is None else str(given)
    paths = sysconfig.get_paths()
    standard = any(path.is_relative_to(Path(paths[name]).resolve()) for name in ("stdlib", "platstdlib"))
    return "" if standard else None
