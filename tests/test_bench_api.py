"""sk.bench from Python."""

from __future__ import annotations

import inspect

import pytest

import solverkit as sk
from solverkit.errors import OptionError, UnknownNameError


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SOLVERKIT_CACHE", str(tmp_path / "cache"))


def mine(model, x, grid, noise):
    for s, t in grid.steps():
        x = x + (t - s) * (x - model(x, s)) / s
    return x


def test_models_and_samplers_may_be_objects():
    result = sk.bench({"own": sk.problems.gaussian(), "other": sk.problems.gaussian(seed=1)}, ["euler", mine], nfe=[4, 8],
                      num_samples=8, reference_steps=8)  # fmt: skip
    assert len(result) == 8 and "8 cells" in repr(result)
    errors = {(row["model"], row["sampler"], row["budget"]): row["ode_error"] for row in result.rows}
    assert errors["own", "mine", 8] == pytest.approx(errors["own", "euler", 8])
    assert errors["own", "mine", 8] != errors["other", "mine", 8]


def test_what_a_result_shows():
    result = sk.bench("gaussian", ["euler", "unipc", "unipc:order=1", "rk4"], nfe=(1, 9), num_samples=16, reference_steps=8)
    text = result.table()
    assert "unipc (order=1)" in text and "NFE" in text and "failed" in text
    assert result.best(9) == {"gaussian": ["unipc (order=3)"]} or result.best(9)["gaussian"][0].startswith("unipc")
    frame = result.to_pandas()
    assert list(frame["budget"]) == [row["budget"] for row in result.rows]
    page = result._repr_html_()
    assert page.count("<table>") == page.count("</table>") >= 1 and "<b>" in page
    figure = result.plot()
    assert len(figure.axes) == 1 and len(figure.axes[0].get_legend_handles_labels()[0]) >= 0
    assert {line.get_marker() for line in figure.axes[0].lines} - {"None"}


def test_a_folder_keeps_the_run(tmp_path):
    first = sk.bench("gaussian", "euler", nfe=4, num_samples=4, reference_steps=8, out=tmp_path / "run")
    again = sk.bench("gaussian", "euler", nfe=4, num_samples=4, reference_steps=8, out=tmp_path / "run")
    assert first.rows == again.rows
    assert first.write(tmp_path / "rows.jsonl").read_text().count("\n") == 1


def test_what_cannot_be_run_is_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'euler'"):
        sk.bench("gaussian", "eular")
    with pytest.raises(OptionError, match="at least one sampler"):
        sk.bench("gaussian", [])
    with pytest.raises(OptionError, match="two samplers are called 'mine'"):
        sk.bench("gaussian", [mine, lambda model, x, grid, noise: x, mine.__class__(mine.__code__, {}, "mine")])
    with pytest.raises(TypeError):
        sk.bench("gaussian", "euler", nef=4)


def test_the_package_is_still_a_package():
    assert inspect.ismodule(sk.bench)
    assert sk.bench.runner.run_suite.__name__ == "run_suite"
    assert list(inspect.signature(sk.bench).parameters)[:3] == ["models", "samplers", "nfe"]
