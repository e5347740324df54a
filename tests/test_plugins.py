"""The registry: names, collisions, failing plugins, options."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import types

import pytest

import solverkit as sk
from solverkit.errors import OptionError, PluginError, PluginWarning, UnknownNameError
from solverkit.registry import hookspecs
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


def test_every_hook_is_exercised():
    """Each hook of hookspecs has built-ins or a test plugin that use it."""
    seen = {kind: [] for kind in ("samplers", "decoders", "grids", "models", "metrics", "tasks")}
    module = types.ModuleType("everything")
    for kind in seen:
        namespace = {}
        exec(f"def register_{kind}(register):\n    register('my-{kind}', fn)\n", {"fn": doubled}, namespace)
        setattr(module, f"register_{kind}", sk.hookimpl(namespace[f"register_{kind}"]))
    registry = build_registry({"everything": module})
    for kind in seen:
        assert registry.get(kind, f"my-{kind}").plugin == "everything"
    assert {n.removeprefix("register_") for n in dir(hookspecs) if n.startswith("register_")} == set(seen)


def test_every_hook_and_its_argument_is_documented():
    from pathlib import Path

    text = (Path(__file__).parents[1] / "docs" / "writing-a-sampler.md").read_text()
    for name in dir(hookspecs):
        if name.startswith("register_"):
            assert f"{name}(register)" in text, name


def test_two_plugins_with_one_name():
    with pytest.raises(PluginError, match="first and second|second and first"):
        build_registry({"first": plugin_with(register_doubled), "second": plugin_with(register_doubled)})


def test_malformed_registration():
    with pytest.raises(PluginError, match="odrer"):
        build_registry({"bad": plugin_with(lambda register: register("x", doubled, odrer=1))})


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


def test_a_broken_plugin_is_a_warning_and_the_rest_works(tmp_path, monkeypatch):
    (tmp_path / "broken_plugin.py").write_text("raise RuntimeError('no such GPU')\n")
    info = tmp_path / "broken_plugin-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[solverkit]\nbroken = broken_plugin\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.warns(PluginWarning, match=r"'broken' \(broken_plugin\).*no such GPU"):
        registry = load_registry()
    assert "heun" in registry.cards["samplers"] and registry.failed[0][0] == "broken"


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
