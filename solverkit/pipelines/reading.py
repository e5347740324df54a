"""What pipelines read of a scheduler between its steps: levels, indices, and noised samples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ..errors import OptionError, SolverKitError
from ..process.level import Level
from ..process.schedule import EDM
from .config import native_part, settings
from .convention import Convention
from .latents import version
from .run import ANOTHER_LOOP, COMMIT, Run
from .tables import mixed
from .timetable import nearest


class Reading:
    """The half of `SolverKitScheduler` that asks nothing of the plan but its levels.

    Attributes:
        timesteps, sigmas: Of the run, or of training before it.
    """

    _internal_dict: dict[str, Any]
    _run: Run | None
    timesteps: torch.Tensor
    sigmas: torch.Tensor

    def _convention(self) -> Convention:
        config = settings(self._internal_dict)
        convention = Convention.read(native_part(config), config["native_class"])
        return replace(convention, unit_alpha=False) if config["inverse"] else convention

    def _begun(self) -> Run:
        if self._run is None:
            raise SolverKitError("no run has begun: call scheduler.set_timesteps(num_inference_steps) first.")
        return self._run

    def _replace(self, began: Run, run: Run) -> None:
        """Put a run in the place of the one that it was made from.

        Raises:
            SolverKitError: another thread put its own there meanwhile.
        """
        if run is began:
            return
        with COMMIT:
            if self._run is not began:
                raise SolverKitError(ANOTHER_LOOP)
            self._run = run

    def _followed(self, run: Run) -> Run:
        """The run on sigmas that a pipeline may have changed after `set_timesteps`: its sampler traced again on them.

        Raises:
            GridError: sigmas that do not fall (only the last may be repeated), or that this sampler cannot follow.
        """
        if self.sigmas is run.sigmas and version(run.sigmas) == run.version:
            return run
        run = run.fork()
        table = run.table.on(self.sigmas.tolist())
        if table is not run.table:
            run.table, run.stepper = table, None
        with torch.inference_mode(False):
            self.sigmas = table.sigmas.clone()
        run.sigmas, run.version = self.sigmas, version(self.sigmas)
        return run

    @property
    def init_noise_sigma(self) -> Any:
        """What pipelines multiply unit noise by to get their first latents; a tensor where the native class has one."""
        if self._run is not None:
            return self._run.table.init_noise_sigma
        convention = self._convention()
        return convention.init_noise_sigma(self.sigmas)

    @property
    def nfe(self) -> int | None:
        """How many network calls the run makes from its first timestep; None before `set_timesteps`."""
        return None if self._run is None else self._run.table.length

    @property
    def step_index(self) -> int | None:
        """The index of the next timestep; None before the first."""
        return None if self._run is None else self._run.step_index

    @property
    def _step_index(self) -> int | None:
        return self.step_index

    @_step_index.setter
    def _step_index(self, index: int | None) -> None:
        began = self._begun()
        run = began.fork()
        run.step_index = index
        self._replace(began, run)

    @property
    def begin_index(self) -> int | None:
        """Where the pipeline said that it starts; None where it did not."""
        return None if self._run is None else self._run.begin_index

    @property
    def _begin_index(self) -> int | None:
        return self.begin_index

    @_begin_index.setter
    def _begin_index(self, index: int | None) -> None:
        began = self._begun()
        run = began.fork()
        run.begin_index = index
        self._replace(began, run)

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Say where the loop starts, so that `step` need not look the timestep up.

        Raises:
            OptionError: there is no such timestep.
        """
        if self._run is None:
            return  # a run that begins forgets it anyway
        began = self._run
        run = began.fork()
        if not 0 <= begin_index < run.table.length:
            raise OptionError(
                f"begin_index must be 0 to {run.table.length - 1}, the last of this run, got {begin_index}. Where strength "
                "times num_inference_steps is below 1, no step is left: raise one of them."
            )
        run.begin_index = begin_index
        self._replace(began, run)

    def _get_conditioning_c_in(self, sigma: Any) -> Any:
        """c_in of EDM, by which pipelines that noise a condition themselves scale it (Karras et al. 2022, Table 1).

        Raises:
            OptionError: the process is not EDM's.
        """
        schedule = self._convention().schedule
        if not isinstance(schedule, EDM):
            raise OptionError(f"c_in belongs to EDM, and this network is on {type(schedule).__name__}.")
        return 1 / (sigma**2 + schedule.sigma_data**2) ** 0.5

    def __len__(self) -> int:
        return int(self._internal_dict.get("num_train_timesteps") or 1000)

    def index_for_timestep(self, timestep: Any, schedule_timesteps: torch.Tensor | None = None) -> int:
        """The index of the nearest timestep; of equal ones the first that starts a step."""
        table = (self.timesteps if schedule_timesteps is None else schedule_timesteps).tolist()
        return nearest(table, timestep, None if self._run is None else self._run.table.plan)

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
        began = self._run
        run = self._followed(began)
        self._replace(began, run)
        told = {t: i for i, t in reversed(list(enumerate(self.timesteps.tolist())))}
        convention = run.table.convention
        own = (run.table.level(told[t]) if t in told else convention.level(convention.ratio(float(t))) for t in given)
        return convention, list(own)
