"""The conformance kit: what everything that a plugin registers must prove, a stranger's included.

In a plugin's tests, two lines:

    from solverkit.testing import parametrize_with_checks

    @parametrize_with_checks(["my-sampler"])
    def test_conformance(card, options, check):
        check(card, options)

A check raises `CheckError` (an AssertionError) with the measured figures and what usually causes them, and names the
process that they were measured on (EDM, VP, Flow). `check_sampler`, `check_decoder`, `check_grid`, `check_model` and
`check_metric` run all checks of their kind and return what happened; what is checked may raise itself, which is told once,
first. A check is called what its function is called without "check_"; docs/writing-a-sampler.md and docs/hooks.md say what
each proves.
"""

from __future__ import annotations

import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .bench.metric_proofs import METRIC_CHECKS
from .errors import NonFiniteError, OptionError, SolverKitError, TraceError, UnknownNameError
from .proofs.device import check_device
from .proofs.edits import check_edits
from .proofs.finding import CheckError, findings, nearest_to_its_limit
from .proofs.grid import GRID_CHECKS
from .proofs.growth import check_growth
from .proofs.law import check_ends, check_law
from .proofs.model import MODEL_CHECKS
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
from .registry.find import PROVEN, find_card, kinds_of
from .registry.registry import CARDS, Card, DecoderCard, GridCard, MetricCard, ModelCard, SamplerCard, resolve

__all__ = [
    "CHECKS",
    "GRID_CHECKS",
    "METRIC_CHECKS",
    "MODEL_CHECKS",
    "TOKEN_CHECKS",
    "CheckError",
    "CheckResult",
    "check_card",
    "check_decoder",
    "check_foreign",
    "check_grid",
    "check_metric",
    "check_model",
    "check_name",
    "check_sampler",
    "measured_order",
    "option_sets",
    "order_grid",
    "parametrize_with_checks",
]

Check = Callable[[Any, Mapping[str, Any]], str | None]  # a sentence where there was nothing to measure


class CheckResult(NamedTuple):
    """One check of one option set.

    Attributes:
        name: Of the check, with the options where there are any.
        passed: Whether it did.
        detail: What failed, in words; or that there was nothing to measure.
        figure, limit, bound: What was measured, and that it had to be "at most" or "at least" the limit: of a failure, else
            of what was nearest to its limit; None, None and "" where nothing is measured.
        cause: What usually causes such a failure.
    """

    name: str
    passed: bool
    detail: str
    figure: float | None = None
    limit: float | None = None
    bound: str = ""
    cause: str = ""


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


def check_name(check: Callable[..., Any]) -> str:
    """What a check is called: in results, in test ids and in the documentation."""
    return check.__name__.removeprefix("check_")


OF_KIND: dict[type[Card], tuple[Check, ...]] = {
    SamplerCard: CHECKS,
    DecoderCard: TOKEN_CHECKS,
    GridCard: GRID_CHECKS,
    ModelCard: MODEL_CHECKS,
    MetricCard: METRIC_CHECKS,
}
Subject = str | Card | Callable[..., Any]


def checks_of(card: Card) -> tuple[Check, ...]:
    """What a card of that kind must prove."""
    return OF_KIND[type(card)]


def card_of(subject: Subject, kind: str | None = None) -> Card:
    """The card of a registered name, of a card, or of a function.

    Args:
        subject: A name (options may stand behind it), a card, or a function.
        kind: "sampler", "decoder", "grid", "model" or "metric"; of a name that several kinds have and of a function it says
            what is meant: by default a sampler.

    Raises:
        UnknownNameError, OptionError: no such name, or not with these options.
    """
    if kind is not None and kind not in PROVEN:
        raise UnknownNameError("kind", kind, PROVEN)
    if isinstance(subject, str):
        return find_card(subject, kind)
    if isinstance(subject, Card) and type(subject) in (OF_KIND if kind is None else (CARDS[f"{kind}s"][0],)):
        return subject
    if isinstance(subject, Card) or not callable(subject):
        raise OptionError(f"a {kind or 'sampler'} is a name, its card or a function, got a {type(subject).__name__}.")
    name = getattr(subject, "__name__", type(subject).__name__)
    made, skip = CARDS[f"{kind or 'sampler'}s"]
    card = resolve(subject) if made is SamplerCard else made(name, subject, skip=skip)
    try:
        card.validate()
    except (TypeError, ValueError) as error:
        raise OptionError(f"{name} is no {kind or 'sampler'}: {error}.") from None
    return card


def option_sets(card: Card) -> list[dict[str, Any]]:
    """The defaults and the declared variants; the variants alone where an option has no default."""
    return [*([] if card.required else [{}]), *getattr(card, "variants", ())]


def check_sampler(sampler: str | SamplerCard | DecoderCard | Callable[..., Any]) -> list[CheckResult]:
    """Run every check on a sampler's defaults and variants.

    Args:
        sampler: A registered name, a card (`sk.decoders()["euler"]` where a sampler has a decoder's name), or a function.

    Returns:
        One result a check and option set; nothing is raised for a failed check. What the sampler itself raises in several
        checks is told in full by the first of them, which comes first; the others say that they could not run.
    """
    decodes = isinstance(sampler, DecoderCard) or (isinstance(sampler, str) and kinds_of(sampler)[:1] == ["decoder"])
    return check_card(card_of(sampler, "decoder" if decodes else "sampler"))


def check_decoder(decoder: str | DecoderCard | Callable[..., Any]) -> list[CheckResult]:
    """As `check_sampler`, of a decoder: a sampler of token models."""
    return check_card(card_of(decoder, "decoder"))


