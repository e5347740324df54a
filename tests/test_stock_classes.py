"""The list of stock pipelines that cannot take the scheduler: known cases are found, and for the right reason."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def load(name):
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


stock = load("stock_classes")


@pytest.fixture(scope="module")
def survey():
    return stock.Survey(load("pipeline_sources").Sources(), stock.surface())


CASES = [
    ("LEditsPPPipelineStableDiffusion", stock.CLASS, "DDIMScheduler or DPMSolverMultistepScheduler"),
    ("LTX2DFRTemporalRefinePipeline", stock.CLASS, "LTXEulerAncestralRFScheduler"),
    ("StableDiffusionParadigmsPipeline", stock.LACKS, "scheduler.batch_step_no_noise"),
    ("SanaSprintPipeline", stock.LACKS, "set_timesteps(max_timesteps=)"),
    ("RePaintPipeline", stock.PROCESS, "RePaintScheduler resamples between the steps of its pipeline"),
    ("KarrasVePipeline", stock.PROCESS, "KarrasVeScheduler"),
    ("AmusedPipeline", stock.TOKENS, "AmusedScheduler.step takes a LongTensor"),
    ("ConsistencyModelPipeline", stock.RENOISES, "CMStochasticIterativeScheduler"),
    ("HeliosPyramidModularPipeline", stock.STUDENTS, "HeliosScheduler"),
    ("AudioDiffusionPipeline", stock.METHOD, "encode: DDIMScheduler"),
    ("PNDMPipeline", stock.REPLACED, "PNDMScheduler"),
    ("LongCatAudioDiTPipeline", stock.REPLACED, "FlowMatchEulerDiscreteScheduler"),
    ("HiDreamImagePipeline", stock.BRANCH, "UniPCMultistepScheduler"),
]


@pytest.mark.parametrize(("name", "group", "what"), CASES, ids=[case[0] for case in CASES])
def test_known_reasons_are_found_where_they_stand(survey, name, group, what):
    reason = next(r for r in survey.reasons(name) if (r.group, r.what) == (group, what))
    text = (survey.sources.root / reason.place.path).read_text(encoding="utf-8").splitlines()
    assert text[reason.place.line - 1].strip()


@pytest.mark.parametrize(
    "name",
    ["StableDiffusionPipeline", "FluxPipeline", "WanPipeline", "SkyReelsV2DiffusionForcingPipeline", "FluxModularPipeline",
     "CosmosVideoToWorldPipeline", "DanceDiffusionPipeline", "StableCascadeDecoderPipeline", "WuerstchenPriorPipeline"],
)  # fmt: skip
def test_pipelines_that_take_it_are_not_listed(survey, name):
    assert survey.reasons(name) == []


def test_pipelines_without_a_scheduler_are_not_counted(survey):
    assert survey.reasons("FluxPriorReduxPipeline") is None


def test_a_verdict_whose_line_is_gone_is_an_error(survey, monkeypatch):
    monkeypatch.setitem(stock.VERDICTS, "KarrasVeScheduler", (stock.PROCESS, "no such line"))
    with pytest.raises(SystemExit, match="look at the verdict on KarrasVeScheduler again"):
        survey.reasons("KarrasVePipeline")


def test_the_list_counts_and_groups(survey):
    names = ["FluxPipeline", "RePaintPipeline", "PNDMPipeline"]
    text = stock.markdown({name: survey.reasons(name) for name in names}, 1)
    assert "Of the 4 public pipeline classes" in text and "3 have a scheduler, and 1 of these cannot take" in text
    assert "FluxPipeline" not in text and text.index("`RePaintPipeline`") < text.index("`PNDMPipeline`")


def test_a_page_without_markers_is_left_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("no place here\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="has no place for the list"):
        stock.put(page, "a list\n")
    page.write_text("before\n" + "old\n".join(stock.MARKERS) + "after\n", encoding="utf-8")
    stock.put(page, "a list\n")
    assert page.read_text(encoding="utf-8") == "before\n" + "a list\n".join(stock.MARKERS) + "after\n"
