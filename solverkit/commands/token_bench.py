"""`solverkit bench --suite tokens`: decoders on `markov` and `shakespeare`, quality against counted rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OptionError
from .report import show_rows

if TYPE_CHECKING:
    from ..bench.suite import Suite


def token_plan(refused: Mapping[str, Any], **asked: Any) -> Suite:
    """The suite of decoders.

    Args:
        refused: Options of the command that belong to continuous models, and what was given.
        asked: As for `bench.token_suite.token_suite`.

    Raises:
        OptionError: one of `refused` was given; as `token_suite`.
        UnknownNameError: as `token_suite`.
    """
    for name, value in refused.items():
        if value:
            raise OptionError(f"{name} is for suites of continuous models; --suite tokens has its own cells.")
    from ..bench.token_suite import token_suite

    return token_suite(**asked)


def show_front(rows: Sequence[dict[str, Any]], picture: Path | None) -> None:
    """The tables, and the front of each model as a figure where `picture` says."""
    from ..bench.token_front import front_rows, write_front

    show_rows(list(rows), None, None)
    if picture is not None and (drawn := front_rows(rows)):
        write_front(drawn, picture)
