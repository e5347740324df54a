"""The registry: names, collisions, failing plugins, options."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import types

import pytest

import solverkit as sk
from solverkit.errors import OptionError, PluginWarning, UnknownNameError
from solverkit.registry.registry import SamplerCard, build_registry, load_registry


def plugin_with(register_samplers):
    module = types.ModuleType("stranger")
    module.register_samplers = sk.hookimpl(register_samplers)
    return module


def doubled(model, x, grid, noise, strength: float = 1.0, mode: str = "a", count: int = 2, flag: bool = False):
    """A sampler for tests."""
    return x


def register_doubled(register):
    register("doubled", doubled, order=1)


def told(register_samplers):
    with pytest.warns(PluginWarning) as caught:
        registry = build_registry({"first": plugin_with(register_doubled), "second": plugin_with(register_samplers)})
    assert list(registry.cards["samplers"]) == ["doubled"] and registry.cards["samplers"]["doubled"].plugin == "first"
    ((plugin, what),) = registry.failed
    assert plugin == "second" and what in str(caught[0].message) and "\n" not in what
    return what


def fails(register):
    raise RuntimeError("no\nsuch GPU")


def leaves(register):
    sys.exit("goodbye")


def register_x(**fields):
    return lambda register: register("x", doubled, **fields)


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        (register_doubled, "the sampler 'doubled' is left out, first has that name"),
        (fails, "register_samplers failed: RuntimeError: no such GPU"),
        (leaves, "register_samplers failed: SystemExit: goodbye"),
        (lambda register: [doubled], "register_samplers returns list, which nobody reads"),
        (lambda register: register("x", 5), "expected register(name: str, fn: callable), got 'x', 5"),
        (lambda register: register("", doubled), "a name is one word"),
        (lambda register: register("a:b", doubled), "a name is one word"),
        (lambda register: register("x", lambda model: model), "takes 1 arguments, and is called with 4"),
        (lambda register: register("x", lambda model, x, grid, noise, seed=1: x), "'seed' is an argument of sk.sample"),
        (register_x(odrer=1), "unexpected keyword argument 'odrer'"),
        (register_x(order="two"), "order must be int or a function or None, got 'two'"),
        (register_x(order=lambda options: options["ordr"]), "order fails at the defaults"),
        (register_x(reference=5), "reference must be str, got 5"),
        (register_x(traceable="no"), "traceable must be bool, got 'no'"),
        (register_x(variants=({"strenght": 1.0},)), "strenght is no option"),
        (register_x(variants=("strength",)), "'strength' is no option"),
        (register_x(variants=5), "not iterable"),
    ],
)  # fmt: skip
def test_a_registration_that_cannot_work_is_told_in_one_line_and_the_rest_works(hook, words):
    assert words in told(hook)


def test_a_plugin_that_registers_a_name_twice_keeps_the_first():
    def twice(register):
        register("doubled", doubled, order=1)
        register("doubled", doubled, order=2)

    with pytest.warns(PluginWarning, match="'doubled' is left out, it registers two"):
        registry = build_registry({"one": plugin_with(twice)})
    assert registry.cards["samplers"]["doubled"].order == 1


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        ("def register_sampler(register): pass", "there is no hook 'register_sampler'. Did you mean 'register_samplers'?"),
        ("def register_samplers(registry): pass", "its hooks cannot be called"),
        ("", "has no hook and registers nothing: mark one with @sk.hookimpl"),
    ],
)
def test_hooks_that_do_not_exist_or_take_something_else(hook, words):
    module = types.ModuleType("stranger")
    if hook:
        exec(hook, vars(module))
        name = next(n for n in vars(module) if n.startswith("register"))
        setattr(module, name, sk.hookimpl(getattr(module, name)))
    with pytest.warns(PluginWarning):
        registry = build_registry({"stranger": module, "first": plugin_with(register_doubled)})
    assert "doubled" in registry.cards["samplers"]
    assert words in " ".join(what for _, what in registry.failed)


def test_one_module_under_two_names_and_a_hook_of_another_name():
    module = types.ModuleType("stranger")
    module.mine = sk.hookimpl(specname="register_samplers")(lambda register: register("doubled", doubled))
    with pytest.warns(PluginWarning) as caught:
        registry = build_registry({"one": module, "two": module})
    assert registry.cards["samplers"]["doubled"].plugin == "one"
    assert [plugin for plugin, _ in registry.failed] == ["two"] and len(caught) == 1


def test_unknown_names_list_the_rest():
    with pytest.raises(UnknownNameError, match="Did you mean 'dpmpp-2m'.*Known: .*heun"):
        sk.trace("dpmp-2m", sk.make_grid("karras", sk.EDM(), 3))
    with pytest.raises(UnknownNameError, match="karras"):
        sk.make_grid("karas", sk.EDM(), 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strenght": 1.0}, "Did you mean 'strength'.*count=2"),
        ({"strength": "high"}, "must be float"),
        ({"count": 1.5}, "must be int"),
        ({"flag": 1}, "must be bool"),
        ({"mode": 3}, "must be str"),
    ],
)
def test_option_errors(options, words):
    with pytest.raises(OptionError, match=words):
        SamplerCard("doubled", doubled, skip=4).check(options)


def test_literal_options():
    with pytest.raises(OptionError, match="one of 'bh1', 'bh2', 'vary'"):
        sk.samplers()["unipc"].check({"variant": "bh3"})


def distribution(folder, name, module, code, entry=None):
    """A package as pip leaves it: metadata, an entry point, and a module."""
    if code is not None:
        (folder / f"{module}.py").write_text(code)
    info = folder / f"{name}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(f"[solverkit]\n{entry or f'{name} = {module}'}\n")


GOOD = """
import solverkit as sk

