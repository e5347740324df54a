"""The page of a report, in a browser without a network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest
import torch

import solverkit as sk
from solverkit.bench.colours import styles
from solverkit.bench.figure import hidden
from solverkit.bench.page.page import command_of, write_page
from solverkit.bench.page.plans import weights_of
from solverkit.bench.page.sheets import address, as_strip
from solverkit.bench.panel import make_panels
from solverkit.bench.run_store import encoded
from solverkit.bench.runner import run_suite
from solverkit.bench.suite import ExtraCells, ModelEntry, Suite
from solverkit.cli import main
from solverkit.errors import OptionError

BROWSER = os.environ.get("SOLVERKIT_BROWSER") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--enable-logging=stderr",
    "--virtual-time-budget=10000", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
SAMPLERS = ["euler", "heun", "unipc:order=2", "diffusers:DPMSolverMultistepScheduler", "ddpm"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOLVERKIT_CACHE", str(folder / "cache"))
        samplers = [word for name in SAMPLERS for word in ("-s", name)]
        bench = ["bench", "-m", "gaussian,mixture", *samplers, "-s", "rk4", "-n", "1,4,8", "-k", "32", "-o", str(folder)]
        for command, code in ((bench, 1), (["report", str(folder)], 0)):  # rk4 needs more than one evaluation
            with pytest.raises(SystemExit) as end:
                main([*command, "-q"])
            assert end.value.code == code
    return folder


def dom(page, profile, *flags, at=""):
    """The page after its scripts ran, and what it said on the console."""
    command = [BROWSER, *FLAGS, f"--user-data-dir={profile}", *flags, "--dump-dom", f"file://{page}{at}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(not BROWSER, reason="no chromium here")
def test_the_page_in_a_browser(run, tmp_path):
    text, console = dom(run / "report.html", tmp_path / "a")
    assert console == []
    names = re.findall(r'id="((?:error|time|plan)-[^"]+)"', text)
    plots = {name: text.split(f'id="{name}"')[1].split('class="card"')[0] for name in names}
    assert {"error-0", "error-1", "error-2", "time-0", "plan-0-0", "plan-1-0"} <= plots.keys()
    for name, front in (("error-0", 1), ("error-1", 1), ("time-0", 0), ("time-1", 0)):
        lines = int(re.search(r'data-lines="(\d+)"', plots[name])[1])
        assert plots[name].count('class="trace scatter') == lines + front
    assert int(re.search(r'data-lines="(\d+)"', plots["error-0"])[1]) == 6
    assert all('class="hm"' in plot for name, plot in plots.items() if name.startswith("plan"))
    body = text.split("<tbody>")[1].split("</tbody>")[0]
    assert body.count("<tr") == 36 and body.count('class="failed"') >= 2
    assert "36 of 36 rows" in text
    assert text.count("data:image/png;base64") > 8


@pytest.mark.skipif(not BROWSER, reason="no chromium here")
def test_the_filter_filters_and_a_column_sorts(run, tmp_path):
    text, console = dom(run / "report.html", tmp_path / "a", at="#filter=unipc+mixture&sort=ode_error")
    body = text.split("<tbody>")[1].split("</tbody>")[0]
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in body.split("<tr")[1:]]
    assert console == [] and len(rows) == 3 and all("unipc" in row and "mixture" in row for row in rows)
    errors = [float(cell.split(" ")[0]) for row in rows for cell in row if " to " in cell][::1]
    assert errors[0] <= errors[-1]


@pytest.mark.skipif(not BROWSER, reason="no chromium here")
def test_the_page_is_drawn_wide_and_narrow_light_and_dark(run, tmp_path):
    from PIL import Image

    means = []
    for i, (width, dark) in enumerate([(1400, False), (520, False), (1400, True)]):
        shot = tmp_path / f"{i}.png"
        flags = [f"--window-size={width},1200", *(["--blink-settings=preferredColorScheme=0"] if dark else [])]
        command = [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / str(i)}", *flags, f"--screenshot={shot}"]
        subprocess.run([*command, f"file://{run / 'report.html'}"], capture_output=True, timeout=240, check=True)
        picture = Image.open(shot).convert("L")
        assert picture.width == width
        means.append(sum(picture.histogram()[128:]) / (picture.width * picture.height))
    assert means[0] > 0.8 and means[1] > 0.8 and means[2] < 0.2


def test_the_page_needs_nothing_from_elsewhere(run):
    page = (run / "report.html").read_text(encoding="utf-8")
    head = page.split("<script>")[0]
    assert not re.search(r'(src|href)="(?!#|data:)', head)


def test_a_row_says_how_to_repeat_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOLVERKIT_CACHE", str(tmp_path / "cache"))
    row = sk.bench("mixture", "unipc:order=2,corrector=false", nfe=6, num_samples=8, caches=["frozen:every=2"]).rows[0]
    command = command_of(row)
    assert command == (
        "solverkit bench -m mixture -s unipc:order=2,corrector=false -n 6 -g karras -k 8 --seed 0 --cache frozen:every=2"
    )
    with pytest.raises(SystemExit):
        main([*command.split()[1:], "--json"])
    again = sk.bench.store.read(tmp_path / "solverkit-bench")[0]
    assert again["ode_error"] == row["ode_error"] and again["nfe"] == row["nfe"] == 3


def test_weights_of_a_plan_are_those_of_the_formula():
    schedule = sk.EDM()
    grid = sk.Grid((schedule.at(4.0), schedule.at(2.0), schedule.at(1.0)), schedule)
    weights = weights_of(sk.trace("euler", grid))
    assert weights[0] == pytest.approx([0.5, 0.0])
    assert weights[1] == pytest.approx([0.25, 0.5])
    assert weights_of(sk.trace("lml", sk.make_grid("karras", sk.EDM(), 3))) is None  # it does more than weigh


def test_samples_as_pictures():
    assert as_strip(torch.zeros(3, 1, 4, 4)).shape == (4, 15)
    assert as_strip(torch.zeros(3, 3, 4, 4)).shape == (4, 15, 3)
    assert as_strip(torch.zeros(3, 16)).shape == (4, 15)
    assert as_strip(torch.zeros(3, 5)) is None
    assert address(encoded({"x": torch.zeros(2, 1, 4, 4)})).startswith("data:image/png;base64,")


def test_without_plotly_the_page_says_what_to_install(run, monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(OptionError, match=r"solverkit\[report\]"):
        write_page(sk.bench.store.read(run), tmp_path / "x.html")


def test_no_two_samplers_of_a_figure_share_a_colour():
    of_tokens = [name for name, card in sk.decoders().items() if card.process == "absorbing"]
    solvers = ["euler", "heun", "unipc", "deis", *(f"stranger-{i}" for i in range(6))]
    for names in (of_tokens, solvers, ["diffusers:A†", "diffusers:B†", "diffusers:C†"]):
        look = styles(names)
        assert len({style.colour for style in look.values()}) == len(names)
    settings = styles(["remdm", "remdm (rule=conf)", "remdm (rule=loop)"])
    assert len({style.colour for style in settings.values()}) == 1
    assert len({(style.dash, style.marker) for style in settings.values()}) == 3


def test_a_line_under_another_is_told_where_it_was_counted():
    suite = Suite(
        models=(ModelEntry("mixture", 4, "flow", reference_steps=8),), samplers=("euler", "heun"), nfe=(4, 8),
        caches=("none", "frozen:every=2"), extra=(ExtraCells("mixture", "euler", nfe=(2,)),), metrics=("ode_error",),
    )  # fmt: skip
    (panel,) = make_panels(list(run_suite(suite)))
    frozen = "euler (frozen:every=2)"
    assert hidden(panel) == [("euler", frozen), (frozen, "heun (frozen:every=2)")]  # Heun's second half is frozen away
