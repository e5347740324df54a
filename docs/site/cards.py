"""Solver cards: a page a plugin, with its README, a card of each of its samplers from the registry, and their plans."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import matplotlib

import solverkit as sk
from solverkit.errors import SolverKitError
from solverkit.registry.bibliography import citations
from solverkit.run.choose import choose_grid

matplotlib.rcParams["svg.hashsalt"] = "solverkit"  # the same file whenever it is made

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
    index = ["# Samplers", "", "Every registered sampler, by the plugin that brings it. Order: none means that the method is stochastic or"]
    index += ["chooses its steps; NFE: evaluations of six steps on a VP schedule.", ""]
    index += ["| sampler | order | NFE | source | plugin |", "|---|---|---|---|---|"]
    nav: list[Any] = ["samplers/index.md"]
    for plugin, found in sorted(families.items()):
        text = re.sub(r"\]\(\.\./\.\./docs/", "](../", (PLUGINS / plugin / "README.md").read_text(encoding="utf-8"))
        lines = [text, "", "## Cards", ""]
        for card in found:
            facts, shown = _card(card, folder)
            index.append(f"| [`{card.name}`]({plugin}.md#{plugin}-{card.name}) | {facts['order']} | {facts['six steps']} | {card.reference} | {plugin} |")
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
    lines = [f"### {card.name} {{ #{card.plugin}-{card.name} }}", "", _docstring(card), ""]
    lines += ["| | |", "|---|---|", f"| order | {facts['order']} |", f"| evaluations of six steps | {facts['six steps']} |"]
    lines += [f"| source | {card.reference} |"]
    lines += [f"| option `{name}` | {_default(card, name)} |" for name in card.options]
    lines.append("")
    if picture:
        lines += [f"![The plan of {card.name} at {NFE} evaluations]({picture}){{ .plan }}", ""]
    elif note:
        lines += [f"No plan to show: {note}", ""]
    lines += ["??? quote \"BibTeX\"", "", "    ```bibtex", *(f"    {line}" for line in "\n\n".join(citations(card)).split("\n")), "    ```", ""]
    return facts, lines


def _plan(card: Any, **budget: int) -> Any:
    options = card.check({}) if card.prepare is None or card.required == [] else card.check(card.variants[0] if card.variants else {})
    if not card.traceable:
        raise SolverKitError("it chooses its steps while it runs.")
    return sk.trace(card.name, choose_grid(card, VP, budget.get("nfe"), budget.get("steps"), None, None, options), **options)


def _default(card: Any, name: str) -> str:
    return f"`{card.defaults[name]!r}`" if name in card.defaults else "required"


def _docstring(card: Any) -> str:
    """The docstring up to its arguments; formulas that are indented stay so."""
    return (inspect.getdoc(card.fn) or "").partition("\nArgs:")[0].partition("\nRaises:")[0].strip()
