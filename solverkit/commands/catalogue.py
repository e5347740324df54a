"""`solverkit samplers|decoders|grids|models|metrics|plugins`: what is installed."""

from __future__ import annotations

from typing import Any

import typer

from .console import print_json, print_table
from .parameters import JSON


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("samplers")(samplers)
    app.command("decoders")(decoders)
    app.command("grids")(grids)
    app.command("models")(models)
    app.command("metrics")(metrics)
    app.command("plugins")(plugins)


ALIASES = typer.Option(False, "--aliases", help="Names from elsewhere instead: what they mean here, or what to write.")


def samplers(as_json: bool = JSON, aliases: bool = ALIASES) -> None:
    """List the samplers: order, options, source, plugin."""
    from ..registry.catalogue import samplers

    if aliases:
        return _aliases("samplers", as_json)

    cards = samplers().values()
    if as_json:
        extra = [{"order": card.order_of({}), "traceable": card.traceable, "grid": card.grid} for card in cards]
        return print_json([{**_record(card), **more} for card, more in zip(cards, extra)])
    rows = []
    for card in cards:
        order = "-" if card.order_of({}) is None else str(card.order_of({}))
        order = order if card.traceable else "its solver's" if card.takes_budget else f"{order} adaptive"
        rows.append((card.name, order, _options(card), card.reference, card.plugin))
    print_table("samplers", ("name", "order", "options", "source", "plugin"), rows)


def decoders(as_json: bool = JSON) -> None:
    """List the decoders (samplers of token models): noise, order of their law, where it is exact, options, source."""
    from ..registry.catalogue import decoders

    cards = decoders().values()
    said = [{k: card.said(k, {}) for k in ("order", "exact", "biased")} for card in cards]
    if as_json:
        return print_json([{**_record(card), "process": card.process, **more} for card, more in zip(cards, said)])
    rows = [
        (card.name, card.process, "-" if s["order"] is None else str(s["order"]),
         "biased" if s["biased"] else s["exact"] or "-", _options(card), card.reference, card.plugin)
        for card, s in zip(cards, said)
    ]  # fmt: skip
    print_table("decoders", ("name", "noise", "order", "law", "options", "source", "plugin"), rows)


def grids(as_json: bool = JSON, aliases: bool = ALIASES) -> None:
    """List the grids: how the noise levels of a run are laid out."""
    from ..registry.catalogue import grids

    if aliases:
        return _aliases("grids", as_json)

    _list("grids", grids().values(), as_json)


def models(as_json: bool = JSON) -> None:
    """List the models: bundled networks and exact targets."""
    from ..registry.catalogue import models

    _list("models", models().values(), as_json)


def metrics(as_json: bool = JSON) -> None:
    """List the metrics of a bench: unit, which way is better, the least number of samples, source."""
    from ..registry.catalogue import metrics

    cards = metrics().values()
    if as_json:
        fields = ("unit", "lower_is_better", "to_floor", "min_samples", "statistic")
        return print_json([{**_record(card), **{name: getattr(card, name) for name in fields}} for card in cards])
    rows = [
        (card.name, card.summary, card.unit, card.better, str(card.min_samples), card.reference, card.plugin)
        for card in cards
    ]
    print_table("metrics", ("name", "what", "unit", "better", "least samples", "source", "plugin"), rows)


def plugins(as_json: bool = JSON) -> None:
    """List the plugins: where each is from, its version, what it registers, and what is wrong with it."""
    import os
    import warnings

    from ..errors import PluginWarning
    from ..registry.registry import ENVIRONMENT, build_registry, installed, load_plugins

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)  # it stands in the table
        modules, failed = load_plugins(os.environ.get(ENVIRONMENT))
        registry = build_registry(modules)
        entries = {entry.name: entry for entry in reversed(installed()[0])}
    records: list[dict[str, Any]] = []
    for name in dict.fromkeys([*modules, *(name for name, _ in failed)]):
        own = {kind: [c.name for c in cards.values() if c.plugin == name] for kind, cards in registry.cards.items()}
        offers = {kind: names for kind, names in own.items() if names}
        wrong = [what for plugin, what in (*failed, *registry.failed) if plugin == name]
        status = "; ".join(f"failed: {what}" for what in wrong) or "ok"
        records.append({"name": name, **_from(modules.get(name), entries.get(name)), **offers, "status": status})
    if as_json:
        return print_json(records)
    rows = []
    for record in records:
        counts = [f"{len(v)} {kind}" for kind, v in record.items() if isinstance(v, list)]
        package = " ".join(filter(None, (record["distribution"], record["version"])))
        rows.append((record["name"], package, record["path"] or record["module"], ", ".join(counts), record["status"]))
    print_table("plugins", ("name", "package", "path", "registers", "status"), rows)


def _from(module: Any, entry: Any) -> dict[str, str]:
    """The module of a plugin, its file, and the distribution that brought it, with its version."""
    from .. import __version__

    package = getattr(entry, "dist", None)
    distribution, version = (package.name, package.version) if package is not None else ("", "")
    if entry is None and module is not None:  # what the core registers
        distribution, version = "solverkit", __version__
    name = getattr(entry, "value", "") if module is None else getattr(module, "__name__", repr(module))
    return {
        "module": name, "path": getattr(module, "__file__", None) or "", "distribution": distribution, "version": version,
    }  # fmt: skip


def _aliases(kind: str, as_json: bool) -> None:
    from ..registry.aliases import OF_KIND

    known = OF_KIND[kind]
    if as_json:
        return print_json([{"name": name, **alias._asdict()} for name, alias in known.items()])
    rows = [(name, alias.of, alias.means or "-", alias.instead) for name, alias in known.items()]
    print_table(f"{kind} by the names of others", ("name", "of", "means here", "what to write"), rows)


def _list(title: str, cards: Any, as_json: bool) -> None:
    if as_json:
        return print_json([_record(card) for card in cards])
    rows = [(card.name, card.summary, _options(card), card.plugin) for card in cards]
    print_table(title, ("name", "what", "options", "plugin"), rows)


def _record(card: Any) -> dict[str, Any]:
    return {
        "name": card.name,
        "summary": card.summary,
        "options": card.defaults,
        "reference": card.reference,
        "plugin": card.plugin,
    }


def _options(card: Any) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in card.defaults.items())
