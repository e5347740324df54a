"""docs/writing-a-sampler.md shows code from files, letter by letter, and what it says of the ancestral sampler is so."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

import solverkit as sk
from solverkit.commands.plugin_template import FILES, TEMPLATE
from solverkit.registry.registry import SamplerCard, build_registry

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "writing-a-sampler.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"<!-- code: (\S+) -->\n```python\n(.*?)\n```\n", TEXT, flags=re.S)
EXAMPLE = ROOT / "docs" / "examples" / "ancestral_sampler.py"


def test_the_code_is_that_of_the_files():
    assert {path for path, _ in SHOWN} == {
        "docs/examples/ancestral_sampler.py",
        "solverkit/commands/template/solverkit_my_solver.py",
        "solverkit/commands/template/tests/test_my_solver.py",
    }
    for path, code in SHOWN:
        assert code == (ROOT / path).read_text(encoding="utf-8").rstrip("\n"), path


def test_the_template_is_what_new_plugin_copies():
    kept = {str(path.relative_to(TEMPLATE)) for path in TEMPLATE.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert kept == set(FILES)


@pytest.fixture(scope="module")
def ancestral():
    class Module:
        pass

    module = Module()
    vars(module).update(runpy.run_path(str(EXAMPLE)))
    return build_registry({"example": module}).get("samplers", "down-and-up")


@pytest.mark.parametrize("check", sk.testing.CHECKS, ids=sk.testing.check_name)
def test_the_ancestral_sampler_is_proven(ancestral, check):
    once = sk.testing.check_name(check) in ("device", "edits", "finite", "spellings", "system", "independence")
    for options in sk.testing.option_sets(ancestral)[: 1 if once else 2]:
        check(ancestral, options)


def test_without_the_factor_of_alpha_its_law_is_wrong_in_the_flow_frame(tmp_path):
    code = EXAMPLE.read_text(encoding="utf-8")
    assert "(t.alpha / alpha_u) * x" in code
    wrong = tmp_path / "wrong.py"
    wrong.write_text(code.replace("(t.alpha / alpha_u) * x", "1.0 * x"), encoding="utf-8")
    card = SamplerCard("wrong", runpy.run_path(str(wrong))["down_and_up"], skip=4)
    with pytest.raises(sk.testing.CheckError, match="^Flow: the law is off") as found:
        {sk.testing.check_name(check): check for check in sk.testing.CHECKS}["law"](card, {})
    assert "in the flow frame alpha changes too" in found.value.cause and found.value.figure > found.value.limit


def test_it_is_ddim_with_noise():
    model, grid = sk.problems.mixture(dim=4, modes=3), sk.make_grid("karras", sk.EDM(), 8)
    fn = runpy.run_path(str(EXAMPLE))["down_and_up"]
    ours, known = (sk.sample(model, s, grid=grid, num_samples=3, eta=0.7).x for s in (fn, "ddim"))
    assert float((ours - known).abs().max()) < 1e-5
