"""The conformance kit: what every sampler must prove, a stranger's included.

In a plugin's tests, two lines:

    from solverkit.testing import parametrize_with_checks

    @parametrize_with_checks(["my-sampler"])
    def test_conformance(card, options, check):
        check(card, options)

A check raises AssertionError with the measured figures. `check_sampler` runs all of them and returns what happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .proofs.edits import check_edits
from .proofs.law import check_ends, check_law
from .proofs.options import check_options
from .proofs.order import check_order, measured_order, order_grid
from .proofs.runs import check_finite, check_independence, check_input_untouched, check_nfe, check_spellings
from .registry.registry import SamplerCard, resolve

__all__ = [
    "CHECKS",
    "CheckResult",
    "check_sampler",
    "measured_order",
    "option_sets",
    "order_grid",
    "parametrize_with_checks",
]

Check = Callable[[SamplerCard, Mapping[str, Any]], None]


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
    check_input_untouched,
)


def option_sets(card: SamplerCard) -> list[dict[str, Any]]:
    """The defaults and the declared variants; the variants alone where an option has no default."""
    return [*([] if card.required else [{}]), *card.variants]


def check_sampler(sampler: str | SamplerCard | Callable[..., Any]) -> list[CheckResult]:
    """Run every check on a sampler's defaults and variants.

    Args:
        sampler: A registered name, a card, or a function.

    Returns:
        One result a check and option set; nothing is raised for a failed check.
    """
    card = resolve(sampler)
    results = []
    for options in option_sets(card):
        for check in CHECKS:
            name = f"{check.__name__.removeprefix('check_')} {options or ''}".strip()
            try:
                check(card, options)
                results.append(CheckResult(name, True, ""))
            except Exception as error:  # whatever a stranger's sampler raises is a failed check
                results.append(CheckResult(name, False, f"{type(error).__name__}: {error}"))
    return results


def parametrize_with_checks(samplers: Iterable[str | SamplerCard | Callable[..., Any]]) -> Any:
    """A pytest decorator: the test gets (card, options, check) for each sampler, option set and check."""
    import pytest

    cards: Sequence[SamplerCard] = [resolve(s) for s in samplers]
    cases = [
        pytest.param(card, options, check, id=f"{card.name}-{_label(options)}{check.__name__.removeprefix('check_')}")
        for card in cards
        for options in option_sets(card)
        for check in CHECKS
    ]
    return pytest.mark.parametrize(("card", "options", "check"), cases)


def _label(options: Mapping[str, Any]) -> str:
    return "".join(f"{k}={v}-" for k, v in options.items())
