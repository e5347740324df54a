"""Fast tests first: what takes long runs at the end."""

from __future__ import annotations

import pytest
import torch

LAST = ("test_pipelines", "test_testing", "test_samplers", "test_networks", "test_packaging")


torch.set_num_threads(1)  # two workers on two cores


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LAST.index(item.path.stem) if item.path.stem in LAST else -1)


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
