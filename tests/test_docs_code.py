"""Every block of code in README.md, docs/ and the plugins' pages: Python runs, command lines are what the programs take."""

from __future__ import annotations

import argparse
import functools
import json
import re
import runpy
import shlex
import sys
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

import diffusers
import docs_stand_ins
import pytest

from solverkit.bench.suite_file import parse_suite

ROOT = Path(__file__).parents[1]
FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
FILES += sorted(ROOT.glob("plugins/*/README.md"))
FENCE = re.compile(r"^([ >]*)```(\w*)[^\n]*\n(.*?)^\1```$", flags=re.S | re.M)
PROGRAMS = r"(?:solverkit|python|pip|pytest|cd|curl|SOLVERKIT_\w+=\S+)\b"


class Block(NamedTuple):
    page: str
    line: int
    text: str


def page_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def fenced(path: Path, *languages: str) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    return [
        Block(page_of(path), text.count("\n", 0, found.start()) + 2, textwrap.dedent(found.group(3)))
        for found in FENCE.finditer(text)
        if found.group(2) in languages
    ]


def lines(path: Path) -> list[Block]:
    """Command lines: of fenced and of indented blocks, and spans of text; what follows two spaces is a remark."""
    text = path.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        if found.group(2) not in ("", "sh", "bash", "console"):
            text = text.replace(found.group(0), "\n" * found.group(0).count("\n"))
    commands = [
        (m.start(), m.group(1))
        for m in re.finditer(rf"^(?: {{4}}|)(?:\$ )?({PROGRAMS} .*)$", text, flags=re.M)
        if text[m.start() : m.start() + 4] == "    "
    ]
    commands += [(m.start(), m.group(1).replace("\n", " ")) for m in re.finditer(rf"`({PROGRAMS} [^`]+)`", text)]
    return [Block(page_of(path), text.count("\n", 0, at) + 1, re.split(r"\s{2,}", command)[0]) for at, command in commands]


NO_CODE = {"docs/architecture.md", "docs/diagnosis.md", "docs/lml.md"}
PYTHON = {page_of(path): fenced(path, "python") for path in FILES}
COMMANDS = [block for path in FILES for block in lines(path)]


