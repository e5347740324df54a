"""The state of one run of `SolverKitScheduler`: everything that `set_timesteps` resets and `step` changes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..errors import OptionError, SolverKitError
from ..plan.plan import Plan, State, begin
from ..process.level import Level
from ..process.schedule import Flow
from ..process.variance_preserving import DiscreteVP
from .convention import Convention
from .native_plan import NativePlan

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
        config: The settings that the plan was made with.
        lead: How many first-order steps fill its beginning.
        asked: The arguments of `set_timesteps`.
        idle: Evaluations after the plan's last that change nothing.
        native: The plan from where the pipeline started; None before the first step.
        step_index, begin_index: As pipelines read and write them.
        done: The evaluation that was made last; -1 before the first.
        before, after: The plan's state before and after it; `before` and `draws` let it be repeated.
        draws: The noise of that evaluation, by place (ordinal, s, t).
        shape: Of its latents; `shape_before` of those that `before` was made of.
        scaled: The first `scale_model_input` was seen (it applies a prelude).
        prepared: The latents are past the prelude: the state to go on from.
        eta: What the pipeline passed at the first step; `traced_eta` is what the plan was traced with.
        thread: Who began it; None after a copy, which belongs to whoever uses it first.
    """

    convention: Convention
    plan: Plan
    sigmas: torch.Tensor
    version: Any
    config: dict[str, Any]
    lead: int = 0
    asked: tuple[Any, ...] = ()
    idle: int = 0
    native: NativePlan | None = None
    step_index: int | None = None
    begin_index: int | None = None
    done: int = -1
    before: State | None = None
    after: State | None = None
    draws: dict[tuple[int, float, float], torch.Tensor] | None = None
    shape: tuple[int, ...] = ()
    shape_before: tuple[int, ...] = ()
    scaled: bool = False
    prepared: State | None = None
    eta: float = 0.0
    traced_eta: float = 0.0
    thread: int | None = field(default_factory=threading.get_ident)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "thread": None, "version": version(self.sigmas) == self.version}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.version = version(self.sigmas) if state["version"] else None  # a copied tensor counts its versions anew

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

    def state(self, index: int) -> tuple[State | None, tuple[int, ...]]:
        """The plan's state before an evaluation (the last one again, or the one after it), and the shape it was made for.

        None for the first evaluation.
        """
        if index == self.done:
            return self.before, self.shape_before
        self.draws = None
        return self.after, self.shape

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


def fitted(state: State, shape: tuple[int, ...], x: torch.Tensor) -> State | None:
    """A state of latents of `shape` for a batch that guidance doubled, or halved again; None where they do not fit."""
    if x.shape == shape:
        return state
    if x.shape[1:] != shape[1:] or (len(x) % shape[0] and shape[0] % len(x)):
        return None
    values = [repeated(value, len(x)) if len(value) == shape[0] else value for value in state.values]
    return State(state.index, tuple(values))


def repeated(value: torch.Tensor, n: int) -> torch.Tensor:
    """A kept value (B, ...) for n samples: repeated as torch.cat repeats a batch, or cut."""
    if len(value) >= n:
        return value[:n]
    return value.repeat(n // len(value), *[1] * (value.ndim - 1))


def version(tensor: torch.Tensor) -> Any:
    """What changes when a tensor is edited; tensors of inference mode do not count their versions."""
    return tuple(tensor.tolist()) if tensor.is_inference() else tensor._version


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
    with torch.inference_mode(False):  # so that an edit of sigmas is seen
        timesteps = torch.tensor(told, dtype=torch.int64 if whole else torch.float32, device="cpu")
        values = [convention.sigma(level) for level in (*levels, end)]
        sigmas = torch.tensor(values, dtype=torch.float32, device="cpu")
    return timesteps.to(device), sigmas


def training_table(convention: Convention, total: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`timesteps` and `sigmas` before a run has begun: those of training, from the most noise to none."""
    schedule = convention.schedule
    with torch.inference_mode(False), torch.device("cpu"):
        if isinstance(schedule, DiscreteVP):
            sigmas = torch.from_numpy(schedule.log_ratios.copy()).exp().flip(0).float()
            return torch.arange(len(sigmas) - 1, -1, -1), torch.cat([sigmas, torch.zeros(1)])
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
        denoised = given.to(x.dtype, copy=True)
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
