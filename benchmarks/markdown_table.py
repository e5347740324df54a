"""Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table with a line feed at its end; the first column may have an empty head."""
    ruler = "|" + "---|" * len(head) + "\n"
    first, *rest = ("|" + "".join(f" {cell} |" if cell else " |" for cell in row) + "\n" for row in (head, *lines))
    return first + ruler + "".join(rest)


def short(value: float, digits: int = 2) -> str:
    """Without the leading zero: .93, 1.10."""
    text = f"{value:.{digits}f}" if value < 10 else f"{value:.0f}"
    return text.removeprefix("0") if text.startswith("0.") else text