@pytest.mark.parametrize("page", [page for page, blocks in PYTHON.items() if blocks])
def test_python_runs(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOLVERKIT_CACHE", str(tmp_path / "cache"))
    names: dict[str, Any] = {"__name__": "__main__"}
    names |= docs_stand_ins.PAGES.get(page, lambda patch: {})(monkeypatch)
    for block in PYTHON[page]:
        exec(compile("\n" * (block.line - 1) + block.text, str(ROOT / page), "exec"), names)


def test_what_is_indented_is_a_command_or_named_here():
    """Three blocks are no code: a drawing, what a command prints, and a formula."""
    for path in FILES:
        bare = FENCE.sub("", path.read_text(encoding="utf-8"))
        found = {line for line in re.findall(r"(?<=\n\n)    (\S.*)$", bare, flags=re.M) if not re.match(PROGRAMS, line)}
        assert len(found) == (page_of(path) in NO_CODE), (page_of(path), found)


def test_no_other_language_goes_unseen():
    """Python runs, TOML is a suite of the bench; there is nothing else."""
    for path in FILES:
        for found in FENCE.finditer(path.read_text(encoding="utf-8")):
            assert found.group(2) in ("python", "toml"), f"{page_of(path)}: {found.group(0)[:60]}"
        for block in fenced(path, "toml"):
            assert parse_suite(tomllib.loads(block.text)).samplers


class Accepted(Exception):
    """The arguments were read, and what would follow is the work itself; holds what was read."""


@functools.cache
def command_line() -> Any:
    """The real command line, whose commands end where their work would begin."""
    from typer.main import get_command

    from solverkit.cli import app

    group: Any = get_command(app)
    for command in group.commands.values():

        def accepted(**values: Any) -> None:
            raise Accepted(values)

        command.callback = accepted
    return group


def check_solverkit(words: list[str]) -> None:
    """The command exists, takes these arguments, and knows the samplers, models and suites that they name."""
    from solverkit.bench.named import find_sampler, split_sampler
    from solverkit.bench.suite_file import load_suite
    from solverkit.cli import _flags_first
    from solverkit.commands.bench import _split
    from solverkit.registry.registry import registry

    words = ["sample" if word == "COMMAND" else word for word in words]
    if len(words) == 1:  # the command alone: its name is meant
        assert words[0] in command_line().commands or words[0] == "--help"
        return
    with pytest.raises((Accepted, SystemExit)) as end:
        command_line()(args=_flags_first(words), standalone_mode=False)
        raise SystemExit(0)  # --help only prints
    values = end.value.args[0] if end.type is Accepted else {}
    cards = registry().cards
    for name in _split([v for k in ("sampler", "samplers") for v in _texts(values.get(k))]):
        bare = split_sampler(name)[0]
        if bare.startswith("diffusers:"):
            assert hasattr(diffusers, bare.removeprefix("diffusers:")), name
        elif not (PLACEHOLDER.match(name) or bare in cards["decoders"] or bare == "my-solver"):
            find_sampler(bare, {})
    for name in _split([v for k in ("model", "models") for v in _texts(values.get(k))]):
        assert PLACEHOLDER.match(name) or name in cards["models"], name
    for name in _texts(values.get("suite")):
        if not PLACEHOLDER.match(name) and name not in ("graphs", "inverse", "tokens", "my-suite"):  # no files
            load_suite(name)


PLACEHOLDER = re.compile(r"[A-Z_]+$|.*\bmine\b")  # MODEL, mine.py:net, mine.toml


def _texts(value: Any) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else [str(v) for v in value]


def check_script(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The script exists and its parser takes these arguments: it runs up to the end of its parsing."""
    script = ROOT / words[0]
    source = script.read_text(encoding="utf-8")
    assert '__name__ == "__main__"' in source, f"{words[0]} is no script"
    if "parse_args(" not in source:
        assert len(words) == 1 or "sys.argv" in source, f"{words[0]} takes no arguments"
        return
    parse_args = argparse.ArgumentParser.parse_args

    def stop(self: Any, *given: Any, **options: Any) -> Any:
        raise Accepted(parse_args(self, *given, **options))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(sys, "path", [str(script.parent), *sys.path])
    with pytest.raises(Accepted):
        runpy.run_path(str(script), run_name="__main__")


def check_pytest(words: list[str]) -> None:
    """The files exist, an expression of -k has its words in them, other options are those of tests/conftest.py."""
    files = [Path(word.partition("::")[0]) for word in words if word.startswith(("tests/", "plugins/"))]
    assert all(path.exists() for path in files), files
    if "-k" in words:
        text = "".join(path.read_text(encoding="utf-8") for path in files)
        for word in re.split(r" (?:or|and|not) ", words[words.index("-k") + 1]):
            assert re.search(rf"def test_\w*{word}|parametrize\(.*{word}", text), word
    own = (ROOT / "tests" / "conftest.py").read_text(encoding="utf-8")
    assert all(f'"{word}"' in own for word in words if word.startswith("--")), words


def check_pip(words: list[str]) -> None:
    """What is installed is this project, with extras that it has, a folder of it, or what constraints.txt names."""
    pinned = re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.M)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for word in words[words.index("install") + 1 :]:
        if found := re.search(r"\[([\w-]+)\]", word):
            assert found.group(1) in extras, word
        elif not word.startswith("-"):
            assert word in pinned or (ROOT / word).exists(), word


@pytest.mark.parametrize("block", COMMANDS, ids=lambda block: f"{block.page}:{block.line}")
def test_commands_are_what_the_programs_take(block, monkeypatch):
    monkeypatch.chdir(ROOT)
    for part in block.text.split(" && "):
        words = [word for word in shlex.split(part) if not re.match(r"SOLVERKIT_\w+=", word)]
        if words[:3] == ["python", "-m", "pytest"]:
            words = words[2:]
        match words:
            case ["solverkit", *rest]:
                check_solverkit(rest)
            case ["python", script, *_] if script.endswith(".py"):
                check_script(words[1:], monkeypatch)
            case ["pytest", *rest]:
                check_pytest(rest)
            case ["pip", *rest]:
                check_pip(rest)
            case ["python", "-m", "venv" | "build", *_] | [".", ".venv/bin/activate"]:
                pass
            case ["cd", folder]:
                if Path(folder).is_dir():  # else it is what a command before made
                    monkeypatch.chdir(folder)
            case ["uvicorn", "--factory", where]:
                module, _, name = where.partition(":")
                assert f"def {name}(" in Path(f"{module}.py").read_text(encoding="utf-8")
            case ["curl", _, *options]:
                json.loads(options[options.index("-d") + 1])
            case _:
                pytest.fail(f"no check knows {part!r}")


CHEAP = ("samplers", "decoders", "grids", "models", "metrics", "plugins", "show")


@pytest.mark.parametrize(
    "text", sorted({b.text for b in COMMANDS if b.text.split()[:1] == ["solverkit"] and b.text.split()[1] in CHEAP})
)
def test_what_is_cheap_runs(text, cli):
    words = shlex.split(text)[1:]
    if "NAME" not in words and "my-solver" not in text:  # a name of the reader's own
        assert cli(*words)[0] == 0
