"""What to cite for a sampler, as BibTeX: entries of references.bib, or those that a plugin's card brings itself."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from ..errors import OptionError, nearest
from .registry import Card

ENTRY = re.compile(r"^@\w+\{([^,\s]+),.*?^\}", flags=re.S | re.M)


@functools.cache
def bibliography() -> dict[str, str]:
    """The entries of references.bib by key."""
    return entries_of(Path(__file__).with_name("references.bib").read_text(encoding="utf-8"))


def entries_of(text: str) -> dict[str, str]:
    """BibTeX entries by key; each ends with a brace at the start of a line."""
    return {found.group(1): found.group(0) for found in ENTRY.finditer(text)}


def citations(card: Card) -> list[str]:
    """The BibTeX entries of a card: those that its `cite` names, or that it is.

    Raises:
        OptionError: it names none, or one that is not in the bibliography.
    """
    if card.cite.lstrip().startswith("@"):
        return list(entries_of(card.cite.strip()).values())
    known = bibliography()
    for key in card.cite.split():
        if key not in known:
            raise OptionError(f"{card.name!r} cites {key!r}, which is not in references.bib.{nearest(key, known)}")
    if not card.cite.split():
        source = f" Its source: {card.reference}." if card.reference else ""
        raise OptionError(f"the card of {card.name!r} says nothing of BibTeX.{source}")
    return [known[key] for key in card.cite.split()]
