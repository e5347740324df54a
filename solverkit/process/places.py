"""Places in a run that draws belong to: intervals of levels, and how many draws were made on each."""

from __future__ import annotations

import struct

from .level import Level


def level_bits(s: float) -> int:
    """A level as 64 bits: its sigma / alpha, the same in every frame, to ten digits, however it was computed."""
    ratio = s.ratio if isinstance(s, Level) else float(s)
    return int(struct.unpack("<Q", struct.pack("<d", abs(float(f"{ratio:.10g}"))))[0])


class Places:
    """Numbers the draws of one run on each interval."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, int], int] = {}

    def next(self, s: float, t: float) -> int:
        """The ordinal of the next draw from s to t: 0, 1, ..."""
        place = level_bits(s), level_bits(t)
        ordinal = self._made.get(place, 0)
        self._made[place] = ordinal + 1
        return ordinal
