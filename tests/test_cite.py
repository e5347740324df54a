"""What to cite: every sampler has entries, they are those that its card names in words, and they are BibTeX."""

from __future__ import annotations

import re

import pytest

from solverkit.errors import OptionError
from solverkit.registry.bibliography import bibliography, citations
from solverkit.registry.registry import Card, registry

CARDS = [card for kind in ("samplers", "decoders") for card in registry().cards[kind].values() if card.plugin != "example"]
ARXIV = re.compile(r"\d{4}\.\d{4,5}")


@pytest.mark.parametrize("card", CARDS, ids=lambda card: f"{type(card).__name__}-{card.name}")
def test_every_sampler_has_its_sources(card):
    """An arXiv number that the card names is that of an entry, and so is the first year."""
    entries = "\n".join(citations(card))
    assert set(ARXIV.findall(card.reference)) <= set(ARXIV.findall(entries)), card.reference
    for surname in re.findall(r"([A-Z][a-z]+) (?:et al\. )?(?:and [A-Z][a-z]+ )?(?:19|20)\d\d", card.reference):
        assert surname in entries, card.reference


def test_entries_are_bibtex_and_each_is_used():
    used = {key for card in CARDS for key in card.cite.split()}
    assert used | {"solverkit"} == set(bibliography())
    for key, entry in bibliography().items():
        fields = dict(re.findall(r"^  (\w+) = \{(.*)\},?$", entry, flags=re.M))
        assert {"title", "author", "year"} <= set(fields), key
        assert entry.count("{") == entry.count("}"), key
        assert all(", " in name or name.startswith("{The") or name == "others" for name in fields["author"].split(" and "))
    numbers = [number for entry in bibliography().values() for number in re.findall(r"eprint = \{(.*)\}", entry)]
    assert len(numbers) == len(set(numbers))


def test_a_plugin_brings_its_own_entry():
    entry = "@misc{mine,\n  title = {Mine}\n}"
    assert citations(Card("mine", print, cite=entry)) == [entry]
    with pytest.raises(OptionError, match="cites 'ho2021', which is not in references.bib. Did you mean 'ho2020'"):
        citations(Card("mine", print, cite="ho2021"))
    with pytest.raises(OptionError, match="says nothing of BibTeX. Its source: a letter"):
        citations(Card("mine", print, reference="a letter"))


def test_the_command(cli):
    code, out, _ = cli("cite", "unipc:order=2", "rk45")
    assert code == 0 and "eprint = {2302.04867}" in out and "% rk45\n@article{dormand1980," in out
    assert cli("cite")[1].startswith("@software{solverkit")
    out = cli("cite", "euler")[1]
    assert "karras2022" in out and "% euler (decoder of tokens)" in out
    code, _, err = cli("cite", "unipcc")
    assert code == 2 and "Did you mean 'unipc'?" in err
