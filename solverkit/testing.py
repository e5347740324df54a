"""The conformance kit: what every sampler must prove, a stranger's included.

In a plugin's tests, two lines:

    from solverkit.testing import parametrize_with_checks

    @parametrize_with_checks(["my-sampler"])
    def test_conformance(card, options, check):
        check(card, options)

A check raises AssertionError with the measured figures, and names the process that they were measured on (EDM, VP, Flow).
`check_sampler` runs all of them and returns what happened; what a sampler itself raises is told once, first. A check is
called what its function is called without "check_"; docs/writing-a-sampler.md says what each proves.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .proofs.device import check_device
from .proofs.edits import check_edits
from .proofs.growth import check_growth
from .proofs.law import check_ends, check_law
from .proofs.options import check_options
from .proofs.order import check_order, measured_order, order_grid
from .proofs.parts import check_parts
from .proofs.runs import check_finite, check_independence, check_input_untouched, check_nfe, check_spellings
from .proofs.system import check_system
from .proofs.token_law import check_token_law, check_token_product
from .proofs.token_runs import (
    check_token_cache,
    check_token_independence,
    check_token_input,
    check_token_nfe,
    check_token_options,
    check_token_prompt,
)  # fmt: skip
from .registry.registry import DecoderCard, SamplerCard, registry, resolve
from .registry.spelled import parse_options

__all__ = [
    "CHECKS",
    "TOKEN_CHECKS",
    "CheckResult",
    "check_name",
    "check_sampler",
    "measured_order",
    "option_sets",
    "order_grid",
    "parametrize_with_checks",
]

Check = Callable[[Any, Mapping[str, Any]], None]


class CheckResult(NamedTuple):
    """One check of one option set: did it pass, and if not, the figures."""

    name: str
    passed: bool
    detail: str


CHECKS: tuple[Check, ...] = (
    check_order,
    check_spellings,
    check_nfe,
    check_options,
    check_edits,
    check_independence,
    check_finite,
    check_ends,
    check_law,
    check_parts,
    check_growth,
    check_device,
    check_input_untouched,
    check_system,
)
TOKEN_CHECKS: tuple[Check, ...] = (
    check_token_law, check_token_product, check_token_prompt, check_token_cache, check_token_independence, check_token_nfe,
    check_token_input, check_token_options,
)  # fmt: skip
CORE = Path(__file__).parent


def check_name(check: Check) -> str:
    """What a check is called: in results, in test ids and in the documentation."""
    return check.__name__.removeprefix("check_")


def checks_of(card: SamplerCard | DecoderCard) -> tuple[Check, ...]:
    """What a sampler, or a decoder of tokens, must prove."""
    return TOKEN_CHECKS if isinstance(card, DecoderCard) else CHECKS


def card_of(sampler: str | SamplerCard | DecoderCard | Callable[..., Any]) -> SamplerCard | DecoderCard:
    """The card of a name (a decoder where no sampler is called so), of a card, or of a sampler's function."""
    if isinstance(sampler, DecoderCard):
        return sampler
    decoders, samplers = (registry().cards[kind] for kind in ("decoders", "samplers"))
    if isinstance(sampler, str) and (name := parse_options(sampler)[0]) in decoders and name not in samplers:
        return decoders[name]  # type: ignore[return-value]
    return resolve(sampler)


def option_sets(card: SamplerCard | DecoderCard) -> list[dict[str, Any]]:
    """The defaults and the declared variants; the variants alone where an option has no default."""
    return [*([] if card.required else [{}]), *card.variants]


def check_sampler(sampler: str | SamplerCard | DecoderCard | Callable[..., Any]) -> list[CheckResult]:
    """Run every check on a sampler's defaults and variants.

    Args:
        sampler: A registered name, a card (`sk.decoders()["euler"]` where a sampler has a decoder's name), or a function.

    Returns:
        One result a check and option set; nothing is raised for a failed check. What the sampler itself raises in several
        checks is told in full by the first of them, which comes first; the others say that they could not run.
    """
    card = card_of(sampler)
    results: list[tuple[CheckResult, str | None]] = []
    told: dict[str, str] = {}
    for options in option_sets(card):
        for check in checks_of(card):
            name = f"{check_name(check)} {options or ''}".strip()
            try:
                check(card, options)
                results.append((CheckResult(name, True, ""), None))
            except Exception as error:  # whatever a stranger's sampler raises is a failed check
                cause = None if _is_figure(error) else _cause(error)
                if cause in told:
                    detail = f"could not run: see {told[cause]}"
                else:
                    detail = _detail(error, cause)
                    if cause is not None:
                        told[cause] = name
                results.append((CheckResult(name, False, detail), cause))
    shared = Counter(cause for _, cause in results if cause is not None)
    first = [r for r, cause in results if cause is not None and shared[cause] > 1 and told[cause] == r.name]
    return [*first, *(r for r, _ in results if r not in first)]


def _is_figure(error: Exception) -> bool:
    """Whether a check found something wrong, and not the sampler raised."""
    return isinstance(error, AssertionError) and Path(_frames(error)[-1].filename).is_relative_to(CORE)


def _frames(error: Exception) -> list[traceback.FrameSummary]:
    return list(traceback.extract_tb(error.__traceback__))


def _place(error: Exception) -> str:
    """The innermost line outside solverkit and the libraries below it: the sampler's own."""
    outside = [
        f for f in _frames(error)
        if not Path(f.filename).is_relative_to(CORE) and "site-packages" not in f.filename and "<" not in f.filename
    ]  # fmt: skip
    return f"{Path(outside[-1].filename).name}:{outside[-1].lineno}, in {outside[-1].name}" if outside else ""


def _cause(error: Exception) -> str:
    """What is the same in every check that one mistake breaks."""
    return f"{type(error).__name__} {_place(error) or error}"


def _detail(error: Exception, cause: str | None) -> str:
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", []))
    place = _place(error) if cause is not None else ""
    return f"{type(error).__name__}: {error}{notes}{f' [{place}]' if place else ''}"


def parametrize_with_checks(samplers: Iterable[str | SamplerCard | DecoderCard | Callable[..., Any]]) -> Any:
    """A pytest decorator: the test gets (card, options, check) for each sampler, option set and check."""
    import pytest

    cards = [card_of(s) for s in samplers]
    cases = [
        pytest.param(card, options, check, id=f"{card.name}-{_label(options)}{check_name(check)}")
        for card in cards
        for options in option_sets(card)
        for check in checks_of(card)
    ]
    return pytest.mark.parametrize(("card", "options", "check"), cases)


def _label(options: Mapping[str, Any]) -> str:
    return "".join(f"{k}={v}-" for k, v in options.items())
