"""Every hook is documented by a whole plugin; it is run here, and what it registers is proven."""

from __future__ import annotations

import inspect
import re
import sys
import types
from pathlib import Path

import pytest

import solverkit as sk
from solverkit.bench.suite_file import load_suite
from solverkit.registry import hookspecs
from solverkit.registry.registry import KINDS, build_registry

DOCS = Path(__file__).parents[1] / "docs"
TEXT = (DOCS / "hooks.md").read_text(encoding="utf-8")
HOOKS = [name for name, value in vars(hookspecs).items() if name.startswith("register_") and callable(value)]
SECTIONS = dict(re.findall(r"^## (\w+)\(register\)\n(.*?)(?=^## |\Z)", TEXT, flags=re.S | re.M))


def example(hook):
    """The registry of the hook's plugin alone. It is a module, so that what it holds can be pickled."""
    module = sys.modules[f"example_of_{hook}"] = types.ModuleType(f"example_of_{hook}")
    (block,) = re.findall(r"```python\n(.*?)```", SECTIONS[hook], flags=re.S)
    exec(compile(block, f"docs/hooks.md: {hook}", "exec"), vars(module))
    return build_registry({"example": module})


def test_every_hook_is_documented_with_its_arguments():
    assert HOOKS == list(SECTIONS) == [f"register_{kind}" for kind in KINDS]
    assert all(list(inspect.signature(getattr(hookspecs, hook)).parameters) == ["register"] for hook in HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_the_example_registers_what_passes_its_checks(hook):
    registry, kind = example(hook), hook.removeprefix("register_")
    assert not registry.failed
    (card,) = registry.cards[kind].values()
    if kind == "tasks":
        suite = load_suite(card.fn())
        assert (suite.name, suite.nfe) == ("my-suite", (6,))
        return
    if kind == "samplers":  # Euler has all proofs in test_samplers.py
        for check in sk.testing.CHECKS[:3]:
            check(card, {})
        return
    results = sk.testing.check_card(card)
    assert len(results) == len(sk.testing.checks_of(card))
    assert [result for result in results if not result.passed] == []


@pytest.mark.parametrize(
    ("hook", "checks"),
    [
        ("register_decoders", sk.testing.TOKEN_CHECKS),
        ("register_grids", sk.testing.GRID_CHECKS),
        ("register_models", sk.testing.MODEL_CHECKS),
        ("register_metrics", sk.testing.METRIC_CHECKS),
    ],
)
def test_the_checks_have_the_names_of_the_documentation(hook, checks):
    assert re.findall(r"^\| `(\w+)` \|", SECTIONS[hook], re.M) == [sk.testing.check_name(check) for check in checks]
