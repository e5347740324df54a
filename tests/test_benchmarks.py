"""The measurements of the checkout: suites that can be run, tables that are what the rows say."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from solverkit.bench.runner import check_suite
from solverkit.bench.suite_file import load_suite

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
SUITES = sorted((ROOT / "benchmarks" / "suites").glob("*.toml"))


@pytest.fixture(scope="module")
def tables():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module("tables")
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_suites_name_what_exists(path):
    suite = load_suite(path)
    cells = list(suite.cells())
    check_suite(suite, cells)
    assert len({(c.model.name, c.sampler, str(c.options), c.cache, c.grid, c.nfe) for c in cells}) == len(cells)


def test_every_table_has_one_place(tables):
    pages = "".join(path.read_text(encoding="utf-8") for path in PAGES)
    for name in tables.TABLES:
        assert pages.count(f"<!-- table: {name} -->\n") == 1, name


@pytest.mark.parametrize(
    "name",
    [
        "measured", "readme", "metrics", "default-mnist", "default-mnist-flow", "default-mixture", "stability",
        "lml-momentum",
        "lml-distances", "pc-mixtures", "score-digits",
    ],
)  # fmt: skip
def test_pages_say_what_the_rows_say(tables, name):
    made = tables.TABLES[name](tables.RESULTS)
    assert any(f"<!-- table: {name} -->\n{made}" in path.read_text(encoding="utf-8") for path in PAGES)


def test_a_table_is_put_in_its_place(tables):
    page = "before\n<!-- table: a -->\n| old |\n|---|\n| 1 |\n\nafter\n<!-- table: b -->\nend\n"
    text, found = tables.replaced(page, {"a": "| new |\n|---|\n", "b": "| b |\n", "c": "| c |\n"})
    assert text == "before\n<!-- table: a -->\n| new |\n|---|\n\nafter\n<!-- table: b -->\n| b |\nend\n"
    assert found == ["a", "b"]
    assert tables.replaced(text, {"a": "| new |\n|---|\n"}) == (text, ["a"])
