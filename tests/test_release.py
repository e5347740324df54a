"""What a release says of itself: one version, a changelog, a citation, and a wheel of what belongs in it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import yaml

import solverkit

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_one_version():
    assert solverkit.__version__ == PROJECT["project"]["version"] == CITATION["version"]
    assert CITATION["cff-version"] == "1.2.0" and {"message", "title", "authors"} <= set(CITATION)
    assert CITATION["license"] == PROJECT["project"]["license"]["text"]


def test_the_changelog():
    """Unreleased comes first, versions fall, and no heading is empty."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heads = re.findall(r"^## (.*)$", text, flags=re.M)
    assert heads[0] == "Unreleased"
    versions = [tuple(map(int, re.match(r"\[?(\d+)\.(\d+)\.(\d+)", head).groups())) for head in heads[1:]]
    assert versions == sorted(versions, reverse=True)
    for part in re.split(r"^#+ .*$", text.split("## Unreleased", 1)[1], flags=re.M)[2:]:
        assert part.strip(), "an empty heading"


def test_data_files_of_the_wheel_are_there():
    package = ROOT / "solverkit"
    for pattern in PROJECT["tool"]["setuptools"]["package-data"]["solverkit"]:
        assert list(package.glob(pattern)), pattern


def test_every_package_is_in_the_wheel():
    """The list in pyproject.toml is written by hand; a room that it leaves out would be missing for users alone."""
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    inits = (ROOT / "solverkit").rglob("__init__.py")
    rooms = [path.parent.relative_to(ROOT) for path in inits if "template" not in path.parts]
    found = {".".join(room.parts) for room in rooms}
    plugins = {f"solverkit_plugins.{path.parent.name}" for path in (ROOT / "plugins").glob("*/__init__.py")}
    assert found | plugins | {"solverkit_plugins"} == listed
