"""Solver cards: a page a plugin, with its README and a card of each of its samplers, from the registry."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import solverkit as sk

PLUGINS = Path(__file__).parents[2] / "plugins"


def write(folder: Path) -> list[Any]:
    """Write the pages; their entries of the navigation."""
    folder.mkdir(parents=True)
    families: dict[str, list[Any]] = {}
    for card in sk.samplers().values():
        families.setdefault(card.plugin, []).append(card)
    for plugin, found in families.items():
        readme = PLUGINS / plugin / "README.md"
        text = re.sub(r"\]\(\.\./\.\./docs/", "](../", readme.read_text(encoding="utf-8"))
        text += "\n".join(f"\n## {card.name}\n" for card in found)
        (folder / f"{plugin}.md").write_text(text, encoding="utf-8")
    index = ["# Samplers", ""] + [f"* [{plugin}]({plugin}.md)" for plugin in families]
    (folder / "index.md").write_text("\n".join(index) + "\n", encoding="utf-8")
    return ["samplers/index.md", *({plugin: f"samplers/{plugin}.md"} for plugin in families)]
