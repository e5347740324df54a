"""The tables of docs/ that rest on rows of benchmarks/results: print them, or put them in their places.

    python benchmarks/tables.py                     # all of them
    python benchmarks/tables.py teleportation       # those whose names begin so
    python benchmarks/tables.py --write             # into README.md and docs/*.md

A table's place in a page is the line <!-- table: NAME --> right above it. Nothing in such a table is typed by hand.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

import table_aliases
import table_caching
import table_few_step
import table_imputation
import table_inverse
import table_lml
import table_parallel
import table_score
import table_statistics
import table_suite
import table_teleportation
import table_tune
import truth

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TABLES: dict[str, Callable[[Path], str]] = {
    **table_suite.TABLES, **table_teleportation.TABLES, **table_lml.TABLES, **table_score.TABLES, **table_tune.TABLES,
    **table_caching.TABLES, **table_statistics.TABLES, **table_inverse.TABLES, **table_imputation.TABLES,
    **table_few_step.TABLES, **table_parallel.TABLES, **table_aliases.TABLES, **truth.TABLES,
}  # fmt: skip


def replaced(text: str, made: dict[str, str]) -> tuple[str, list[str]]:
    """A page with the tables that it has places for, and the names of those."""
    found = []
    for name, table in made.items():
        place = re.compile(rf"(<!-- table: {re.escape(name)} -->\n)(?:\|[^\n]*\n)*")
        if place.search(text):
            text, found = place.sub(lambda match, table=table: match[1] + table, text), [*found, name]
    return text, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="beginnings of names; default: all")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--write", action="store_true", help="put them into README.md and docs/*.md")
    arguments = parser.parse_args()
    chosen = [name for name in TABLES if not arguments.names or name.startswith(tuple(arguments.names))]
    made, missing = {}, []
    for name in chosen:
        try:
            made[name] = TABLES[name](arguments.results)
        except (KeyError, IndexError, ValueError, OSError, StopIteration) as error:  # rows that are not measured yet
            missing.append(name)
            print(f"{name}: rows are missing ({type(error).__name__}: {error})", file=sys.stderr)
    if not arguments.write:
        for name, table in made.items():
            print(f"<!-- table: {name} -->\n{table}")
        sys.exit(bool(missing))
    placed: set[str] = set()
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text, found = replaced(page.read_text(encoding="utf-8"), made)
        page.write_text(text, encoding="utf-8")
        placed.update(found)
    for name in made.keys() - placed:
        missing.append(name)
        print(f"{name}: no page has a place for it (<!-- table: {name} -->)", file=sys.stderr)
    sys.exit(bool(missing))


if __name__ == "__main__":
    main()
