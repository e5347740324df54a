"""README's code runs as pasted."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_the_code_blocks_run_one_after_the_other(monkeypatch, tmp_path):
    monkeypatch.setenv("SOLVERKIT_CACHE", str(tmp_path))  # auto keeps a trial there
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)
    assert len(blocks) >= 2
    names: dict[str, object] = {}
    for block in blocks:
        if "pipe.scheduler" not in block:  # needs a pipeline: tests/test_pipelines.py
            exec(block, names)
    assert names["result"].nfe == 10
