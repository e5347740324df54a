"""Fast tests first: what takes long runs at the end."""

from __future__ import annotations

LAST = ("test_pipelines", "test_testing", "test_samplers", "test_networks", "test_packaging")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LAST.index(item.path.stem) if item.path.stem in LAST else -1)
