"""`solverkit cite SAMPLER`: what to cite, as BibTeX."""

from __future__ import annotations

import typer

NAMES = typer.Argument(None, help="Samplers or decoders; none: solverkit itself.", metavar="[SAMPLER]...")


def cite(
    names: list[str] | None = NAMES,
) -> None:
    """Print BibTeX of the publications that samplers are from."""
    from ..errors import UnknownNameError
    from ..registry.bibliography import bibliography, citations
    from ..registry.registry import registry
    from ..registry.spelled import parse_options

    kinds = {"": registry().cards["samplers"], " (decoder of tokens)": registry().cards["decoders"]}
    lines: list[str] = []
    for name in names or []:
        bare = parse_options(name)[0]
        cards = {f"{bare}{kind}": found[bare] for kind, found in kinds.items() if bare in found}
        if not cards:
            raise UnknownNameError("sampler", bare, {name for found in kinds.values() for name in found})
        for title, card in cards.items():
            lines += [f"% {title}", *citations(card)]
    print("\n".join(dict.fromkeys(lines or [bibliography()["solverkit"]])))
