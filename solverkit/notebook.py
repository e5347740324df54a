"""What objects show of themselves in a notebook: plain tables and pictures, escaped, no script."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

MOST = 60  # rows


def html_table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts; of more than 60 rows the first ones, and how many there are."""
    found = list(rows)
    top = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    lines = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in found[:MOST])
    more = f"<p>... {len(found) - MOST} more</p>" if len(found) > MOST else ""
    return f"<table><caption>{html.escape(caption)}</caption><tr>{top}</tr>{lines}</table>{more}"


def html_image(png: bytes, alt: str) -> str:
    """A picture inside the page."""
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
