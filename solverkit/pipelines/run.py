"""The state of one run of `SolverKitScheduler`: everything that a step changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock, get_ident
from typing import Any, cast

import torch

from ..errors import OptionError, SolverKitError
from ..plan.plan import State
from .latents import count, fitted, repeated, version
from .stepper import Stepper
from .timetable import Timetable, nearest

ANOTHER_LOOP = (
    "this scheduler is in the middle of a run that another loop or another thread drives. One scheduler drives one run at "
    "a time: give each pipeline its own, copy.deepcopy(pipe.scheduler)."
)


COMMIT = Lock()  # nobody else's step comes between looking at a scheduler's run and replacing it


@dataclass
class Run:
    """One run. It may be copied and pickled at any moment.

    A step works on a `fork` and puts it in place at its end: who kept the scheduler's `__dict__` has what it held then.

    Attributes:
        table: All evaluations of the run, and what `set_timesteps` was asked.
        timesteps, sigmas: The very tensors that the scheduler shows: an edit of sigmas is noticed by its version.
        version: The version of `sigmas` that the table was made for.
        stepper: The plan from where the pipeline started; None before the first step.
        step_index, begin_index: As pipelines read and write them.
        done: The evaluation that was made last; -1 before the first.
        before, after: The plan's state before and after it; `before` and `draws` let it be repeated.
        draws: The noise of that evaluation, by place (ordinal, s, t).
        shape: Of its latents; `shape_before` of those that `before` was made of.
        returned: The latents that it returned, and their version.
        scaled: The first `scale_model_input` was seen (it applies a prelude).
        prepared: The latents are past the prelude: the state to go on from.
        thread: Who made the last step; None before the first and after a copy.
        ousted: The `timesteps` of the last runs that this one took the place of; held, so that addresses stay theirs.
    """

    table: Timetable
    timesteps: torch.Tensor
    sigmas: torch.Tensor
    version: Any
    stepper: Stepper | None = None
    step_index: int | None = None
    begin_index: int | None = None
    done: int = -1
    before: State | None = None
    after: State | None = None
    draws: dict[tuple[int, float, float], torch.Tensor] | None = None
    shape: tuple[int, ...] = ()
    shape_before: tuple[int, ...] = ()
    returned: tuple[torch.Tensor, int] | None = None
    scaled: bool = False
    prepared: State | None = None
    thread: int | None = None
    ousted: tuple[torch.Tensor, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        kept = self.returned
        same = {"version": version(self.sigmas) == self.version, "returned": kept and (kept[0], count(kept[0]) == kept[1])}
        return {**self.__dict__, "thread": None, "ousted": (), **same}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.version = version(self.sigmas) if state["version"] else None  # a copied tensor counts its versions anew
        kept = self.returned
        self.returned = (kept[0], count(kept[0])) if kept and kept[1] else None

    def fork(self) -> Run:
        """A shallow copy."""
        new = object.__new__(Run)
        new.__dict__ = self.__dict__.copy()
        return new

    @property
    def unfinished(self) -> bool:
        """A first step was made, and the last one was not."""
        return self.step_index is not None and self.step_index < self.table.length

    def find(self, timestep: Any) -> int:
        """Where the loop starts: what the pipeline said, or the place of its timestep in `timesteps`.

        An element of `timesteps` is known by its address, which needs no copy from the device.
        """
        if self.begin_index is not None:
            return self.begin_index
        place = _place(timestep, self.timesteps)
        return nearest(self.timesteps.tolist(), timestep, self.table.plan) if place is None else place

    def turn(self, timestep: Any, eta: float) -> int:
        """Of which evaluation this step is; notes who makes it.

        A thread pool may make each step of one run in another thread. What tells two runs apart is that one of them is not
        where its loop thinks.

        Raises:
            OptionError: one timestep a sample.
            SolverKitError: another thread's run is in the way.
        """
        index, thread, told = self.step_index, get_ident(), self.timesteps
        if isinstance(timestep, torch.Tensor):
            next_one = thread == self.thread and index is not None and index < self.table.length
            if next_one and timestep.data_ptr() - told.data_ptr() == cast(int, index) * told.element_size() != 0:
                return cast(int, index)  # the element that is next
            timestep = one(timestep) if timestep.ndim else timestep
        if index is None:
            self.adopt(timestep)
        place, going = _place(timestep, self.timesteps), index is not None and index < self.table.length
        if any(_place(timestep, old) is not None for old in self.ousted) or (going and place not in (None, index)):
            raise SolverKitError(ANOTHER_LOOP)
        if going and (place is not None or thread == self.thread):
            self.thread = thread
            return cast(int, index)
        if index is None:
            index = self.find(timestep)
            if eta and (table := self.table.noisier(float(eta))) is not self.table:
                self.table, self.stepper = table, None
        elif index >= self.table.length:
            if self.begin_index is None and float(timestep) != float(self.timesteps[-1]):
                index = self.find(timestep)  # a loop over timesteps that are no loop
        elif self.thread is not None and not self.expects(index, timestep):
            raise SolverKitError(ANOTHER_LOOP)
        self.step_index, self.thread = index, thread
        return index

    def adopt(self, timestep: Any) -> None:
        """A loop that begins, over timesteps of an earlier `set_timesteps` with the same values, drives this run."""
        for old in self.ousted:
            if _place(timestep, old) == 0 and torch.equal(old, self.timesteps):
                others = tuple(table for table in self.ousted if table is not old)
                self.timesteps, self.ousted = old, (*others, self.timesteps)
                return

    def expects(self, index: int, timestep: Any) -> bool:
        """The loop is at timestep `index`."""
        told = float(timestep)
        return abs(told - float(self.timesteps[index])) <= 1e-3 * max(1.0, abs(told))

    def plan_from(self, index: int, x: torch.Tensor) -> Stepper | None:
        """The plan that has timestep `index` in it, for latents like x; None where the timestep changes nothing.

        It begins anew where the loop jumped, or where latents of another dtype come.

        Raises:
            SolverKitError: the run is finished.
            TraceError: the sampler cannot start there.
        """
        stepper = self.stepper
        done = self.done
        if stepper is not None and (index == done + 1 or index == done >= stepper.start) and stepper.takes(index, x):
            return stepper
        if index >= self.table.length:
            length = self.table.length
            raise SolverKitError(f"the run is finished: it has {length} timesteps. Call set_timesteps to begin anew.")
        if index >= self.table.plan.nfe:
            return None
        return self.restart(index, self.dtype(x))

    def rest(self, index: int, x: torch.Tensor, output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
        """A timestep of length zero, which pipelines make that repeat the smallest sigma: the latents stay."""
        w_x, w_out = self.table.convention.weights(self.table.level(index))
        self.step_index = index + 1
        return x.to(output.dtype, copy=True), x * w_x + output * w_out, 1.0

    @staticmethod
    def dtype(x: torch.Tensor) -> torch.dtype:
        """Of the plan for latents like x."""
        return torch.float64 if x.dtype is torch.float64 else torch.float32

    def restart(self, index: int, dtype: torch.dtype) -> Stepper:
        """Begin at a timestep: the plan from there, and no history.

        Raises:
            TraceError: the sampler cannot start there.
        """
        stepper = self.stepper
        if stepper is None or stepper.start != index or stepper.dtype is not dtype:
            stepper = self.table.stepper(index, dtype).placed(self.timesteps.device)
        self.stepper, self.before, self.after, self.draws, self.done = stepper, None, None, None, index - 1
        self.returned = None
        return stepper

    def entered(self, stepper: Stepper, index: int, x: torch.Tensor) -> tuple[Stepper, torch.Tensor, State]:
        """The plan, the latents that evaluation `index` saw, and the plan's state before it.

        Raises:
            SolverKitError: the network cannot have seen the latents after the prelude.
        """
        if index == self.done:
            state, shape = self.before, self.shape_before
        else:
            state, shape, self.draws = self.after, self.shape, None
        if state is not None and shape != x.shape and (state := fitted(state, shape, x)) is None:
            stepper = self.restart(index, stepper.dtype)  # latents of another shape: the history is of no use
        if state is not None and index > stepper.start:
            return stepper, x, state
        if stepper.prelude and self.prepared is not None:
            return stepper, x, self.prepared
        if stepper.prelude and not self.scaled:
            raise SolverKitError(
                "this sampler changes the latents before its first evaluation, and the pipeline asks the network without "
                "calling scale_model_input. Do it first: latents = pipe.scheduler.prepare(latents, num_inference_steps), "
                "with the arguments that the pipeline passes to set_timesteps, then pipe(latents=latents)."
            )
        return (stepper, *stepper.enter(x))

    def draw_like(
        self, x: torch.Tensor, fresh: Callable[[], torch.Tensor], given: torch.Tensor | None
    ) -> Callable[[int, float, float], torch.Tensor]:
        """The noise of this evaluation: what it drew before, else what the pipeline gave, else a fresh draw."""

        self.draws = drawn = dict(self.draws or {})

        def draw(ordinal: int, s: float, t: float) -> torch.Tensor:
            place = ordinal, s, t
            if place not in drawn:
                drawn[place] = fresh() if given is None else given.clone()
            return repeated(drawn[place], len(x))

        return draw

    def commit(self, index: int, before: State, after: State, shape: tuple[int, ...], previous: torch.Tensor) -> None:
        """Note that evaluation `index` was made of latents of a shape, and what it returned."""
        self.before, self.after, self.shape_before, self.shape = before, after, shape, shape
        self.done, self.step_index = index, index + 1
        self.returned = (previous, count(previous)) if after.values else None

    def unedited(self, index: int, sample: torch.Tensor) -> torch.Tensor | None:
        """Where the latents of evaluation `index` are what the last step returned: None everywhere, else a mask.

        Latents that were changed in place cannot be compared any more and count as unchanged.
        """
        if self.returned is None or self.returned[0] is sample or index != self.done + 1:
            return None
        kept, its_version = self.returned
        if kept.shape != sample.shape or count(kept) != its_version:
            return None
        same = sample == kept.to(sample.device)
        return None if sample.device.type == "cpu" and bool(same.all()) else same


def _place(timestep: Any, table: torch.Tensor) -> int | None:
    """The index of a timestep that is an element of this very table, by its address; None for any other value."""
    if not isinstance(timestep, torch.Tensor) or timestep.dtype is not table.dtype or timestep.device != table.device:
        return None
    begin, size = table.data_ptr(), table.element_size()
    place = timestep.data_ptr() - begin
    return place // size if begin and 0 <= place < size * len(table) and place % size == 0 else None  # 0: it does not say


def one(timesteps: torch.Tensor) -> torch.Tensor:
    """The timestep that all samples share.

    Raises:
        OptionError: they differ.
    """
    if timesteps.numel() > 1 and bool((timesteps != timesteps.flatten()[0]).any()):
        raise OptionError(
            f"step got {timesteps.numel()} different timesteps, one a sample, and a run has one level at a time. "
            "Give each sample a scheduler of its own, or per_token_timesteps= of a flow model."
        )
    return timesteps.flatten()[0]
