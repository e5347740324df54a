"""Build the documentation site: `python docs/site/build.py` writes docs/site/build/html; a warning is an error.

The pages of docs/ are copied beside what is made here (solver cards, API reference, the changelog), and zensical makes
the site of both. Nothing is loaded from another host, by the build or by a page.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import cards  # noqa: E402
import reference  # noqa: E402

DOCS, ROOT = HERE.parent, HERE.parents[1]
BUILD, SITE = HERE / "build", HERE / "build" / "html"
LINKED = re.compile(r'<a\b[^>]*?\bhref="?([^"\s>#]+)')
LOADED = re.compile(  # src of a script, an image, ..., and href of a style sheet
    r"""<(?:script|img|source|iframe)\b[^>]*?\bsrc="?([^"\s>]+)|<link\b[^>]*?\brel="?stylesheet\b[^>]*?\bhref="?([^"\s>]+)"""
)


def main() -> None:
    """Stage, build, and look at what the pages load."""
    shutil.rmtree(BUILD, ignore_errors=True)
    made = stage(BUILD / "pages")
    config = BUILD / "mkdocs.yml"
    config.write_text(yaml.safe_dump(configured(BUILD / "pages", made), sort_keys=False), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "-f", config],
        env={**os.environ, "PYTHONPATH": str(HERE)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    print(said.partition("Traceback")[0])
    faults = [line for line in said.splitlines() if line.startswith("griffe:")]  # of docstrings, no fault to zensical
    faults += [f"{page.relative_to(SITE)}: {what}" for page in sorted(SITE.rglob("*.html")) for what in wrong(page)]
    if done.returncode or faults:
        sys.exit("\n".join(["the site has faults", *faults]))
    print(SITE / "index.html")


def wrong(page: Path) -> list[str]:
    """What a page loads or links to that is not part of the site: loads from another host, and files that are not there."""
    text = page.read_text(encoding="utf-8")
    loaded = {a or b for a, b in LOADED.findall(text)}
    loaded |= {link for link in LINKED.findall(text) if not re.match(r"https?:|mailto:|#", link)}
    inside = {name for name in loaded if name.startswith("data:") or (page.parent / name.partition("?")[0]).is_file()}
    return sorted(loaded - inside) if page.name != "404.html" else []  # whose addresses begin at the root of a host


def stage(pages: Path) -> dict[str, list[Any]]:
    """Write every page below `pages`; the parts of the navigation that were made, by name."""
    shutil.copytree(DOCS, pages, ignore=shutil.ignore_patterns("site"))
    shutil.copy(HERE / "style.css", pages)
    shutil.copy(ROOT / "CHANGELOG.md", pages / "changelog.md")
    made = {"samplers": cards.write(pages / "samplers"), "reference": reference.write(pages / "reference")}
    for page in pages.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        page.write_text(re.sub(r"\]\(\.\./plugins/(\w+)/README\.md", r"](samplers/\1.md", text), encoding="utf-8")
    return made


def configured(pages: Path, made: dict[str, list[Any]]) -> dict[str, Any]:
    """mkdocs.yml with its folders, the made parts of the navigation, and what the navigation leaves out under "More"."""
    config: dict[str, Any] = yaml.safe_load((HERE / "mkdocs.yml").read_text(encoding="utf-8"))
    config |= {"docs_dir": pages.name, "site_dir": SITE.name}
    config["nav"] = [
        {title: made.get(where, where) if isinstance(where, str) else where for title, where in entry.items()}
        for entry in config["nav"]
    ]
    named = set(re.findall(r"[\w/.-]+\.md", str(config["nav"])))
    if more := sorted(page.name for page in pages.glob("*.md") if page.name not in named):
        config["nav"].append({"More": more})
    return config


if __name__ == "__main__":
    main()
