"""How a scheduler is made from a config, and a native one from it."""

from __future__ import annotations

from typing import Any, cast

from diffusers import SchedulerMixin
from diffusers.configuration_utils import ConfigMixin

from ..errors import OptionError
from ..process.schedule import Flow
from .config import LOADERS, merged, native_part
from .convention import Convention
from .inversion import inverse_class


class Configured(SchedulerMixin, ConfigMixin):
    """The half of `SolverKitScheduler` that reads and gives configs."""

    _internal_dict: dict[str, Any]

    def _configure(self, config: dict[str, Any]) -> None:
        raise NotImplementedError("the scheduler takes its state from the config")

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

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any = None, subfolder: Any = None, return_unused_kwargs: bool = False,
        **kwargs: Any,
    ) -> Any:  # fmt: skip
        """A scheduler from a folder or a hub id; see `from_config` for the keywords.

        Keywords of loaders (`torch_dtype`, `variant`, ...) are theirs: a scheduler has no weights.
        """
        config, kwargs = cls.load_config(
            pretrained_model_name_or_path, subfolder=subfolder, return_unused_kwargs=True, **kwargs
        )
        unused = {key: kwargs.pop(key) for key in LOADERS if key in kwargs}
        scheduler = cls.from_config(config, **kwargs)
        return (scheduler, unused) if return_unused_kwargs else scheduler

    def set_shift(self, shift: float) -> None:
        """Another shift of a flow, from the next `set_timesteps` on, as the flow-matching classes take it.

        Raises:
            OptionError: the network is on no flow.
        """
        config = dict(self._internal_dict)
        if not isinstance(Convention.read(config, config["native_class"]).schedule, Flow):
            raise OptionError(f"a shift belongs to a flow, and this is the config of a {config['native_class']} on none.")
        self._configure(merged(config, {"shift": shift}))

    def native(self) -> SchedulerMixin:
        """The native scheduler that this one was made from, with its config."""
        import diffusers

        own = self._internal_dict
        name = inverse_class(own) if own["inverse"] else own["native_class"]
        return cast(SchedulerMixin, getattr(diffusers, name).from_config(native_part(own)))
