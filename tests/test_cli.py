"""The `solverkit` command: what it prints, what it writes, and its exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from solverkit.cli import main

BENCH = ("bench", "-m", "gaussian", "-s", "euler,heun", "--nfe", "5,8", "--samples", "4")


def test_help_imports_neither_torch_nor_rich_tables():
    code = (
        "import sys; sys.argv = ['solverkit', '--help']; from solverkit.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = [m for m in ('torch', 'diffusers', 'numpy', 'matplotlib') if m in sys.modules]\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "bench" in done.stdout


@pytest.mark.parametrize("kind", ["samplers", "decoders", "grids", "models", "metrics", "plugins"])
def test_tables(cli, kind):
    code, out, _ = cli(kind)
    assert code == 0
    code, text, _ = cli(kind, "--json")
    names = [record["name"] for record in json.loads(text)]
    assert code == 0
    assert names
    assert all(name in out for name in names)


def test_show(cli):
    code, out, _ = cli("show", "heun", "--nfe", "5")
    assert code == 0
    assert "x0" in out
    code, out, _ = cli("show", "dpmpp-2m", "--nfe", "4", "--grid", "flow", "--schedule", "flow", "--json")
    rows = json.loads(out)
    assert [row["level"] for row in rows] == [1.0, 0.75, 0.5, 0.25]
    code, out, _ = cli(
        "show", "unipc", "--nfe", "4", "--set", "order=1", "--set", "corrector=false", "--model", "mixture", "--json"
    )
    assert code == 0
    assert json.loads(out)[0]["level"] == 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "hein"), "Did you mean 'heun'"),
        (("show", "heun", "--grid", "karas"), "Did you mean 'karras'"),
        (("show", "heun", "--set", "churn=1"), "s_churn"),
        (("show", "unipc", "--set", "order=high"), "must be int"),
        (("show", "unipc", "--set", "order"), "name=value"),
        (("show", "heun", "--schedule", "wp"), "Did you mean 'vp'"),
        (("show", "rk4", "--nfe", "0"), "positive integer"),
        (("sample", "mnits"), "Did you mean 'mnist'"),
        (("sample", "mnist", "--guidance", "2"), "--label"),
        (("bench", "--sampler", "hein"), "Did you mean 'heun'"),
        (("bench", "--nfe", "five"), "--nfe takes integers"),
        (("bench", "--set", "nonsense=1"), "nonsense"),
        (("bench", "--sampler", "diffusers:Heun"), "HeunDiscreteScheduler"),
        (("check", "hein"), "Did you mean 'heun'"),
        (("new-plugin", "My Solver"), "small letters"),
        (("new-plugin", "heun"), "already"),
        (("bench", "--modle", "x"), "No such option"),
        (("report", "missing.jsonl"), "No such file"),
        (("bench", "--suite", "missing"), "no suite 'missing'"),
        (("bench", "--suite", "missing.toml"), "No such file"),
        (("bench", "--label", "3", "--model", "gaussian"), "has classes"),
        (("show", "dpm-solver-12"), "no plan"),
        (("show", "unipc:ordr=2"), "Did you mean 'order'"),
        (("sample", "./missing"), "no folder"),
        (("sample", "."), "holds no model"),
        (("sample", "mnist", "--label", "12"), "0..10"),
        (("sample", "gaussian", "--label", "1"), "no classes"),
        (("sample", "gaussian", "--guidance", "2", "--label", "1"), "no classes"),
        (("sample", "gaussian", "--seed", "-1"), "--seed"),
        (("sample", "gaussian", "--num-samples", "0"), "--num-samples"),
        (("sample", "gaussian", "--batch", "0"), "--batch"),
        (("sample", "gaussian", "--threads", "0"), "--threads"),
        (("sample", "gaussian", "--device", "nowhere"), "--device 'nowhere'"),
        (("sample", "gaussian", "--device", "meta"), "--device 'meta'"),
        (("sample", "gaussian", "--dtype", "float46"), "Did you mean 'float64'"),
        (("sample", "gaussian", "--dtype", "float16"), "closed form"),
        (("sample", "gaussian", "--sampler", "rk45", "--nfe", "9"), "leave out --nfe"),
        (("likelihood", "gaussian", "--method", "oed"), "Did you mean 'ode'"),
        (("likelihood", "gaussian", "--tolerance", "nan"), "--tolerance"),
        (("likelihood", "gaussian", "--data", "missing.npy"), "No such file"),
        (("likelihood", "gaussian", "--data", "."), "a folder"),
        (("likelihood", "mnist"), "--data is missing"),
        (("stats", "gaussian", "--out", "s.safetensors", "--data", "missing.npy"), "No such file"),
        (("bnech",), "No such command"),
    ],
)
def test_bad_usage_exits_with_2_and_one_message(cli, arguments, message):
    code, out, err = cli(*arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in out + err


def test_failures_exit_with_1(cli, tmp_path):
    (tmp_path / "broken.jsonl").write_text("no row\n")
    code, _, err = cli("report", "broken.jsonl")
    assert (code, "no result rows" in err) == (1, True)
    code, out, _ = cli("bench", "-m", "gaussian", "-s", "dpm-solver-12", "--nfe", "5", "--samples", "2")
    assert code == 1
    assert "decides itself" in out


def test_debug_shows_the_traceback(capsys):
    from solverkit.errors import UnknownNameError

    with pytest.raises(UnknownNameError):
        main(["show", "hein", "--debug"])


def test_bench_writes_rows_table_and_figure(cli, tmp_path):
    code, out, _ = cli(*BENCH)
    assert code == 0
    assert "solverkit-bench/results.jsonl" in out
    assert "heun" in out
    assert "at 7" in out
    assert (tmp_path / "solverkit-bench" / "report.png").stat().st_size > 10_000
    assert len((tmp_path / "solverkit-bench" / "results.jsonl").read_text().splitlines()) == 4
    code, again, _ = cli("report", "solverkit-bench/results.jsonl", "--out", "again.png")
    assert code == 0
    assert again.splitlines()[0] == out.splitlines()[0]
    assert (tmp_path / "again.png").is_file()
    code, folder, _ = cli("report", "solverkit-bench")
    assert (code, folder.splitlines()[:-1]) == (0, again.splitlines()[:-1])
    assert (tmp_path / "solverkit-bench" / "report.html").stat().st_size > 1_000_000
    code, text, _ = cli("report", "solverkit-bench/results.jsonl", "--json")
    assert len(json.loads(text)) == 4


def test_bench_sets_options_for_the_samplers_that_have_them(cli):
    code, out, _ = cli(
        "bench", "--json", "-m", "gaussian", "-s", "euler", "-s", "unipc", "--nfe", "5", "-k", "2", "--set", "order=1"
    )
    assert code == 0
    assert [row["options"] for row in json.loads(out)] == [{}, {"order": 1}]


def test_quiet_leaves_out_remarks(cli):
    assert cli("show", "heun", "--quiet")[2] == ""
    assert "evaluations" in cli("show", "heun")[2]


def test_sample_writes_a_sheet_of_an_image_model(cli, tmp_path):
    from safetensors.torch import load_file

    code, out, _ = cli(
        "sample", "mnist", "--sampler", "euler", "--nfe", "2", "-k", "2", "--label", "3", "--guidance", "2", "--quiet"
    )
    assert code == 0
    assert "4 evaluations" in out
    assert load_file(tmp_path / "samples.safetensors")["x"].shape == (2, 1, 28, 28)
    assert (tmp_path / "samples.png").read_bytes()[:4] == b"\x89PNG"
    code, out, _ = cli("sample", "gaussian", "--nfe", "4", "-k", "3", "--out", "points.png", "--json")
    assert json.loads(out)["files"] == ["points.png", "points.safetensors"]


def test_new_plugin_writes_a_package_that_works(cli, tmp_path):
    code, out, err = cli("new-plugin", "two-step")
    assert code == 0
    folder = tmp_path / "solverkit-two-step"
    assert out.strip() == "solverkit-two-step" and "solverkit check two-step" in err
    written = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert written == ["README.md", "pyproject.toml", "solverkit_two_step.py", "tests/test_two_step.py"]
    assert not re.search("my.solver", "".join((folder / path).read_text() for path in written))
    code = (
        "import solverkit as sk, solverkit_two_step as plugin\n"
        "from solverkit.registry.registry import build_registry\n"
        "card = build_registry({'mine': plugin}).cards['samplers']['two-step']\n"
        "assert card.order_of({}) == 2 and card.order_of({'share': 0.5}) == 1\n"
        "assert sk.sample(sk.problems.gaussian(), card, steps=4, num_samples=2).nfe == 4\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
    assert cli("new-plugin", "two-step")[0] == 1