def check_grid(grid: str | GridCard | Callable[..., Any]) -> list[CheckResult]:
    """As `check_sampler`, of a grid fn(schedule, n, **options)."""
    return check_card(card_of(grid, "grid"))


def check_model(model: str | ModelCard | Callable[..., Any]) -> list[CheckResult]:
    """As `check_sampler`, of a model: its name, card, or a function without arguments that opens it."""
    return check_card(card_of(model, "model"))


def check_metric(metric: str | MetricCard | Callable[..., Any]) -> list[CheckResult]:
    """As `check_sampler`, of a metric fn(run)."""
    return check_card(card_of(metric, "metric"))


def check_foreign(name: str) -> list[CheckResult]:
    """Prove a sampler as another library released it: "diffusers:UniPCMultistep:solver_order=3", "k-diffusion:dpmpp_2m".

    Its order against the one that it says, its law, its evaluations against what it says of them, independence of the batch
    with noise of its own, edits of the state between steps, and finite ends. `detail` has the figure of what passed, too.

    Raises:
        UnknownNameError, OptionError: there is no such sampler or option, or nothing can be proven of it.
    """
    from .foreign.named import foreign
    from .foreign.proofs import PROOFS

    sampler, results = foreign(name), []
    for check in PROOFS:
        with findings() as found, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                detail = check(sampler)
                most = nearest_to_its_limit(found)
                results.append(CheckResult(check_name(check), True, detail, *(most[:3] if most else ())))
            except CheckError as error:
                figures = error.figure, error.limit, error.bound
                results.append(CheckResult(check_name(check), False, str(error), *figures, error.cause))
            except Exception as error:  # released code may raise anything
                results.append(CheckResult(check_name(check), False, f"{type(error).__name__}: {error}"))
    return results


def check_card(card: Card) -> list[CheckResult]:
    """Run every check of a card's kind on its defaults and variants; returns as `check_sampler`.

    Raises:
        OptionError: an option has no default, and no variant names it.
    """
    if not option_sets(card):
        raise OptionError(f"{card.absent(card.required[0])} Write it behind the name, {card.name}:{card.required[0]}=..., "
                          "or give the card `variants`.")  # fmt: skip
    results: list[tuple[CheckResult, str | None]] = []
    told: dict[str, str] = {}
    for options in option_sets(card):
        for check in checks_of(card):
            name = f"{check_name(check)} {options or ''}".strip()
            with findings() as found:
                try:
                    detail = check(card, options) or ""
                    most = nearest_to_its_limit(found)
                    results.append((CheckResult(name, True, detail, *(most[:3] if most else ())), None))
                except CheckError as error:
                    figures = error.figure, error.limit, error.bound
                    results.append((CheckResult(name, False, str(error), *figures, error.cause), None))
                except Exception as error:  # whatever a stranger's code raises is a failed check
                    raised = _raised(error)
                    detail, cause = (f"could not run: see {told[raised]}", "") if raised in told else _told(error)
                    told.setdefault(raised, name)
                    results.append((CheckResult(name, False, detail, cause=cause), raised))
    shared = Counter(raised for _, raised in results if raised is not None)
    first = [r for r, raised in results if raised is not None and shared[raised] > 1 and told[raised] == r.name]
    return [*first, *(r for r, _ in results if r not in first)]


def _frames(error: Exception) -> list[traceback.FrameSummary]:
    return list(traceback.extract_tb(error.__traceback__))


def _place(error: Exception) -> str:
    """The innermost line outside solverkit and the libraries below it: the sampler's own."""
    outside = [
        f for f in _frames(error)
        if not Path(f.filename).is_relative_to(CORE) and "site-packages" not in f.filename and "<" not in f.filename
    ]  # fmt: skip
    return f"{Path(outside[-1].filename).name}:{outside[-1].lineno}, in {outside[-1].name}" if outside else ""


def _raised(error: Exception) -> str:
    """What is the same in every check that one mistake breaks."""
    return f"{type(error).__name__} {_place(error) or error}"


def _told(error: Exception) -> tuple[str, str]:
    """What something raised, where, and the usual cause."""
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", []))
    place = _place(error)
    detail = f"{type(error).__name__}: {error}{notes}{f' [{place}]' if place else ''}"
    return detail, next(cause for kind, cause in RAISED.items() if isinstance(error, kind))


ZERO = "a division by alpha, by t or by a step in log-SNR: at alpha = 0 (a flow's start) and at t = 0 they are 0 or inf"
RAISED: dict[type[Exception], str] = {
    TraceError: "the sampler cannot become a plan as it is written: the message says what to change",
    NonFiniteError: ZERO,
    SolverKitError: "what is checked was refused: the message says what was expected and what to do",
    ArithmeticError: ZERO,
    ValueError: "a logarithm or a root of something negative, at t = 0 or for another value of an option: say by "
    "OptionError which values there are",
    TypeError: "a function of torch or math that is given a symbol (@sk.op takes it), or a call with other arguments",
    ImportError: "a package is missing: name it among the dependencies of the plugin",
    Exception: "what is checked raises this itself, at the line that is named",
}


def parametrize_with_checks(subjects: Iterable[Subject], kind: str | None = None) -> Any:
    """A pytest decorator: the test gets (card, options, check) for each subject, option set and check.

    Args:
        subjects: Names, cards or functions.
        kind: As of `card_of`.
    """
    import pytest

    cards = [card_of(s, kind) for s in subjects]
    cases = [
        pytest.param(card, options, check, id=f"{card.name}-{_label(options)}{check_name(check)}")
        for card in cards
        for options in option_sets(card)
        for check in checks_of(card)
    ]
    return pytest.mark.parametrize(("card", "options", "check"), cases)


def _label(options: Mapping[str, Any]) -> str:
    return "".join(f"{k}={v}-" for k, v in options.items())
