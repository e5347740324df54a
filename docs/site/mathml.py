"""An extension of Markdown: formulas become MathML when the site is built; a page needs no script and no font for them."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert
from markdown import Extension, Markdown
from markdown.postprocessors import Postprocessor

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', flags=re.S)  # of pymdownx.arithmatex


class MathML(Postprocessor):
    """Replaces what arithmatex found."""

    def run(self, text: str) -> str:
        return FORMULA.sub(_mathml, text)


def _mathml(found: re.Match[str]) -> str:
    """One formula; a command that is not known ends the build."""
    tag, kind, tex = found.groups()
    made = convert(html.unescape(tex).strip(), display="inline" if kind == "(" else "block")
    if unknown := re.search(r"\\[a-zA-Z]+", html.unescape(made)):
        raise ValueError(f"the formula {tex.strip()!r} has {unknown[0]}, which is not known")
    made = made.replace("<mi>log</mi>", '<mi>log</mi><mspace width="0.17em"/>')  # as TeX spaces an operator
    return f'<{tag} class="formula">{made}</{tag}>'


class Formulas(Extension):
    """Needs pymdownx.arithmatex with generic: true."""

    def extendMarkdown(self, md: Markdown) -> None:
        md.postprocessors.register(MathML(md), "mathml", 5)  # behind raw_html, which puts arithmatex's answers back


def makeExtension(**options: Any) -> Formulas:
    """What Markdown asks a module of an extension for."""
    return Formulas(**options)
