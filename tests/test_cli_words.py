"""One meaning a letter, threads and how they wait, names with options, plugins that clash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types

import pytest
import typer.main

import solverkit as sk
from solverkit.cli import app, main
from solverkit.commands import console
from solverkit.commands.waiting import PASSIVE, wait_passively

COMMANDS = typer.main.get_command(app).commands
NETWORK = ("sample", "bench", "likelihood", "stats", "diagnose")


def spellings():
    """(command, letter or None, long names) of every option."""
    for name, command in COMMANDS.items():
        for parameter in command.params:
            words = [word for word in (*parameter.opts, *parameter.secondary_opts) if word.startswith("-")]
            letters = [word for word in words if not word.startswith("--")]
            yield name, letters[0] if letters else None, {word for word in words if word.startswith("--")}


def test_a_letter_means_one_thing_and_the_table_says_which():
    table = dict(zip(*[iter(w for w in console.__doc__.split() if w.startswith("-"))] * 2))
    table = {letter: word for letter, word in table.items() if len(letter) == 2}
    used = {letter for _, letter, _ in spellings() if letter}
    assert used <= set(table)
    assert {"-g", "-k", "-m", "-n", "-o", "-r", "-s"} == used
    for command, letter, names in spellings():
        for short, long in table.items():  # both ways: the letter has that name, the name has that letter
            assert (letter == short) == (long in names), (command, letter, names)


@pytest.mark.parametrize("command", NETWORK)
def test_every_command_that_runs_a_network_says_where_and_how(command):
    names = {word for name, _, words in spellings() if name == command for word in words}
    assert names >= {"--device", "--dtype", "--batch", "--threads", "--label", "--seed", "--json"}


def test_tables_are_json_too():
    lists = {"samplers", "decoders", "grids", "models", "metrics", "plugins"}
    with_table = {*lists, "show", "bench", "report", "check", "stats"}
    for command in (*with_table, "likelihood", "sample"):
        assert any("--json" in words for name, _, words in spellings() if name == command)


def test_idle_threads_sleep_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    environment = {}
    wait_passively(environment)
    assert environment == PASSIVE
    for name in ("OMP_WAIT_POLICY", "KMP_BLOCKTIME", "GOMP_SPINCOUNT"):
        environment = {name: "as the user likes"}
        wait_passively(environment)
        assert environment == {name: "as the user likes"}


def test_the_policy_is_set_before_torch_is_imported():
    code = (
        "import os, sys, importlib.abc\n"
        "class Watch(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'torch': print('torch sees', os.environ.get('OMP_WAIT_POLICY')); sys.exit(0)\n"
        "sys.meta_path.insert(0, Watch())\n"
        "from solverkit.cli import main\n"
        "main(['sample', 'gaussian'])\n"
    )
    clean = {k: v for k, v in os.environ.items() if k not in (*PASSIVE, "GOMP_SPINCOUNT", "KMP_LIBRARY")}
    for given, seen in (({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "active"}, "active")):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**clean, **given})
        assert done.stdout == f"torch sees {seen}\n", done.stderr


def test_threads(cli, monkeypatch):
    import torch

    counts = []
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    for arguments in (
        ("sample", "gaussian", "--nfe", "2"), ("likelihood", "gaussian", "-k", "2", "--method", "elbo", "--draws", "2"),
        ("stats", "gaussian", "-o", "s.safetensors", "--rank", "2", "--profile-samples", "0"),
        ("bench", "-m", "gaussian", "-s", "euler", "-n", "2", "-k", "2"),
    ):  # fmt: skip
        assert cli(*arguments, "--threads", "3")[0] == 0
    assert counts == [3, 3, 3, 3]


def test_dtype_is_the_networks_and_double_is_also_the_states(cli, tmp_path):
    import torch
    from safetensors.torch import load_file

    for dtype, state in (("float64", torch.float64), ("bfloat16", torch.float32), ("float32", torch.float32)):
        out = ("-o", "x.safetensors", "--nfe", "1", "-k", "1")
        assert cli("sample", "mnist", "--dtype", dtype, *out)[0] == 0
        assert load_file(tmp_path / "x.safetensors")["x"].dtype == state


def test_options_behind_a_samplers_name_in_every_command(cli):
    _, plain, _ = cli("show", "unipc", "--set", "order=2", "--nfe", "5", "--json")
    code, named, _ = cli("show", "unipc:order=2", "--nfe", "5", "--json")
    assert (code, named) == (0, plain)
    assert plain != cli("show", "unipc", "--nfe", "5", "--json")[1]
    code, out, _ = cli("sample", "gaussian", "-s", "unipc:order=2,corrector=false", "--nfe", "5", "--json")
    assert json.loads(out)["options"] == {"order": 2, "corrector": False}
    names = "unipc:order=1,corrector=false,euler"
    code, out, _ = cli("bench", "-m", "gaussian", "-s", names, "-n", "5", "-k", "2", "-g", "karras", "--json")
    rows = json.loads(out)
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert rows[0]["ode_error"] == pytest.approx(rows[1]["ode_error"], rel=1e-4)  # UniP of order 1 is Euler in s


def test_adaptive_samplers_need_no_budget(cli):
    code, out, _ = cli("sample", "gaussian", "-s", "rk45", "-k", "2", "--json")
    assert code == 0
    assert json.loads(out)["nfe"] > 6


def test_bench_tells_the_models_their_class_and_batch(cli, monkeypatch):
    import solverkit.bench.runner as runner

    suites = []
    monkeypatch.setattr(runner, "run_suite", lambda suite, *rest, **more: suites.append(suite) or iter(()))
    cli("bench", "-m", "mnist,mixture", "--label", "3", "--batch", "7", "--dtype", "float64", "--device", "cpu")
    mnist, mixture = suites[0].models
    assert mnist.options.keys() == {"labels", "device", "dtype"}
    assert mnist.options["labels"] == 3
    assert mixture.options == {}
    assert (mnist.batch_size, mixture.batch_size) == (7, 7)


def module(name, *samplers):
    made = types.ModuleType(name)

    @sk.hookimpl
    def register_samplers(register):
        for sampler in samplers:
            register(sampler, lambda model, x, grid, noise: x)

    made.register_samplers = register_samplers
    return made


class Entry:
    def __init__(self, name, loaded):
        self.name, self.value, self.loaded = name, name, loaded

    def load(self):
        return self.loaded


def test_plugins_shows_a_clash_and_does_not_die_of_it(cli, monkeypatch):
    from solverkit.registry import registry

    entries = [Entry("one", module("one", "mine", "same")), Entry("two", module("two", "same"))]
    entries.append(Entry("three", module("three", 5)))
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    code, out, _ = cli("plugins", "--json")
    status = {record["name"]: record["status"] for record in json.loads(out)}
    assert code == 0
    assert status["one"] == "ok"
    assert "'same' is left out, one has that name" in status["two"]
    assert "failed" in status["three"]
    assert status["grids"] == "ok"
    assert cli("plugins")[0] == 0


def test_an_unknown_name_in_the_restriction_is_an_error(cli, monkeypatch):
    monkeypatch.setenv("SOLVERKIT_PLUGINS", "classic,clasic")
    code, _, err = cli("samplers")
    assert code == 2
    assert "SOLVERKIT_PLUGINS" in err
    assert "Did you mean 'classic'" in err


def test_show_explains_its_columns(cli):
    _, out, _ = cli("show", "heun", "--nfe", "3")
    legend = out[out.index("└") :]
    assert all(f"\n{column} " in legend for column in ("level", "told", "step", "carried", "update"))


def test_json_has_no_nan(cli):
    _, out, _ = cli("likelihood", "gaussian", "-k", "1", "--method", "elbo", "--draws", "2", "--json")
    assert json.loads(out, parse_constant=pytest.fail)["nats"][1] is None


def test_messages_are_plain_where_no_colour_is_wanted(cli, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in cli("show", "hein")[2]


def test_a_disk_that_is_full_while_a_table_is_printed(monkeypatch, capsys):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("solverkit.commands.console.print", full, raising=False)
    with pytest.raises(SystemExit) as stop:
        main(["grids", "--json"])
    assert stop.value.code == 1
    assert "No space left" in capsys.readouterr().err


def test_what_a_sampler_finds_beside_the_model_need_not_be_given(cli):
    assert cli("sample", "mnist", "-s", "teleport", "--nfe", "3", "-k", "1", "-o", "x.safetensors")[0] == 0
    assert cli("show", "teleport", "-m", "mnist", "--nfe", "3")[0] == 0
    code, _, err = cli("show", "teleport")
    assert (code, "'stats'" in err) == (2, True)
