"""Levels that somebody chose for a network: published tables, and files."""

from __future__ import annotations

from collections.abc import Callable

import solverkit as sk

from .ays import ays
from .file import from_file


@sk.hookimpl
def register_grids(register: Callable[..., None]) -> None:
    register("ays", ays, reference="Sabour et al. 2024, arXiv 2404.14507, tables for 10 steps")
    register("levels", from_file, reference="sk.choose_levels")
