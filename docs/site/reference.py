"""Pages of the API reference: one for each room that has public names, one for each public module."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import solverkit as sk

ROOMS = {
    "run": "Runs", "model": "Models", "process": "Processes and levels", "grid": "Grids", "plan": "Plans",
    "registry": "Registry and plugins", "files": "Files and hub", "pipelines": "In a pipeline", "tuning": "Tuning",
    "gaussian": "Gaussian statistics", "ems": "Statistics of DPM-Solver-v3", "diagnosis": "Diagnosis",
    "joint": "Systems of components", "tokens": "Tokens",
}  # fmt: skip
DOORS = ("guidance", "constraints", "inverse", "likelihood", "problems", "flow_map", "hub", "joint", "tokens", "steps",
         "typing", "testing", "errors", "bench")  # fmt: skip


def write(folder: Path) -> list[Any]:
    """Write the pages; their entries of the navigation."""
    folder.mkdir(parents=True)
    homes: dict[str, list[str]] = {}
    for module, names in sk._NAMES.items():
        homes.setdefault(module.split(".")[0], []).extend(n for n in names.split() if n != "SchedulerMixin")
    nav: list[Any] = ["reference/index.md"]
    lines = ["# Reference", "", "From the docstrings. `import solverkit as sk` loads nothing heavy.", ""]
    lines += ["| page | names |", "|---|---|"]
    for room in [*(room for room in ROOMS if room in homes), *sorted(set(homes) - set(ROOMS))]:
        title = ROOMS.get(room, room.capitalize())
        names = {f"solverkit.{name}": getattr(sk, name) for name in homes[room]}
        lines.append(_page(folder / f"{room}.md", title, "", names))
        nav.append({title: f"reference/{room}.md"})
    for door in [*DOORS, *sorted(set(sk._MODULES) - set(DOORS))]:
        module = importlib.import_module(f"solverkit.{door}")
        path = folder / f"sk-{door}.md"
        said = (inspect.getdoc(module) or "").split("\n\n")[0].replace("\n", " ")
        where = importlib.import_module("solverkit.bench.api") if door == "bench" else module  # sk.bench is its function
        lines.append(_page(path, f"sk.{door}", said, {f"{where.__name__}.{n}": getattr(where, n) for n in _public(where)}))
        nav.append({f"sk.{door}": f"reference/{path.name}"})
    (folder / "index.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return nav


def _public(module: Any) -> list[str]:
    """Names of a door: those that it lists, else what is written in it."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [n for n, v in vars(module).items() if not n.startswith("_") and getattr(v, "__module__", "") == module.__name__]


def _page(path: Path, title: str, said: str, names: dict[str, Any]) -> str:
    """Write one page; its row of the index."""
    text = [f"# {title}", said, *(_entry(name, value) for name, value in names.items())]
    path.write_text("\n\n".join(part for part in text if part) + "\n", encoding="utf-8")
    listed = ", ".join(f"[`{name.rpartition('.')[2]}`]({path.name}#{name})" for name in names)
    return f"| [{title}]({path.name}) | {listed} |"


def _entry(name: str, value: Any) -> str:
    """A function or a class from its source; of any other value the first line of its class, or the value."""
    if inspect.isfunction(value) or inspect.isclass(value):
        return f"::: {name}"
    kind = type(value)
    ours = kind.__module__.startswith(("solverkit", "pluggy"))
    said = (inspect.getdoc(kind) or "").split("\n")[0] if ours else f"`{value!r}`"
    return f"## {name.rpartition('.')[2]} {{ #{name} }}\n\n{said}"
