"""`SolverKitScheduler`: every traceable sampler as a scheduler of diffusers pipelines.

It knows no solver by name: `set_timesteps` traces the sampler to a plan, `step` executes one row of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import get_ident
from typing import Any, cast

import numpy as np
import torch
from diffusers import SchedulerMixin as SchedulerMixin  # public: diffusers looks for it beside the class
from diffusers.configuration_utils import ConfigMixin, FrozenDict, register_to_config
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from diffusers.utils.outputs import BaseOutput
from diffusers.utils.torch_utils import randn_tensor

from ..errors import GridError, OptionError, SolverKitError
from ..model.denoiser import fit_channels
from ..plan.plan import advance, begin
from ..process.level import Level
from ..process.variance_preserving import DiscreteVP
from .config import check, merged, native_part, settings
from .convention import Convention
from .native_plan import NativePlan, Timetable, followed, lay_out, rewrite, start_at, with_lead
from .request import Request
from .run import ANOTHER_THREAD, Run, fitted, mixed, on_level, predicted, shown, training_table, version, wide


@dataclass
class SolverKitSchedulerOutput(BaseOutput):
    """What `step` returns.

    Attributes:
        prev_sample: The latents that the network sees next, shape of `sample`, dtype of the model's output.
        pred_original_sample: The denoised prediction of this evaluation, same shape and dtype.
    """

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor


class SolverKitScheduler(SchedulerMixin, ConfigMixin):
    """A drop-in for the scheduler of a diffusers pipeline.

        pipe.scheduler = SolverKitScheduler.from_config(pipe.scheduler.config, sampler="unipc", grid="karras")

    Args:
        sampler: A registered traceable sampler (`solverkit samplers`).
        grid: A registered grid ("karras", "flow:shift=3"), or None for the layout that the native config describes.
        sampler_options: Options of the sampler.
        native_class: The class of diffusers whose place it takes: it decides the defaults of all keys below, and in what
            coordinates the latents are.
        num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas, prediction_type, timestep_spacing,
            steps_offset, rescale_betas_zero_snr, clip_sample, shift, use_dynamic_shifting, sigma_min, sigma_max,
            sigma_data, integer_time: As in the native class; None is its default.

    Raises:
        SolverKitError: one of its children: a sampler, grid, option or key that does not exist, or a config that cannot be
            honoured.
    """

    __module__ = "solverkit"  # what a saved pipeline names: importing solverkit is then enough to load it
    _compatibles = [*(e.name for e in KarrasDiffusionSchedulers), "FlowMatchEulerDiscreteScheduler"]
    order = 1
    _internal_dict: dict[str, Any]

    @register_to_config  # type: ignore[untyped-decorator, unused-ignore]
    def __init__(
        self,
        sampler: str = "dpmpp-2m",
        grid: str | None = None,
        sampler_options: dict[str, Any] | None = None,
        native_class: str = "DDIMScheduler",
        num_train_timesteps: int | None = None,
        beta_start: float | None = None,
        beta_end: float | None = None,
        beta_schedule: str | None = None,
        trained_betas: list[float] | None = None,
        prediction_type: str | None = None,
        timestep_spacing: str | None = None,
        steps_offset: int | None = None,
        rescale_betas_zero_snr: bool | None = None,
        clip_sample: bool | None = None,
        shift: float | None = None,
        use_dynamic_shifting: bool | None = None,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        sigma_data: float | None = None,
        integer_time: bool | None = None,
    ) -> None:
        private = ("_use_default_values",)
        given = {key: value for key, value in self.config.items() if value is not None and key not in private}
        self._configure(merged({}, given))

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """A scheduler for the network that a native scheduler's config belongs to.

        Args:
            config: `pipe.scheduler.config`, or the content of scheduler_config.json.
            return_unused_kwargs: Also return a dict of what was not used (always empty).
            kwargs: `sampler`, `grid`, `sampler_options`, `native_class`, and native keys to override.

        Raises:
            OptionError: a key that nobody knows; it is not ignored.
            ScheduleError: a config that cannot be honoured.
        """
        if not isinstance(config, dict):
            raise OptionError(
                f"from_config needs a config (a dict such as pipe.scheduler.config), got {type(config).__name__}; "
                "for a folder or a hub id use from_pretrained."
            )
        scheduler = cls.__new__(cls)
        scheduler._configure(merged(config, kwargs))
        return (scheduler, {}) if return_unused_kwargs else scheduler

    def _configure(self, config: dict[str, Any]) -> None:
        self._internal_dict = FrozenDict({**config, "_class_name": type(self).__name__})
        if config.get("use_flow_sigmas"):
            # Some pipelines drop their own sigmas when they see the attribute; X.from_config reads the item.
            self._internal_dict.__dict__["use_flow_sigmas"] = False
        convention = self._convention()
        self._run: Run | None = None
        self._prepared: tuple[Any, ...] | None = None
        self._timetable: Timetable | None = None
        self.num_inference_steps: int | None = None
        self.model_outputs: list[Any] = []  # pipelines that cut the history of multistep classes look for these two
        self.last_sample = None
        schedule = convention.schedule
        if isinstance(schedule, DiscreteVP):
            alphas_cumprod = 1 / (1 + np.exp(2 * schedule.log_ratios))
            alphas = alphas_cumprod / np.concatenate([[1.0], alphas_cumprod[:-1]])
            tables = (alphas_cumprod, alphas, 1 - alphas, np.array(1.0))
            self.alphas_cumprod, self.alphas, self.betas, self.final_alpha_cumprod = (
                torch.tensor(table, dtype=torch.float32, device="cpu") for table in tables
            )
        self.timesteps, self.sigmas = training_table(convention, int(config.get("num_train_timesteps") or 1000))

    def _convention(self) -> Convention:
        config = settings(self._internal_dict)
        return Convention.read(native_part(config), config["native_class"])

    # -- what pipelines read -------------------------------------------------------------------------------------------

    @property
    def init_noise_sigma(self) -> float:
        """What pipelines multiply unit noise by to get their first latents."""
        convention = self._convention() if self._run is None else self._run.convention
        sigmas = self.sigmas[torch.isfinite(self.sigmas)]
        return convention.init_noise_sigma(float(sigmas.max()) if len(sigmas) else 1.0)

    @property
    def nfe(self) -> int:
        """How many network calls the run makes from its first timestep.

        Raises:
            SolverKitError: before `set_timesteps`.
        """
        return self._begun().length

    @property
    def step_index(self) -> int | None:
        """The index of the next timestep; None before the first."""
        return self._step_index

    @property
    def _step_index(self) -> int | None:
        return None if self._run is None else self._run.step_index

    @_step_index.setter
    def _step_index(self, index: int | None) -> None:
        run = self._begun().fork()
        run.owned()
        run.step_index = index
        self._run = run

    @property
    def begin_index(self) -> int | None:
        """Where the pipeline said that it starts; None where it did not."""
        return None if self._run is None else self._run.begin_index

    @property
    def _begin_index(self) -> int | None:
        return self.begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Say where the loop starts, so that `step` need not look the timestep up.

        Raises:
            OptionError: there is no such timestep.
        """
        if self._run is None:
            return  # a run that begins forgets it anyway
        run = self._run.fork()
        run.owned()
        if not 0 <= begin_index < run.length:
            raise OptionError(f"begin_index must be 0 to {run.length - 1}, the last of this run, got {begin_index}.")
        run.begin_index = begin_index
        self._run = run

    def __len__(self) -> int:
        return int(self._internal_dict["num_train_timesteps"])

    def index_for_timestep(self, timestep: Any, schedule_timesteps: torch.Tensor | None = None) -> int:
        """The index of the nearest timestep; of equal ones the first that starts a step."""
        table = (self.timesteps if schedule_timesteps is None else schedule_timesteps).tolist()
        value = float(timestep.flatten()[0] if isinstance(timestep, torch.Tensor) else timestep)
        nearest = min(abs(t - value) for t in table)
        found = [i for i, t in enumerate(table) if abs(t - value) == nearest]
        plan = None if self._run is None else self._run.plan
        starts = [i for i in found if plan is None or i >= plan.nfe or plan.boundary[i]]
        return (starts or found)[0]

    # -- noise ---------------------------------------------------------------------------------------------------------

    def add_noise(self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Clean samples brought to the levels of `timesteps` (one, or one a sample), in the coordinates of the latents."""
        convention, levels = self._levels(timesteps)
        return mixed([convention.marginal(level) for level in levels], original_samples, noise)

    def scale_noise(self, sample: torch.Tensor, timestep: Any, noise: torch.Tensor | None = None) -> torch.Tensor:
        """`add_noise` in the order of arguments of the flow-matching classes.

        Raises:
            OptionError: noise is missing.
        """
        if noise is None:
            raise OptionError("scale_noise needs noise, a tensor of the shape of sample.")
        return self.add_noise(sample, noise, timestep)

    def get_velocity(self, sample: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """What a v-prediction network (alpha eps - sigma x_0) or a flow network (eps - x_0) is trained on.

        Raises:
            OptionError: the process has no such target.
        """
        convention, levels = self._levels(timesteps)
        return mixed([convention.velocity(level) for level in levels], sample, noise)

    def _levels(self, timesteps: Any) -> tuple[Convention, list[Level]]:
        """The level of each given timestep: of the run where it is one of its own, else of the network."""
        given = timesteps.tolist() if hasattr(timesteps, "tolist") else timesteps
        given = list(given) if isinstance(given, (list, tuple)) else [given]
        if self._run is None:
            convention = self._convention()
            return convention, [convention.level(convention.ratio(float(t))) for t in given]
        run = self._run = self._followed(self._run)
        told = {t: i for i, t in reversed(list(enumerate(self.timesteps.tolist())))}
        convention = run.convention
        own = (run.level(told[t]) if t in told else convention.level(convention.ratio(float(t))) for t in given)
        return convention, list(own)

    # -- the run -------------------------------------------------------------------------------------------------------

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
    ) -> None:
        """Begin a run.

        Args:
            num_inference_steps: Solver steps where a step has one or two evaluations, else network evaluations.
            device: Of `timesteps`, and of a plan's constants.
            timesteps: What the network is told, falling; a list, array or tensor.
            sigmas: Noise levels, falling: sigma / alpha, or t in (0, 1] of a flow model before its shift. One trailing zero
                is dropped. With both, `timesteps` are told and `sigmas` are run.
            mu: Of the dynamic shift; ignored where the config does not ask for one.

        Raises:
            SolverKitError: one of its children: levels that the model does not have, or a sampler that cannot run on them.
        """
        table = self._timetable_for(num_inference_steps, timesteps, sigmas, mu)
        plan, asked = table.layout.plan, table.asked
        prepared, self._prepared = self._prepared, None
        if prepared is not None and prepared[0] != asked:
            raise SolverKitError(
                f"prepare() was called for {prepared[0][0]} steps and other arguments than this run's {asked[0]} steps; "
                "call prepare with the arguments that the pipeline will pass to set_timesteps."
            )
        self.order, self.num_inference_steps = table.layout.order, asked[0]
        self.timesteps, self.sigmas = shown(table.convention, plan.levels, plan.grid[-1], device)
        run = Run(table.convention, plan, self.sigmas, version(self.sigmas), table.config, table.layout.lead, asked)
        run.restart(table.native.placed(device))
        if prepared is not None:
            run.prepared = prepared[1]
        self._run = run

    def _timetable_for(self, num_inference_steps: int | None, timesteps: Any, sigmas: Any, mu: float | None) -> Timetable:
        config, last = settings(self._internal_dict), self._timetable
        convention = last.convention if last is not None and last.config == config else self._convention()
        request = Request(convention, config, config["grid"], num_inference_steps, timesteps, sigmas, mu)
        if last is None or last.config != config or last.asked != request.asked:
            layout = lay_out(check(config), config["sampler_options"], request.make, request.n)
            native = rewrite(layout.plan, convention, 0)
            last = self._timetable = Timetable(config, request.asked, convention, layout, native)
        return last

    def prepare(self, latents: torch.Tensor, num_inference_steps: int | None = None, **arguments: Any) -> torch.Tensor:
        """Apply what a sampler does before its first evaluation (a teleportation) to a pipeline's starting latents.

        For pipelines that never call `scale_model_input`. The next `set_timesteps` with the same arguments goes on from
        these latents.

        Args:
            latents: Unit noise, (B, ...), as a pipeline takes it.
            num_inference_steps: As for `set_timesteps`.
            arguments: The others of `set_timesteps`: device, timesteps, sigmas, mu.

        Returns:
            The latents to pass to the pipeline as `latents=`.
        """
        self._prepared = None
        self.set_timesteps(num_inference_steps, **arguments)
        run, scale = self._begun(), self.init_noise_sigma
        x, state = begin(cast(NativePlan, run.native).plan, wide(latents) * scale)
        self._prepared = (run.asked, state)
        return (x / scale).to(latents.dtype)

    def _begun(self) -> Run:
        if self._run is None:
            raise SolverKitError("no run has begun: call scheduler.set_timesteps(num_inference_steps) first.")
        return self._run

    def _current(self) -> Run:
        """A fork of the run, known to be this thread's and to match the sigmas that the pipeline sees."""
        run = self._begun().fork()
        run.owned()
        return self._followed(run)

    def _followed(self, run: Run) -> Run:
        """The run on sigmas that a pipeline may have changed after `set_timesteps`: its sampler traced again on them.

        Raises:
            GridError: sigmas that do not fall (only the last may be repeated), or that this sampler cannot follow.
        """
        if self.sigmas is run.sigmas and version(run.sigmas) == run.version:
            return run
        values = [run.convention.from_sigma(float(s)) for s in self.sigmas.tolist()]
        if len(values) != run.length + 1:
            raise GridError(f"sigmas must stay of length {run.length + 1} (one more than timesteps), got {len(values)}.")
        run = run.fork()
        run.plan, run.idle, run.native = followed(
            check(run.config), run.config["sampler_options"], run.plan, run.lead, run.convention, run.length, values
        )
        with torch.inference_mode(False):
            self.sigmas = torch.tensor(self.sigmas.tolist(), dtype=torch.float32, device="cpu")
        run.sigmas, run.version = self.sigmas, version(self.sigmas)
        return run

    def _native(self, run: Run, index: int) -> NativePlan:
        """The plan of this run from timestep `index` on."""
        card, options = check(run.config), dict(run.config["sampler_options"])
        if run.eta and "eta" not in options and card.defaults.get("eta") == 0:
            options["eta"] = run.eta
            run.plan = with_lead(card, options, run.plan.grid, run.lead)
        native = rewrite(start_at(run.plan, card, options, index), run.convention, index)
        return native.placed(self.timesteps.device)

    def _index(self, run: Run, timestep: Any) -> int:
        """Where the loop starts: what the pipeline said, or the place of its timestep in `timesteps`.

        An element of `timesteps` is known by its address, which needs no copy from the device.
        """
        if run.begin_index is not None:
            return run.begin_index
        table = self.timesteps
        if isinstance(timestep, torch.Tensor) and timestep.ndim == 0 and timestep.device == table.device:
            place, size = timestep.data_ptr() - table.data_ptr(), table.element_size()
            if timestep.dtype == table.dtype and 0 <= place < size * len(table) and place % size == 0:
                return place // size
        return self.index_for_timestep(timestep)

    def scale_model_input(self, sample: torch.Tensor, timestep: Any = None) -> torch.Tensor:
        """What the network is to see of the latents, (B, ...). A run's first call applies a prelude without storing it."""
        if self._run is None:
            convention = self._convention()
            scale = 1.0 if timestep is None else convention.input_scale(convention.level(convention.ratio(float(timestep))))
            return sample if scale == 1.0 else sample * scale
        run = self._current()
        index = run.step_index
        if index is None:
            index = (run.begin_index or 0) if timestep is None else self._index(run, timestep)
            if run.native is None or run.native.start != index:
                run.restart(self._native(run, index))
        native = run.native
        if native is not None and native.prelude and index == native.start and run.prepared is None:
            run.scaled = True
            sample = begin(native.plan, wide(sample))[0].to(sample.dtype)
        self._run = run
        scale = run.convention.input_scale(run.level(index))
        return sample if scale == 1.0 else sample * scale

    def step(
        self,
        model_output: torch.Tensor,
        timestep: Any,
        sample: torch.Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool = False,
        generator: torch.Generator | list[torch.Generator] | None = None,
        variance_noise: torch.Tensor | None = None,
        per_token_timesteps: torch.Tensor | None = None,
        pred_original_sample: torch.Tensor | None = None,
        prev_timestep: Any = None,
        return_dict: bool = True,
    ) -> SolverKitSchedulerOutput | tuple[torch.Tensor, torch.Tensor]:
        """One evaluation further.

        Args:
            model_output: What the network answered, shape of `sample` (or with twice the channels: a learned variance,
                which is dropped).
            timestep: Looked at in the first step of a run only.
            sample: The latents that the network saw, before `scale_model_input`; (B, ...).
            eta: Share of the noise of DDIM-like samplers, whose own default is 0. It does not silence other samplers.
            use_clipped_model_output: Without effect: a clipped prediction is used consistently.
            generator: Of the noise, or a list of one a sample.
            variance_noise: Noise to use instead of a draw.
            per_token_timesteps: (B, tokens) of a flow model: tokens whose own time is not the run's stay as they are. The
                model output then has the opposite sign, as pipelines pass it.
            pred_original_sample: The denoised prediction itself; `model_output` is then not looked at.
            prev_timestep: Without effect: the plan knows where it goes.
            return_dict: Return `SolverKitSchedulerOutput` instead of a tuple.

        Returns:
            The next latents and the denoised prediction, both in the dtype of `model_output`.

        Raises:
            SolverKitError: no run has begun, it is finished, or another thread drives it.
        """
        began = run = self._run
        if run is None or run.thread != get_ident() or self.sigmas is not run.sigmas or version(run.sigmas) != run.version:
            run = self._current()
        else:
            run = run.fork()
        index, native = run.step_index, run.native
        if index is None:
            index = run.step_index = self._index(run, timestep)
            run.eta = float(eta)
        elif index >= run.length and run.begin_index is None and float(timestep) != float(self.timesteps[-1]):
            index = run.step_index = self._index(run, timestep)  # a loop over timesteps that are no loop
        if native is None or not native.start <= index <= run.done + 1 or index < run.done or run.eta != run.traced_eta:
            run.traced_eta = run.eta
            native = None if index >= run.plan.nfe else self._native(run, index)
            run.restart(native)
        if native is None or index - native.start >= native.plan.nfe:
            return self._idle(run, index, model_output, sample, return_dict)
        shape, dtype = sample.shape, model_output.dtype
        if model_output.shape != shape:
            model_output = fit_channels(model_output, sample, "the network")
        x = sample if sample.dtype is torch.float32 else wide(sample)
        kept, kept_shape = run.state(index)
        state = kept if kept is None or kept_shape == shape else fitted(kept, kept_shape, x)
        if state is None and kept is not None:  # latents of another shape: the history is of no use
            native = self._native(run, index)
            run.restart(native)
        if state is None or index == native.start:
            kept = None
            x, state = run.entered(native, x)
        j = index - native.start
        if per_token_timesteps is not None or pred_original_sample is not None or not native.predictions:
            special = (pred_original_sample, per_token_timesteps)
            stored, denoised = predicted(run.convention, native, j, x, model_output, *special)
        else:
            from_output, weight, unit, unit_tensor = native.predictions[j]
            if not from_output:
                stored = x.add(model_output, alpha=weight)
            else:
                stored = model_output.add(x, alpha=weight) if weight else model_output.to(x.dtype, copy=True)
            denoised = stored.mul(unit_tensor if stored.dtype is torch.float32 else unit)

        draw = None
        if native.stochastic:
            draw = run.draw_like(x, lambda: randn_tensor(x.shape, generator, x.device, x.dtype), variance_noise)
        seen = x.clone() if native.keeps_latents[j] else x  # nothing that is kept may alias the pipeline's tensors
        plan = native.quick if stored.dtype is torch.float32 else native.plan
        previous, after = advance(plan, state, seen, stored, draw)
        if per_token_timesteps is not None:
            previous = torch.where(on_level(per_token_timesteps, native.plan.levels[j])[..., None], previous, x)
        run.before, run.shape_before = kept, kept_shape
        run.after, run.done, run.step_index, run.shape = after, index, index + 1, shape
        if self._run is not began:
            raise SolverKitError(ANOTHER_THREAD)
        self._run = run
        if dtype is not x.dtype:
            previous, denoised = previous.to(dtype), denoised.to(dtype)
        return SolverKitSchedulerOutput(previous, denoised) if return_dict else (previous, denoised)

    def _idle(self, run: Run, index: int, model_output: torch.Tensor, sample: torch.Tensor, return_dict: bool) -> Any:
        """A last step of length zero, which pipelines make that repeat the smallest sigma."""
        if index >= run.length:
            raise SolverKitError(f"the run is finished: it has {run.length} timesteps. Call set_timesteps to begin anew.")
        w_x, w_out = run.convention.weights(run.level(index))
        x = wide(sample)
        run.step_index, self._run = index + 1, run
        previous, denoised = (v.to(model_output.dtype) for v in (x.clone(), x * w_x + model_output * w_out))
        return SolverKitSchedulerOutput(previous, denoised) if return_dict else (previous, denoised)

    # -- back to diffusers ---------------------------------------------------------------------------------------------

    def native(self) -> SchedulerMixin:
        """The native scheduler that this one was made from, with its config."""
        import diffusers

        config = native_part(self._internal_dict)
        return cast(SchedulerMixin, getattr(diffusers, self._internal_dict["native_class"]).from_config(config))


def restore_native(pipe: Any) -> Any:
    """Give a pipeline its native scheduler back, so that it can be saved and loaded where solverkit is not installed.

    Args:
        pipe: A diffusers pipeline; one that has a native scheduler already is left alone.

    Returns:
        The pipeline.
    """
    if isinstance(pipe.scheduler, SolverKitScheduler):
        pipe.scheduler = pipe.scheduler.native()
    return pipe