@sk.hookimpl
def register_samplers(register):
    register("stranger", lambda model, x, grid, noise: x, order=1)
"""
BROKEN = {
    "raises": ("raise RuntimeError('no such GPU')", "RuntimeError: no such GPU"),
    "lacks": ("import a_module_that_is_not_there", "No module named 'a_module_that_is_not_there'"),
    "syntax": ("def f(:", "SyntaxError: invalid syntax"),
    "exits": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "many": ("raise ValueError('one\\ntwo')", "ValueError: one two"),
}


@pytest.fixture
def strangers(tmp_path, monkeypatch):
    from solverkit.registry.registry import _loaded

    for name, (code, _) in BROKEN.items():
        distribution(tmp_path, name, f"broken_{name}", code)
    distribution(tmp_path, "missing", "broken_missing", None)
    distribution(tmp_path, "attribute", "broken_attribute", "", "attribute = broken_attribute:plugin")
    distribution(tmp_path, "number", "broken_number", "plugin = 5", "number = broken_number:plugin")
    distribution(tmp_path, "taken", "broken_taken", GOOD, "classic = broken_taken")
    distribution(tmp_path, "malformed", "broken_malformed", GOOD, "nonsense")
    distribution(tmp_path, "good", "good_stranger", GOOD)
    monkeypatch.syspath_prepend(str(tmp_path))
    _loaded.cache_clear()
    yield tmp_path
    _loaded.cache_clear()
    for name in [name for name in sys.modules if name.startswith("broken_") or name == "good_stranger"]:
        del sys.modules[name]


def test_broken_plugins_are_told_in_one_line_each_and_the_rest_works(strangers, cli):
    code, out, err = cli("samplers", "--json")
    names = [record["name"] for record in json.loads(out)]
    assert code == 0 and {"heun", "stranger"} <= set(names)
    lines = [line for line in err.splitlines() if line.startswith("Warning:")]
    words = {name: words for name, (_, words) in BROKEN.items()}
    words |= {
        "missing": "No module named 'broken_missing'",
        "attribute": "has no attribute 'plugin'",
        "number": "5 has no hook and registers nothing",
        "classic": "another plugin (solverkit_plugins.classic) has that name",
        "malformed": "its entry points cannot be read",
    }
    for name, text in words.items():
        assert sum(name in line and text in line for line in lines) == 1, (name, err)
    assert "Traceback" not in err


def test_plugins_shows_package_version_path_and_what_is_wrong(strangers, cli):
    code, out, err = cli("plugins", "--json")
    records = {record["name"]: record for record in json.loads(out)}
    assert code == 0 and "broken_raises" not in err
    good = records["good"]
    assert (good["distribution"], good["version"], good["status"], good["samplers"]) == ("good", "1.5", "ok", ["stranger"])
    assert good["path"] == str(strangers / "good_stranger.py")
    assert records["grids"]["distribution"] == "solverkit" and records["classic"]["samplers"]
    for name, (_, words) in BROKEN.items():
        assert records[name]["status"].startswith("failed: ") and words in records[name]["status"]
        assert (records[name]["distribution"], records[name]["version"]) == (name, "1.5")
    assert "has that name" in records["classic"]["status"]
    assert "its entry points cannot be read" in records["malformed"]["status"]
    code, table, _ = cli("plugins")
    assert code == 0 and "good 1.5" in table and "no such GPU" in table


def test_restricting_what_is_loaded():
    assert set(load_registry("classic").cards["samplers"]) >= {"euler", "heun"}
    assert "unipc" not in load_registry("classic").cards["samplers"]
    assert load_registry("").cards["samplers"] == {}


def run_python(code, **env):
    import os

    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        check=False,
    )


def test_importing_solverkit_imports_nothing_heavy():
    out = run_python(
        """
        import sys
        import solverkit, solverkit.cli
        heavy = {"torch", "numpy", "diffusers", "transformers", "scipy", "matplotlib", "rich.progress"}
        print(sorted(heavy & set(sys.modules)))
        import solverkit.run.sampling, solverkit.model.denoiser, solverkit.plan.trace
        print(sorted({"diffusers", "transformers", "scipy", "matplotlib"} & set(sys.modules)))
        """
    )
    assert out.stdout.split("\n")[:2] == ["[]", "[]"], out.stdout + out.stderr


def test_core_never_imports_a_plugin():
    from pathlib import Path

    import solverkit

    for path in Path(solverkit.__file__).parent.rglob("*.py"):
        assert "import solverkit_plugins" not in path.read_text() and "from solverkit_plugins" not in path.read_text(), path


def test_samplers_are_documented():
    for name, card in sk.samplers().items():
        assert card.reference and card.summary, name
        assert "Source:" in (card.fn.__doc__ or ""), name
        for option in card.options:
            assert option in card.fn.__doc__, f"{name}: {option}"
