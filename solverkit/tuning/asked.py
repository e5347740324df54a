"""What a calibration is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import OptionError
from ..grid.named import is_count
from .fit import STARTS

LEAST = 8  # noises


@dataclass(frozen=True)
class Asked:
    """What a call of `tune` asks for; see there."""

    nfe: tuple[int, ...]
    samples: int
    validation: int
    starts: int
    passes: int
    history: int
    fast: bool
    seed: int
    reference_evaluations: int | None
    model: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def require(self) -> None:
        """Raises OptionError where the budgets or counts make no sense."""
        if not self.nfe or self.nfe[0] < 2 or len(set(self.nfe)) != len(self.nfe):
            raise OptionError(f"nfe= is a list of different budgets of at least 2 evaluations, got {list(self.nfe)!r}.")
        for name in ("samples", "validation"):
            if not is_count(getattr(self, name)) or getattr(self, name) < LEAST:
                raise OptionError(f"{name}= is a number of noises, at least {LEAST}; got {getattr(self, name)!r}.")
        if not is_count(self.starts) or self.starts > len(STARTS):
            raise OptionError(f"starts= is 1 to {len(STARTS)}, got {self.starts!r}.")
        if not (is_count(self.passes) and is_count(self.history)):
            raise OptionError(
                f"passes= and history= are whole numbers of at least 1, got {self.passes!r} and {self.history!r}."
            )
        if self.reference_evaluations is not None and not is_count(self.reference_evaluations):
            raise OptionError(
                f"reference_evaluations= is a whole number of at least 1, got {self.reference_evaluations!r}."
            )
