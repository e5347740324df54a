"""A row: what is known of one cell that was run."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]
CELL_KEYS = ("model", "model_fingerprint", "sampler", "options", "grid", "budget", "num_samples", "seed")
