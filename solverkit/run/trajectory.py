"""The states of a run, kept for the caller."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import OptionError


class Trajectory:
    """(evaluations + 1, B, ...): x at each evaluation and at the end. Costs its own size, once.

    Args:
        start: Of the run; its shape is the batch's.
        batches: (start, stop) of the samples that are run together.
    """

    def __init__(self, start: Any, batches: list[tuple[int, int]]) -> None:
        self.shape, self.batches, self.done = start.shape, batches, 0
        self.current: list[torch.Tensor] = []
        self.whole: torch.Tensor | None = None

    def add(self, x: torch.Tensor) -> None:
        """The state of one evaluation of the batch that runs."""
        self.current.append(x)

    def close(self, out: torch.Tensor, name: str) -> None:
        """The end of the batch that runs.

        Raises:
            OptionError: a sampler whose states are not those of the whole batch.
        """
        a, b = self.batches[self.done]
        if any(len(x) != b - a for x in self.current):
            raise OptionError(f"{name!r} steps through its samples apart; return_trajectory needs a single sample.")
        states = [*self.current, out]
        self.current = []
        if self.whole is None:
            self.whole = torch.empty(len(states), *self.shape, dtype=out.dtype, device=out.device)
        if len(self.whole) != len(states):
            raise OptionError(f"{name!r} asks another number of times in each batch; give batch_size={self.shape[0]}.")
        for i in range(len(states)):  # moved one by one: the memory of each is free once it was copied
            self.whole[i, a:b] = states[i]
            states[i] = out
        self.done += 1

    @property
    def states(self) -> torch.Tensor | None:
        """What was kept."""
        return self.whole
