"""The state of one run of `SolverKitScheduler`: everything that `set_timesteps` resets and `step` changes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .diffusers_convention import Convention
from .errors import OptionError, SolverKitError
from .level import Level
from .native_plan import NativePlan
from .plan import Plan, State, begin
from .schedule import Flow
from .variance_preserving import DiscreteVP

ANOTHER_THREAD = (
    "this scheduler is in the middle of a run that another thread began with set_timesteps. One scheduler drives one run "
    "at a time: give each pipeline its own, copy.deepcopy(pipe.scheduler), and call set_timesteps in the thread that runs "
    "the loop."
)


@dataclass
class Run:
    """One run, owned by the thread that began it. It may be copied and pickled at any moment.

    A step works on a `fork` and puts it in place at its end: who kept the scheduler's `__dict__` has what it held then.

    Attributes:
        convention: How the latents are to be read.
        plan: All evaluations of the run, from the first timestep.
        sigmas: The very tensor that the scheduler shows: an edit of it is noticed by its version.
        version: The version of `sigmas` that the plan was made for.
        asked: The arguments of `set_timesteps`.
        idle: Evaluations after the plan's last that change nothing.
        native: The plan from where the pipeline started; None before the first step.
        step_index, begin_index: As pipelines read and write them.
        done: The evaluation that was made last; -1 before the first.
        before, after: The plan's state before and after it; `before` and `draws` let it be repeated.
        draws: The noise of that evaluation, by ordinal.
        shape: Of its latents.
        scaled: The first `scale_model_input` was seen (it applies a prelude).
        prepared: The latents are past the prelude: the state to go on from.
        eta: What the pipeline passed at the first step; `traced_eta` is what the plan was traced with.
        thread: Who began it; None after a copy, which belongs to whoever uses it first.
    """

    convention: Convention
    plan: Plan
    sigmas: torch.Tensor
    version: int
    asked: tuple[Any, ...] = ()
    idle: int = 0
    native: NativePlan | None = None
    step_index: int | None = None
    begin_index: int | None = None
    done: int = -1
    before: State | None = None
    after: State | None = None
    draws: dict[int, torch.Tensor] | None = None
    shape: tuple[int, ...] = ()
    scaled: bool = False
    prepared: State | None = None
    eta: float = 0.0
    traced_eta: float = 0.0
    thread: int | None = field(default_factory=threading.get_ident)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "thread": None, "version": self.sigmas._version - self.version}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.version = self.sigmas._version - state["version"]  # a copied tensor counts its versions anew

    def fork(self) -> Run:
        """A shallow copy."""
        new = object.__new__(Run)
        new.__dict__ = self.__dict__.copy()
        return new

    @property
    def length(self) -> int:
        """How many timesteps the run has."""
        return self.plan.nfe + self.idle

    def level(self, index: int) -> Level:
        """The level of a timestep; that of the end behind the last."""
        return self.plan.levels[index] if index < self.plan.nfe else self.plan.grid[-1]

    def owned(self) -> None:
        """Raises SolverKitError where another thread began the run."""
        if self.thread is None:
            self.thread = threading.get_ident()
        if self.thread != threading.get_ident():
            raise SolverKitError(ANOTHER_THREAD)

    def restart(self, native: NativePlan | None) -> None:
        """Begin at the first evaluation of a plan."""
        self.native, self.before, self.after, self.draws = native, None, None, None
        self.done = -1 if native is None else native.start - 1

    def state(self, index: int, x: torch.Tensor) -> State | None:
        """The plan's state before an evaluation: the last one again, or the one after it.

        None where the latents have another shape than what is kept of them.
        """
        if index != self.done:
            self.draws = None
        state = self.before if index == self.done else self.after
        if state is None:  # the first evaluation
            return State(0, ())
        if all(value.shape == x.shape for value in state.values):
            return state
        values = tuple(repeated(value, x) for value in state.values)
        return State(state.index, values) if all(value.shape == x.shape for value in values) else None

    def draw_like(
        self, x: torch.Tensor, fresh: Callable[[], torch.Tensor], given: torch.Tensor | None
    ) -> Callable[[int, float, float], torch.Tensor]:
        """The noise of this evaluation: what it drew before, else what the pipeline gave, else a fresh draw."""

        self.draws = drawn = dict(self.draws or {})

        def draw(ordinal: int, s: float, t: float) -> torch.Tensor:
            if ordinal not in drawn:
                drawn[ordinal] = fresh() if given is None else given
            return repeated(drawn[ordinal], x)

        return draw

    def entered(self, native: NativePlan, x: torch.Tensor) -> tuple[torch.Tensor, State]:
        """The latents that the first evaluation saw, and the plan's state there.

        Raises:
            SolverKitError: the network cannot have seen the latents after the prelude.
        """
        if not native.prelude:
            return x, State(0, ())
        if self.prepared is not None:
            return x, self.prepared
        if not self.scaled:
            raise SolverKitError(
                "this sampler changes the latents before its first evaluation, and the pipeline asks the network without "
                "calling scale_model_input. Do it first: latents = pipe.scheduler.prepare(latents, num_inference_steps), "
                "with the arguments that the pipeline passes to set_timesteps, then pipe(latents=latents)."
            )
        return begin(native.plan, x)


def repeated(value: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A kept value for a batch that guidance doubled, or halved again; unchanged where no repetition fits."""
    if value.shape == x.shape or value.shape[1:] != x.shape[1:]:
        return value
    if len(x) % len(value) == 0:
        return value.repeat(len(x) // len(value), *[1] * (value.ndim - 1))
    return value[: len(x)] if len(value) % len(x) == 0 else value


def mixed(weights: Sequence[tuple[float, float]], x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """a x + b noise with one pair of weights, or one a sample; dtype and device of x."""
    if len(set(weights)) == 1:
        return x * weights[0][0] + noise * weights[0][1]
    columns = torch.tensor(weights, dtype=torch.float32).to(x.device, x.dtype)
    a, b = (column.reshape(-1, *[1] * (x.ndim - 1)) for column in columns.T)
    return a * x + b * noise


def wide(x: torch.Tensor) -> torch.Tensor:
    """Half precision becomes float32; everything else stays."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def shown(
    convention: Convention, levels: Sequence[Level], end: Level, device: torch.device | str | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """`timesteps` (what the network is told; integers where all are) and `sigmas` (one more), as pipelines read them."""
    told = [convention.told(level) for level in levels]
    whole = isinstance(convention.schedule, DiscreteVP) and all(t == round(t) for t in told)
    timesteps = torch.tensor([round(t) for t in told]) if whole else torch.tensor(told, dtype=torch.float32)
    sigmas = torch.tensor([convention.sigma(level) for level in (*levels, end)], dtype=torch.float32)
    return timesteps.to(device), sigmas


def training_table(convention: Convention, total: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`timesteps` and `sigmas` before a run has begun: those of training, from the most noise to none."""
    schedule = convention.schedule
    if isinstance(schedule, DiscreteVP):
        sigmas = torch.from_numpy(schedule.log_ratios).exp().flip(0).float()
        return torch.arange(total - 1, -1, -1), torch.cat([sigmas, torch.zeros(1)])
    u = torch.linspace(1, 1 / total, total)
    if isinstance(schedule, Flow):
        t = schedule.shift * u / (1 + (schedule.shift - 1) * u)
        t, end = (1 - t, torch.ones(1)) if convention.inverted else (t, torch.zeros(1))
        return t * schedule.time_scale, torch.cat([t, end])
    ratios = schedule.ratio_min * (schedule.ratio_max / schedule.ratio_min) ** u
    told = torch.tensor([schedule.time(r) for r in ratios.tolist()])
    return told, torch.cat([ratios, torch.zeros(1)])


def predicted(
    convention: Convention, native: NativePlan, j: int, x: torch.Tensor, model_output: torch.Tensor,
    given: torch.Tensor | None, per_token_timesteps: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """What a plan stores of evaluation j, and the denoised prediction: where it is given, clipped, or of mixed levels.

    Raises:
        OptionError: per-token timesteps on a model that is no flow.
    """
    w_x, w_out = native.weights[j]
    if given is not None:
        denoised = given.to(x.dtype)
    elif per_token_timesteps is not None:
        if not isinstance(convention.schedule, Flow):
            raise OptionError("per_token_timesteps= is for flow-matching models.")
        denoised = x + (per_token_timesteps / convention.schedule.time_scale)[..., None].to(x.dtype) * model_output
    else:
        denoised = x * w_x + model_output * w_out
    denoised = convention.clipped(denoised)
    unit = native.predictions[j].unit if native.predictions else 1.0
    return denoised / unit, denoised


def on_level(per_token_timesteps: torch.Tensor, level: Level) -> torch.Tensor:
    """Which tokens are at the level of the run."""
    return (per_token_timesteps - level.time).abs() <= 1e-3 * max(abs(level.time), 1.0)
