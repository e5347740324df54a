"""k_diffusion.sampling of the installed package, loaded alone.

The package imports code for training, CLIP and FID; its samplers need torch, scipy, torchdiffeq and torchsde.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import OptionError, UnknownNameError

PACKAGE = "k_diffusion"
ALONE = "k_diffusion_samplers"  # what the module is called here, so that `import k_diffusion` stays what it is
INSTALL = "pip install --no-deps k-diffusion, and pip install torchdiffeq torchsde scipy"


def k_diffusion_functions() -> dict[str, Any]:
    """Every public sampler of the installed k-diffusion, by name: sample_euler, ...

    Raises:
        OptionError: it is not installed, or cannot be imported.
    """
    loaded = sys.modules.get(f"{PACKAGE}.sampling")  # somebody imported the whole package
    module = _alone() if loaded is None else loaded
    return {name: fn for name, fn in vars(module).items() if name.startswith("sample_") and callable(fn)}


def k_diffusion_function(name: str) -> Any:
    """The function of that name, written with or without "sample_".

    Raises:
        UnknownNameError: there is none; and as `k_diffusion_functions`.
    """
    known = k_diffusion_functions()
    wanted = name if name in known else f"sample_{name}"
    if wanted not in known:
        raise UnknownNameError("sampler of k-diffusion", name, known)
    return known[wanted]


def k_diffusion_version() -> str:
    """Of the installed distribution; "unknown" where it has none."""
    try:
        return version("k-diffusion")
    except PackageNotFoundError:
        return "unknown"


@functools.lru_cache(maxsize=1)
def _alone() -> ModuleType:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise OptionError(f"samplers of k-diffusion need it to be installed: {INSTALL}.")
    home = Path(next(iter(spec.submodule_search_locations)))
    package = ModuleType(ALONE)
    package.__path__ = []
    package.utils = _utils(home / "utils.py")  # type: ignore[attr-defined]
    sys.modules[ALONE], sys.modules[f"{ALONE}.utils"] = package, package.utils
    own = importlib.util.spec_from_file_location(f"{ALONE}.sampling", home / "sampling.py")
    assert own is not None and own.loader is not None
    module = importlib.util.module_from_spec(own)
    sys.modules[own.name] = module
    try:
        own.loader.exec_module(module)
    except ImportError as error:
        raise OptionError(f"samplers of k-diffusion cannot be imported ({error}): {INSTALL}.") from None
    return module


def _utils(path: Path) -> ModuleType:
    """The one function of k_diffusion.utils that its samplers call."""
    import torch

    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "append_dims"]
    module = ModuleType(f"{ALONE}.utils")
    module.torch = torch  # type: ignore[attr-defined]
    exec(compile(tree, str(path), "exec"), vars(module))
    return module


def takes(fn: Any, name: str) -> bool:
    """Whether a function has a parameter of that name."""
    return name in inspect.signature(fn).parameters
