"""Fast tests first: what takes long runs at the end."""

from __future__ import annotations

import torch

LAST = ("test_pipelines", "test_testing", "test_samplers", "test_networks", "test_packaging")


torch.set_num_threads(1)  # two workers on two cores


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LAST.index(item.path.stem) if item.path.stem in LAST else -1)
