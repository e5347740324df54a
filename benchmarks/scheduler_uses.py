"""What the code of a pipeline does with its scheduler: attributes, keywords, and looks at the class itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pipeline_sources import Code, Function, Place


class Use(NamedTuple):
    """One thing that a scheduler must bear.

    Attributes:
        kind: "raises", "replaces" (for other classes than the native ones), "branches" (does something else), "lacks".
        what: The native classes, or what ours lacks.
        place: Where.
        code: The function that it is in.
    """

    kind: str
    what: str
    place: Place
    code: Code


def is_scheduler(node: ast.AST) -> bool:
    """self.scheduler, components.audio_scheduler, scheduler, schedulers[i]."""
    end = "scheduler"
    if isinstance(node, ast.Subscript):
        node, end = node.value, "schedulers"
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name.lower() == name and name.endswith(end)


def _checked(test: ast.AST) -> list[str]:
    """The classes that a condition compares a scheduler with."""
    return [
        ast.unparse(node.args[1])
        for node in ast.walk(test)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance" and is_scheduler(node.args[0])
    ]


def _denied(test: ast.AST) -> bool:
    """The condition holds for other classes than the ones it names."""
    parts = test.values if isinstance(test, ast.BoolOp) else [test]
    return any(isinstance(part, ast.UnaryOp) and isinstance(part.op, ast.Not) and _checked(part) for part in parts)


def _foreign(branch: ast.If) -> tuple[list[str], list[ast.stmt], list[ast.If]]:
    """The classes that an if with its elifs names, what runs for any other, and the elifs."""
    names, elifs, rest = _checked(branch.test), [], branch.orelse
    if _denied(branch.test):
        return names, branch.body, []
    while len(rest) == 1 and isinstance(rest[0], ast.If) and (more := _checked(rest[0].test)):
        names, elifs = names + more, [*elifs, rest[0]]
        rest = rest[0].body if _denied(rest[0].test) else rest[0].orelse
    return names, rest, elifs


def class_checks(code: Code) -> Iterator[Use]:
    """Where the class of a scheduler matters."""
    seen: list[ast.AST] = []
    for node in ast.walk(code.node):  # an if comes before its elifs
        if isinstance(node, ast.Assert) and (names := _checked(node.test)):
            yield Use("raises", " or ".join(names), Place(code.path, node.lineno), code)
        if isinstance(node, ast.If) and node not in seen and _checked(node.test):
            names, statements, elifs = _foreign(node)
            seen += elifs
            kind, line = "branches", node.lineno
            for statement in statements:
                if isinstance(statement, ast.Raise):
                    kind, line = "raises", statement.lineno
                elif isinstance(statement, ast.Assign) and is_scheduler(statement.targets[0]):
                    kind, line = "replaces", statement.lineno
            yield Use(kind, " or ".join(dict.fromkeys(names)), Place(code.path, line), code)
        if (
            isinstance(node, ast.Assign)
            and code.node.name == "__init__"
            and node in code.node.body
            and is_scheduler(node.targets[0])
            and isinstance(node.value, ast.Call)
            and ast.unparse(node.value.func).endswith("Scheduler.from_config")
        ):
            name = ast.unparse(node.value.func).removesuffix(".from_config")
            yield Use("replaces", name, Place(code.path, node.lineno), code)


def _own_branches(function: Function) -> set[ast.AST]:
    """All nodes that run for the native classes only."""
    found: set[ast.AST] = set()
    for node in ast.walk(function):
        if not isinstance(node, (ast.If, ast.IfExp)) or not _checked(node.test):
            continue
        bodies = node.orelse if _denied(node.test) else node.body
        for statement in bodies if isinstance(bodies, list) else [bodies]:
            found.update(ast.walk(statement))
    return found


def asked_for(codes: list[Code]) -> set[str]:
    """Attributes that are looked up before they are used: hasattr and getattr with a default."""
    return {
        str(node.args[1].value)
        for code in codes
        for node in ast.walk(code.node)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("hasattr", "getattr")
        and len(node.args) > 1
        and isinstance(node.args[1], ast.Constant)
    }


def missing(code: Code, surface: Mapping[str, list[str] | None], optional: set[str]) -> Iterator[Use]:
    """Attributes and keywords that a scheduler with this surface lacks.

    Args:
        surface: Names of attributes; for a method its parameters, without self.
        optional: Attributes that the pipeline can do without.
    """
    native_only = _own_branches(code.node)
    for node in ast.walk(code.node):
        if node in native_only:
            continue
        read = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and is_scheduler(node.value)
        if read and node.attr not in surface and node.attr not in optional:
            yield Use("lacks", f"scheduler.{node.attr}", Place(code.path, node.lineno), code)
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Attribute) and is_scheduler(node.func.value):
            method, given = node.func.attr, [keyword.arg for keyword in node.keywords]
            parameters = surface.get(method)
            if parameters is None:
                continue
            if len(node.args) > len(parameters) or (method == "step" and len(node.args) > 3):
                yield Use("lacks", f"{method}() with {len(node.args)} values", Place(code.path, node.lineno), code)
        elif ast.unparse(node.func) == "retrieve_timesteps":  # hands further keywords on
            own = ("scheduler", "num_inference_steps", "timesteps", "sigmas", "device")
            method, given = "set_timesteps", [k.arg for k in node.keywords if k.arg not in own]
            parameters = surface.get(method) or []
        else:
            continue
        for name in given:
            if name is not None and name not in parameters:
                yield Use("lacks", f"{method}({name}=)", Place(code.path, node.lineno), code)
