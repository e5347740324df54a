"""What a notebook and a picture show: results, plans, grids, cards, and the way of a run."""

from __future__ import annotations

import io
import re

import pytest
import torch
from PIL import Image

import solverkit as sk
from solverkit.plan.picture import columns_of, rows_of
from solverkit.registry.registry import registry

GAUSSIAN = sk.problems.gaussian(2)


def result(*shape: int, **fields):
    made = sk.sample(GAUSSIAN, "heun", nfe=3, num_samples=shape[0])
    return made._replace(x=torch.zeros(shape), **fields)


def test_a_result_shows_its_images_and_escapes_what_it_was_told():
    shown = result(20, 1, 8, 8, reports={"auto": "<script>alert(1)</script>", "jump": 2.5, "kept": torch.zeros(1)})
    png = Image.open(io.BytesIO(shown._repr_png_()))
    assert png.format == "PNG" and max(png.size) < 500
    page = shown._repr_html_()
    assert "<script" not in page and "&lt;script&gt;" in page and "2.5" in page and "data:image/png;base64," in page
    assert len(page) < 60_000


@pytest.mark.parametrize("shape", [(3, 2), (3, 5), (0, 1, 8, 8), (2, 3, 4, 8, 8)])
def test_what_is_no_image_has_no_picture(shape):
    shown = result(3)._replace(x=torch.zeros(shape))
    assert shown._repr_png_() is None and "<img" not in shown._repr_html_()


@pytest.mark.parametrize(
    ("sampler", "options"), [("unipc", {}), ("heun", {}), ("dpm-solver-3", {}), ("pndm", {}), ("ddpm", {}), ("lms", {})]
)
def test_the_rows_of_the_picture_are_the_plan(sampler, options):
    """Rows as `advance` computes them, from states, predictions and draws that are numbers."""
    plan = sk.trace(sampler, sk.make_grid("karras", sk.EDM(), 5), **options)
    draws, values = [], {("x", -1): 3.0}

    def draw(ordinal, s, t):
        draws.append(0.3 * len(draws) - 0.7)
        values["z", len(draws) - 1] = draws[-1]
        return draws[-1]

    x, state = sk.begin(plan, 3.0, draw)
    rows = rows_of(plan)
    assert x == pytest.approx(sum(weight * values[label] for label, weight in rows[0].items()))
    for j in range(plan.nfe):
        values["x", j], values["D", j] = x, 0.1 * j - 0.2
        x, state = sk.advance(plan, state, x, values["D", j], draw)
        assert x == pytest.approx(sum(weight * values[label] for label, weight in rows[j + 1].items()), abs=1e-9)


def test_columns_are_relative_to_the_row():
    plan = sk.trace("dpmpp-2m", sk.make_grid("karras", sk.EDM(), 5))
    assert columns_of(rows_of(plan))[0][:3] == ["x", "D", "D-1"]


def test_every_plan_of_a_sampler_can_be_drawn(tmp_path):
    for name in ("unipc", "pc", "ddpm"):
        plan = sk.trace(name, sk.make_grid("flow", sk.Flow(), 3))
        plan.plot().savefig(tmp_path / "plan.svg")
        assert (tmp_path / "plan.svg").stat().st_size > 1000
        assert plan._repr_html_().count("<tr>") == plan.nfe + 1


def test_a_grid_and_all_named_ones(tmp_path):
    grid = sk.make_grid("karras", sk.VP(), 4)
    names = [text.get_text() for text in grid.plot(all_named=True).axes[0].get_yticklabels()]
    assert names[0] == "this grid" and {"karras", "trailing", "log-snr"} <= set(names) and "levels" not in names
    assert len(grid.plot().axes[0].get_yticklabels()) == 1
    assert grid._repr_html_().count("<tr>") == 6
    long = sk.make_grid("karras", sk.VP(), 100)._repr_html_()
    assert long.count("<tr>") == 61 and "41 more" in long


def test_every_card_shows_itself():
    for cards in registry().cards.values():
        for card in cards.values():
            page = card._repr_html_()
            assert card.name in page and not re.search(r"<(?!/?(table|caption|tr|th|td|p)\b)", page)
    assert "order" in registry().get("samplers", "unipc")._repr_html_()


def test_the_way_of_a_run(cli):
    code, out, _ = cli("sample", "mixture", "-n", "4", "-k", "3", "--animate", "way.gif")
    assert code == 0 and "way.gif" in out
    with Image.open("way.gif") as moving:
        assert moving.n_frames == 5
    assert cli("sample", "gaussian", "-n", "4", "-k", "2", "--animate", "way.png")[0] == 0
    with Image.open("way.png") as strip:
        assert strip.width == 5 * 640


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("mixture", "--animate", "x.mp4"), "--animate 'x.mp4' ends with '.mp4'"),
        (("mixture", "--animate", "x.gif", "--engine", "local"), "leave out --engine"),
        (("markov", "--animate", "x.gif"), "token model"),
        (("communities", "-n", "2", "--animate", "x.gif"), "system of"),
    ],
)
def test_what_cannot_be_animated(cli, arguments, words):
    code, _, err = cli("sample", *arguments)
    assert code == 2 and words in err and "Traceback" not in err
