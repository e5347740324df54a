"""Solver cards: a page a plugin, with its README, a card of each of its samplers from the registry, and their plans."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import matplotlib

import solverkit as sk
from solverkit.errors import OptionError, SolverKitError
from solverkit.registry.bibliography import citations
from solverkit.run.choose import choose_grid

matplotlib.rcParams["svg.hashsalt"] = "solverkit"  # the same file whenever it is made
matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text

PLUGINS = Path(__file__).parents[2] / "plugins"
NFE = 6
VP = sk.VP()


def write(folder: Path) -> list[Any]:
    """Write the pages and pictures; their entries of the navigation."""
    folder.mkdir(parents=True)
    families: dict[str, list[Any]] = {}
    for kind in (sk.samplers(), sk.decoders()):
        for card in kind.values():
            if (PLUGINS / card.plugin).is_dir() and card.plugin != "example":
                families.setdefault(card.plugin, []).append(card)
    index = [
        "# Samplers", "",
        "Every registered sampler, by the plugin that brings it. Order: none means that the method is stochastic, chooses",
        "its steps while it runs, or hangs on what it is given; NFE: evaluations of six steps on a VP schedule.", "",
        "| sampler | order | NFE | source | plugin |", "|---|---|---|---|---|",
    ]  # fmt: skip
    nav: list[Any] = ["samplers/index.md"]
    for plugin, found in sorted(families.items()):
        text = re.sub(r"\]\(\.\./\.\./docs/", "](../", (PLUGINS / plugin / "README.md").read_text(encoding="utf-8"))
        lines = [text, "", "## Cards", ""]
        for card in found:
            facts, shown = _card(card, folder)
            link = f"[`{card.name}`]({plugin}.md#{plugin}-{card.name})"
            index.append(f"| {link} | {facts['order']} | {facts['six steps']} | {card.reference} | {plugin} |")
            lines += shown
        (folder / f"{plugin}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        nav.append({plugin.replace("_", " "): f"samplers/{plugin}.md"})
    (folder / "index.md").write_text("\n".join(index) + "\n", encoding="utf-8")
    return nav


def _card(card: Any, folder: Path) -> tuple[dict[str, str], list[str]]:
    """What the index says of a card, and its section."""
    facts = {"order": "none", "six steps": "-"}
    picture, note = "", ""
    if hasattr(card, "order_of"):
        order = card.order_of({})
        facts["order"] = "none" if order is None else str(order)
        try:
            plan = _plan(card, steps=NFE)
            facts["six steps"] = str(plan.nfe)
            picture = f"{card.name}.svg"
            _plan(card, nfe=NFE).plot().savefig(folder / picture)
        except SolverKitError as error:
            note = str(error)
    elif hasattr(card, "said"):
        order = card.said("order", {})
        facts["order"] = "none" if order is None else f"{order}, in law"
    options = ", ".join(f"`{n}={card.defaults[n]!r}`" if n in card.defaults else f"`{n}`" for n in card.options)
    lines = [f"### {card.name} {{ #{card.plugin}-{card.name} }}", "", _docstring(card), ""]
    lines += [f"* Order: {facts['order']}. Evaluations of six steps: {facts['six steps']}.", f"* Source: {card.reference}."]
    lines += [f"* Options: {options or 'none'}.", ""]
    if picture:
        lines += [f"![The plan of {card.name} at {NFE} evaluations]({picture}){{ .plan }}", ""]
    elif note:
        lines += [f"No plan to show: {note}", ""]
    bibtex = "\n\n".join(citations(card)).split("\n")
    lines += ['??? quote "BibTeX"', "", "    ```bibtex", *(f"    {line}" for line in bibtex), "    ```", ""]
    return facts, lines


def _plan(card: Any, **budget: int) -> Any:
    """A plan on the VP schedule, at the card's defaults, or at its first variant where an option is required."""
    if not card.traceable:
        raise OptionError("it chooses its steps while it runs.")
    options = card.check(card.variants[0] if card.required and card.variants else {})
    grid = choose_grid(card, VP, budget.get("nfe"), budget.get("steps"), None, None, options)
    return sk.trace(card.name, grid, **options)


def _docstring(card: Any) -> str:
    """The docstring up to its arguments; formulas that are indented stay so."""
    return (inspect.getdoc(card.fn) or "").partition("\nArgs:")[0].partition("\nRaises:")[0].strip()
