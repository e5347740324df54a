"""`solverkit new-plugin NAME`: a small package that registers one sampler, with its test.

Its files lie in `template/`, complete and with a name of their own; a new plugin is a copy under another name.
"""

from __future__ import annotations

import keyword
import re
from pathlib import Path

import typer

from ..errors import OptionError, PluginError
from .console import remark
from .destination import require_folder

WHERE = typer.Option(Path("."), "--out", "-o", help="Folder in which the plugin's folder is made.")
TEMPLATE = Path(__file__).parent / "template"
FILES = ("pyproject.toml", "README.md", "solverkit_my_solver.py", "tests/test_my_solver.py")


def new_plugin(
    name: str = typer.Argument(help="The sampler's name, e.g. two-step."),
    out: Path = WHERE,
) -> None:
    """Write a plugin: a folder with pyproject.toml, a module with one sampler of order 2, and its test."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(name.replace("-", "_")):
        raise OptionError(f"a plugin's name is small letters, digits and single hyphens (two-step), got {name!r}.")
    from ..registry.catalogue import samplers

    if name in samplers():
        raise OptionError(
            f"there is a sampler {name!r} already, of the plugin {samplers()[name].plugin!r}: choose another name."
        )
    require_folder(out)
    folder = out / f"solverkit-{name}"
    if folder.exists():
        raise PluginError(f"{folder} exists already; nothing was written.")
    try:
        for path, text in files(name).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise PluginError(f"cannot write {folder}: {error.strerror or error}.") from None
    print(folder)
    remark(f"next: cd {folder} && pip install -e . && solverkit check {name}")


def files(name: str) -> dict[str, str]:
    """path -> text of the plugin's files."""

    def named(text: str) -> str:
        return text.replace("my-solver", name).replace("my_solver", name.replace("-", "_"))

    return {named(path): named((TEMPLATE / path).read_text(encoding="utf-8")) for path in FILES}
