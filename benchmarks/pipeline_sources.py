"""The sources of the installed diffusers as syntax trees: classes, what a pipeline inherits, which functions it calls.

Nothing of diffusers is imported here, and a file is parsed when it is asked for.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

FOLDERS = ("pipelines", "modular_pipelines", "schedulers")
ROOTS = ("DiffusionPipeline", "ModularPipeline")
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Place(NamedTuple):
    """A line of diffusers."""

    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


class Class(NamedTuple):
    """A class and the file that it is in, relative to diffusers."""

    path: str
    node: ast.ClassDef


@dataclass(frozen=True)
class Code:
    """A function that belongs to a pipeline.

    Attributes:
        path, node: Where it is.
        methods: The methods of the pipeline that lead to it; its own name for a method.
    """

    path: str
    node: Function
    methods: frozenset[str]


class Sources:
    """Classes and functions of diffusers by name.

    Args:
        root: The folder of the package; the installed one by default.
    """

    def __init__(self, root: Path | None = None) -> None:
        found = importlib.util.find_spec("diffusers")
        assert root is not None or (found is not None and found.origin is not None)
        self.root = root or Path(str(found and found.origin)).parent
        self.tree, self.functions = functools.cache(self._tree), functools.cache(self._functions)
        self.paths: dict[str, list[str]] = {}
        for folder in FOLDERS:
            for file in sorted((self.root / folder).rglob("*.py")):
                for name in re.findall(r"^class (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE):
                    self.paths.setdefault(name, []).append(file.relative_to(self.root).as_posix())

    def _tree(self, path: str) -> ast.Module:
        return ast.parse((self.root / path).read_text(encoding="utf-8"))

    def find(self, name: str, near: str = "") -> Class | None:
        """The class of that name, in the folder of `near` where there are several."""
        paths = self.paths.get(name, [])
        if not paths:
            return None
        folder = near.rpartition("/")[0]
        path = next((p for p in paths if p == near), next((p for p in paths if p.rpartition("/")[0] == folder), paths[0]))
        return next((Class(path, n) for n in self.tree(path).body if isinstance(n, ast.ClassDef) and n.name == name), None)

    def line(self, path: str, pattern: str) -> Place | None:
        """The first line of a file that matches."""
        for number, text in enumerate((self.root / path).read_text(encoding="utf-8").splitlines(), 1):
            if re.search(pattern, text):
                return Place(path, number)
        return None

    def ancestors(self, name: str, near: str = "") -> list[Class]:
        """The class and what it inherits from, as far as that is in FOLDERS; the general pipeline classes are left out."""
        found = self.find(name, near)
        if found is None or name in ROOTS:
            return []
        bases = [base.id for base in found.node.bases if isinstance(base, ast.Name)]
        return list({c.node: c for c in [found, *(c for b in bases for c in self.ancestors(b, found.path))]}.values())

    def is_pipeline(self, name: str, near: str = "") -> bool:
        found = self.find(name, near)
        bases = [base.id for base in found.node.bases if isinstance(base, ast.Name)] if found else []
        return found is not None and any(b in ROOTS or self.is_pipeline(b, found.path) for b in bases)

    def _functions(self, path: str) -> dict[str, tuple[str, Function]]:
        """The functions that a file defines or imports from another file of diffusers."""
        found: dict[str, tuple[str, Function]] = {}
        for node in self.tree(path).body:
            if isinstance(node, ast.ImportFrom) and node.level:
                parts = path.split("/")[: -node.level]
                source = "/".join([*parts, *(node.module or "").split(".")]) + ".py"
                if parts and (self.root / source).is_file():
                    there = {n.name: n for n in self.tree(source).body if isinstance(n, Function)}
                    found |= {a.asname or a.name: (source, there[a.name]) for a in node.names if a.name in there}
            elif isinstance(node, Function):
                found[node.name] = (path, node)
        return found

    def blocks(self, pipeline: Class) -> list[Class]:
        """The classes that a modular pipeline is put together from."""
        queue = [
            statement.value.value
            for statement in pipeline.node.body
            if isinstance(statement, ast.Assign)
            and ast.unparse(statement.targets[0]) == "default_blocks_name"
            and isinstance(statement.value, ast.Constant)
        ]
        found: dict[str, Class] = {}
        while queue:
            name = queue.pop()
            block = self.find(name, pipeline.path)
            if name in found or block is None:
                continue
            found[name] = block
            listed = [n.value for n in block.node.body if isinstance(n, ast.Assign)]
            named = {n.id for value in listed for n in ast.walk(value) if isinstance(n, ast.Name)}
            listed += [
                n.value
                for n in self.tree(block.path).body  # block_classes = AUTO_BLOCKS.values()
                if isinstance(n, ast.Assign) and {ast.unparse(t) for t in n.targets} & named
            ]
            queue += [n.id for value in listed for n in ast.walk(value) if isinstance(n, ast.Name)]
            queue += [base.id for base in block.node.bases if isinstance(base, ast.Name)]
        return list(found.values())

    def code(self, name: str) -> list[Code]:
        """Every function that belongs to a pipeline: its methods, inherited or of its blocks, and what they call."""
        classes = self.ancestors(name)
        if classes and "modular_pipelines" in classes[0].path:
            classes = [block for c in classes if "default_blocks_name" in ast.unparse(c.node) for block in self.blocks(c)]
            methods = [(c.path, n, "__call__") for c in classes for n in c.node.body if isinstance(n, Function)]
            by_name: dict[str, tuple[str, Function]] = {}
        else:
            own: dict[str, tuple[str, Function, str]] = {}
            for c in reversed(classes):
                own |= {n.name: (c.path, n, n.name) for n in c.node.body if isinstance(n, Function)}
            methods = list(own.values())
            by_name = {name: (path, node) for name, (path, node, _) in own.items()}
        reached: dict[tuple[str, str, int], set[str]] = {}
        nodes: dict[tuple[str, str, int], tuple[str, Function]] = {}
        queue = list(methods)
        while queue:
            path, node, method = queue.pop()
            key = (path, node.name, node.lineno)
            if method in reached.setdefault(key, set()):
                continue
            reached[key].add(method)
            nodes[key] = (path, node)
            for called, is_method in _calls(node):
                target = by_name.get(called) if is_method else self.functions(path).get(called)
                if target is not None:
                    queue.append((*target, method))
        return [Code(*nodes[key], frozenset(names)) for key, names in reached.items()]


def _calls(function: Function) -> Iterator[tuple[str, bool]]:
    """The names that a function calls, and whether as a method of self."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, False
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            yield node.attr, True
