"""One thread a worker, set before torch is loaded; fast tests first."""

from __future__ import annotations

import os
import sys
from pathlib import Path

for name, value in (("OMP_NUM_THREADS", "1"), ("MKL_NUM_THREADS", "1"), ("OMP_WAIT_POLICY", "passive")):
    os.environ.setdefault(name, value)  # idle threads of two workers on two cores would spin

import pytest  # noqa: E402
import torch  # noqa: E402

LAST = (
    "test_constraints", "test_predictor_corrector", "test_metropolis", "test_teleportation", "test_modular",
    "test_pipelines", "test_testing", "test_samplers", "test_networks", "test_packaging",
)  # fmt: skip


torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parent / "released"))  # the samplers of k-diffusion 0.1.1.post1, as released


def pytest_addoption(parser):
    parser.addoption("--all-pairs", action="store_true", help="every pipeline with every sampler, not a choice of pairs")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LAST.index(item.path.stem) if item.path.stem in LAST else -1)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """No test reads or writes the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOLVERKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    """cli("bench", ...) -> (exit code, standard output, standard error), run in an empty folder."""
    from solverkit.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOLVERKIT_CACHE", str(tmp_path / "cache"))

    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            main(list(arguments))
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return run
