"""`solverkit samplers|decoders|grids|models|metrics|plugins`: what is installed."""

from __future__ import annotations

from typing import Any

import typer

from ..errors import PluginError
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


def samplers(as_json: bool = JSON) -> None:
    """List the samplers: order, options, source, plugin."""
    from ..registry.catalogue import samplers

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


def grids(as_json: bool = JSON) -> None:
    """List the grids: how the noise levels of a run are laid out."""
    from ..registry.catalogue import grids

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
    """List the plugins: what each one registers, which names clash, and those that failed to import."""
    import os

    from ..registry.registry import ENVIRONMENT, load_plugins

    modules, failed = load_plugins(os.environ.get(ENVIRONMENT))
    records = [_plugin(name, module) for name, module in modules.items()]
    for record in records:
        if clashes := _clashes(record, records):
            record["status"] = f"clash: {'; '.join(clashes)}. Restrict what is loaded with {ENVIRONMENT}=name,name."
    records += [{"name": name, "module": "", "status": f"failed: {reason}"} for name, reason in failed]
    if as_json:
        return print_json(records)
    rows = []
    for record in records:
        offers = [f"{len(v)} {kind}" for kind, v in record.items() if isinstance(v, list)]
        rows.append((record["name"], record["module"], ", ".join(offers), record["status"]))
    print_table("plugins", ("name", "module", "registers", "status"), rows)


def _plugin(name: str, module: Any) -> dict[str, Any]:
    """One plugin as if it were the only one, so that a fault or a clash of names costs the table nothing."""
    from ..registry.registry import build_registry

    record: dict[str, Any] = {"name": name, "module": getattr(module, "__name__", repr(module)), "status": "ok"}
    try:
        alone = build_registry({name: module})
    except PluginError as error:
        return {**record, "status": f"failed: {error}"}
    record |= {kind: list(cards) for kind, cards in alone.cards.items() if cards}
    return record if not alone.failed else {**record, "status": f"failed: {alone.failed[0][1]}"}


def _clashes(record: dict[str, Any], records: list[dict[str, Any]]) -> list[str]:
    found = []
    for other in records:
        for kind, names in record.items():
            if other is not record and isinstance(names, list):
                shared = [name for name in names if name in other.get(kind, ())]
                found += [f"the {kind[:-1]} {name!r} is {other['name']}'s too" for name in shared]
    return found


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
