"""`SolverKitScheduler`: every traceable sampler as a scheduler of diffusers pipelines.

It knows no solver by name: `set_timesteps` traces the sampler to a plan, `step` executes one row of it.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDPMWuerstchenScheduler
from diffusers import SchedulerMixin as SchedulerMixin  # public: diffusers looks for it beside the class
from diffusers.configuration_utils import FrozenDict, register_to_config
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from diffusers.utils.torch_utils import randn_tensor

from ..errors import SolverKitError
from ..model.answer import fit_channels, learned_half
from ..plan.transitions import Reduce
from ..process.variance_preserving import DiscreteVP
from .config import merged, settings
from .configured import Configured
from .latents import version, wide
from .learned import scaled
from .native_layout import layout_class
from .output import Pair, SolverKitSchedulerOutput, denoised
from .reading import Reading
from .request import Request, work_out
from .run import COMMIT, Run
from .stepper import on_level
from .tables import betas, training_table
from .timetable import Timetable
from .transition import gaussian_step, require_tellable, silent, transition


class SolverKitScheduler(Reading, Configured):
    """A drop-in for the scheduler of a diffusers pipeline.

        pipe.scheduler = SolverKitScheduler.from_config(pipe.scheduler.config, sampler="unipc", grid="karras")

    Args:
        sampler: A registered traceable sampler (`solverkit samplers`).
        grid: A registered grid ("karras", "flow:shift=3"), or None for the layout that the native config describes.
        sampler_options: Options of the sampler.
        native_class: The class of diffusers whose place it takes: it decides the defaults of all keys below, and in what
            coordinates the latents are. None is the one of the sampler, or DDIM's.
        layout_class: The class whose noise levels are taken where `grid` is None. None is the one of the sampler; where
            there is none, or it cannot run this network, `native_class`.
        num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas, prediction_type, timestep_spacing: As in
            the native class; None is its default.
        steps_offset, rescale_betas_zero_snr, clip_sample, shift, use_dynamic_shifting, sigma_min, sigma_max: The same.
        sigma_data, integer_time: The same.
        inverse: Run from data to noise, as the sampler's inverse class does. None: whether the config is of such a class.

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
        native_class: str | None = None,
        layout_class: str | None = None,
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
        inverse: bool | None = None,
    ) -> None:
        given = {key: value for key, value in self.config.items() if value is not None}
        self._configure(merged({}, given))

    def _configure(self, config: dict[str, Any]) -> None:
        if type(self) in (SolverKitScheduler, Wuerstchen):  # pipelines ask isinstance
            self.__class__ = Wuerstchen if config["native_class"] == "DDPMWuerstchenScheduler" else SolverKitScheduler
        self._internal_dict = FrozenDict({**config, "_class_name": type(self).__name__})
        convention = self._convention()
        # Some pipelines drop their own sigmas when they see the attribute; X.from_config reads the item.
        shows = config["grid"] is None and layout_class(config, convention)[1].get("use_flow_sigmas", False)
        self._internal_dict.__dict__["use_flow_sigmas"] = shows
        self._run: Run | None = None
        self._prepared: tuple[Any, ...] | None = None
        self._timetable: Timetable | None = None
        self.num_inference_steps: int | None = None
        self.model_outputs: list[Any] = []  # pipelines that cut the history of multistep classes look for these two
        self.last_sample = None
        if isinstance(convention.schedule, DiscreteVP):
            self.__dict__.update(betas(convention.schedule))
        self.timesteps, self.sigmas = training_table(convention, len(self))

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
        prepared, self._prepared = self._prepared, None
        if prepared is not None and prepared[0] != table.key:
            raise SolverKitError(
                f"prepare() was called for {prepared[0][0][0]} steps and other arguments than this run's "
                f"{table.key[0][0]} steps; call prepare with the arguments that the pipeline will pass to set_timesteps."
            )
        with torch.inference_mode(False):
            shown = table.timesteps.to(device, copy=True), table.sigmas.clone()
        run = Run(table, *shown, version(shown[1]))
        run.restart(0, torch.float32)
        if prepared is not None:
            run.prepared = prepared[1]
        with COMMIT:
            if self._run is not None:
                run.ousted = (*self._run.ousted, self._run.timesteps)[-16:]
            self.order, self.num_inference_steps = table.order, table.key[0][0]
            self.timesteps, self.sigmas = shown
            self._run = run

    def _timetable_for(self, num_inference_steps: Any, timesteps: Any, sigmas: Any, mu: float | None) -> Timetable:
        config, last = settings(self._internal_dict), self._timetable
        convention = last.convention if last is not None and last.key[1] == config else self._convention()
        request = Request(convention, config, num_inference_steps, timesteps, sigmas, mu)
        if last is None or last.key != (request.asked, config):
            last = self._timetable = work_out(request)
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
        x, state = run.restart(0, run.dtype(latents)).enter(wide(latents) * scale)
        self._prepared = (run.table.key, state)
        return (x / scale).to(latents.dtype)

    def _begin_on_training_timesteps(self) -> None:
        """What `for t in scheduler.timesteps` runs where nobody called `set_timesteps`: every trained timestep.

        Raises:
            SolverKitError: the sampler asks at other levels.
        """
        shown, sigmas = self.timesteps, self.sigmas
        self.set_timesteps(timesteps=shown.tolist(), device=shown.device)
        if self.timesteps.tolist() != shown.tolist():  # the loop asks the network at those that were shown
            self.timesteps, self.sigmas, self.order = shown, sigmas, 1
            self._run = None
            raise SolverKitError(
                f"no run has begun, and {self._internal_dict['sampler']!r} cannot run on the {len(shown)} trained "
                "timesteps: call scheduler.set_timesteps(num_inference_steps) first."
            )

    def scale_model_input(self, sample: torch.Tensor, timestep: Any = None) -> torch.Tensor:
        """What the network is to see of the latents, (B, ...). A run's first call applies a prelude without storing it."""
        if self._run is None:
            convention = self._convention()
            scale = 1.0 if timestep is None else convention.input_scale(convention.level(convention.ratio(float(timestep))))
            return sample if scale == 1.0 else sample * scale
        began = self._run
        run = self._followed(began)
        index = run.step_index
        if index is None:
            index = (run.begin_index or 0) if timestep is None else run.find(timestep)
            if index < run.table.plan.nfe:
                (run := run.fork()).restart(index, run.dtype(sample))
        stepper = run.stepper
        if stepper is not None and stepper.prelude and index == stepper.start and run.prepared is None:
            (run := run.fork()).scaled = True
            sample = stepper.enter(wide(sample))[0].to(sample.dtype)
        self._replace(began, run)
        scale = run.table.convention.input_scale(run.table.level(index))
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
        log_prob: Reduce | None = None,
        prev_sample: torch.Tensor | None = None,
    ) -> SolverKitSchedulerOutput | tuple[torch.Tensor, torch.Tensor]:
        """One evaluation further.

        Args:
            model_output: What the network answered, shape of `sample` (or with twice the channels: a learned variance,
                which is used where the native class of the sampler uses it).
            timestep: Looked at in the first step of a run, and where another thread drives it.
            sample: The latents that the network saw, before `scale_model_input`; (B, ...). Where they are not what the last
                step returned, the history there is forgotten.
            eta: Share of the noise of DDIM-like samplers, whose own default is 0. It does not silence other samplers.
            use_clipped_model_output, prev_timestep: Without effect: a clipped prediction is used consistently, and the plan
                knows where it goes.
            generator: Of the noise, or a list of one a sample.
            variance_noise: Noise to use instead of a draw.
            per_token_timesteps: (B, tokens) of a flow model: tokens whose own time is not the run's stay as they are. The
                model output then has the opposite sign, as pipelines pass it.
            pred_original_sample: The denoised prediction itself; `model_output` is then not looked at.
            return_dict: Return `SolverKitSchedulerOutput` instead of a tuple.
            log_prob: "sum" or "mean" over the dimensions of a sample: the output tells the transition too.
            prev_sample: The latents that followed when this step was made before: nothing is drawn, log_prob is theirs.

        Returns:
            The next latents and the denoised prediction, both in the dtype of `model_output`.

        Raises:
            SolverKitError: the run is finished, or another one is in the way.
            OptionError, TraceError: the probability of this step cannot be told.
        """
        require_tellable(log_prob, prev_sample, sample, return_dict and per_token_timesteps is None)
        if self._run is None:
            self._begin_on_training_timesteps()
        began = self._begun()
        run = self._followed(began).fork()
        index, x, dtype = run.turn(timestep, eta), wide(sample), model_output.dtype
        stepper, shape, moved = run.plan_from(index, x), sample.shape, None
        output = model_output if model_output.shape == shape else fit_channels(model_output, sample, "the network")
        if stepper is None:
            previous, stored, unit = run.rest(index, x, output)
        else:
            stepper, x, state = run.entered(stepper, index, x)
            j, draw = index - stepper.start, silent(x)
            stored, unit = stepper.predict(j, x, output, pred_original_sample, per_token_timesteps)
            if run.returned is not None and (same := run.unedited(index, sample)) is not None:
                state = stepper.forgotten(j, state, same, stored, x)
            moved = None if log_prob is None else gaussian_step(stepper, j, state, x, stored, run.table.learned)
            if stepper.stochastic and prev_sample is None:
                draw = run.draw_like(x, lambda: randn_tensor(x.shape, generator, x.device, x.dtype), variance_noise)
                if run.table.learned is not None and (half := learned_half(model_output, sample)) is not None:
                    draw = scaled(draw, half, run.table.learned, run.table.plan.grid.frame)
            previous, after = stepper.step(j, state, x, stored, draw)
            previous = previous if prev_sample is None else wide(prev_sample)
            if per_token_timesteps is not None:
                previous = torch.where(on_level(per_token_timesteps, stepper.plan.levels[j])[..., None], previous, x)
            previous = previous if previous.dtype is dtype else previous.to(dtype)
            run.commit(index, state, after, shape, previous)
        self._replace(began, run)
        if return_dict:
            told = () if log_prob is None else transition(moved, previous.to(dtype), log_prob)
            return SolverKitSchedulerOutput(previous.to(dtype), denoised(stored, unit, dtype), *told)
        return Pair(previous, stored, unit, dtype)


class Wuerstchen(SolverKitScheduler, DDPMWuerstchenScheduler):  # type: ignore[misc, unused-ignore]
    """The same for pipelines that ask `isinstance(scheduler, DDPMWuerstchenScheduler)`; nothing else of that class is used.

    Stable Cascade tells its network t itself, and leaves out the last timestep, for that class alone.
    """

    __module__ = __name__


Wuerstchen.__name__ = SolverKitScheduler.__name__  # what a saved pipeline names; pickle goes by the qualified name
