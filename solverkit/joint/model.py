"""The joint denoiser: one network, several components, E[each x_0 | all of them] from all noisy states at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import DenoiserError, OptionError, SolverKitError, UnknownNameError
from ..model.answer import answered
from ..model.counting import record
from ..model.denoiser import describe
from ..model.inputs import batched, cut, outside_inference, row_index
from ..model.placement import OwnDtype, own_device
from ..model.prediction import PREDICTIONS, denoised_weights, input_scale, meant
from ..process.level import Level
from ..process.schedule import Flow, Schedule
from .masks import Mask, checked_mask
from .spaces import Space, as_space

States = Mapping[str, Tensor]


@dataclass(frozen=True)
class Component:
    """One part of a system: what the network predicts of it, its schedule, its shape, and the space it lives in."""

    prediction: str
    schedule: Schedule
    shape: tuple[int, ...]
    space: Space

    def weights(self, level: Level) -> tuple[float, float, float, float]:
        """(k, c_in, w_x, w_out): the network's own x = k x, is asked at c_in of it, and D = w_x x + w_out out."""
        alpha, sigma = level.alpha * level.scale, float(level) * level.scale
        scale = getattr(self.schedule, "sigma_data", 0.5)
        w_x, w_out = denoised_weights(self.prediction, alpha, sigma, scale)
        if self.prediction == "flow_prediction" and getattr(self.schedule, "data_at", 0) == 1:
            w_out = -w_out  # dx/dt in a time that runs to the data: x_0 - eps
        return level.scale, input_scale(self.prediction, sigma, scale), w_x, w_out


@dataclass(frozen=True, eq=False)
class JointDenoiser:
    """model(xs, levels) -> {name: E[x_0 | xs]}; made by `wrap_joint`.

    Attributes:
        net: The network.
        components: By name, in the order that it was wrapped with.
        lead: The component on whose schedule grids are laid out; the others are at the same time.
        inputs: Fixed keyword arguments of every call.
        mask: (1, N) or (B, N), 1 where there is a node; a function of the samples' keys; or None.
        keys: (1, N) or (B, N): which node is which, for the draws; None is 0 .. N - 1.
        source: The bundled name or the folder that it was opened from.
        own: What is known of the network's dtype.
    """

    net: Callable[..., Any]
    components: Mapping[str, Component]
    lead: str
    inputs: Mapping[str, Any]
    mask: Mask | None = None
    keys: Tensor | None = None
    source: str | None = None
    own: OwnDtype = field(default_factory=OwnDtype, repr=False)

    @property
    def lead_schedule(self) -> Schedule:
        """The schedule of the component that grids are laid out on."""
        return self.components[self.lead].schedule

    @property
    def schedule(self) -> Any:
        """None: what asks for it is for models of one tensor.

        Raises:
            OptionError: always.
        """
        raise OptionError(
            "this is a system of components, and what was called is for models of one tensor (it asks for a noise schedule "
            "or a shape). Systems have sk.sample, and what is in solverkit.joint; the parts are in `components`."
        )

    @property
    def shape(self) -> Any:
        """None, as `schedule`: each of `components` has its own."""
        return self.schedule

    @property
    def device(self) -> torch.device:
        """Where the network's parameters are, else the CPU."""
        return own_device(self.net) or torch.device("cpu")

    @property
    def name(self) -> str:
        """What the network is called in messages."""
        return str(getattr(self.net, "name", type(self.net).__name__))

    def __call__(self, xs: States, levels: Mapping[str, float]) -> dict[str, Tensor]:
        """E[x_0 | xs] of every component, for states (B, *shape) in the frames of their schedules.

        Raises:
            DenoiserError: a component that is missing, of another shape or batch; the network refuses them or answers
                another shape.
        """
        self._check(xs)
        own: dict[str, Tensor] = {}
        given: dict[str, Tensor] = {}
        times: dict[str, Tensor] = {}
        weights = {}
        dtype = self.own.of(self.net)
        for name, part in self.components.items():
            level = part.schedule.at(levels[name])
            weights[name] = part.weights(level)
            scale, c_in, _, _ = weights[name]
            own[name] = xs[name] * scale
            given[name] = (own[name] * c_in).to(dtype or xs[name].dtype)
            times[name] = _told(level, part.schedule, given[name])
        out = self._ask(given, times)
        record(len(next(iter(given.values()))))
        answers = {}
        for name, part in self.components.items():
            _, _, w_x, w_out = weights[name]
            denoised = answered(out[name], given[name], f"{self.name}[{name!r}]").to(own[name].dtype) * w_out
            denoised = denoised if w_x == 0 else denoised.add_(own[name], alpha=w_x)
            answers[name] = part.space.project(denoised, self._mask_of(len(denoised), denoised.device))
        return answers

    def _check(self, xs: States) -> None:
        for name, part in self.components.items():
            if name not in xs or not isinstance(xs[name], Tensor) or tuple(xs[name].shape[1:]) != part.shape:
                got = "nothing" if name not in xs else tuple(getattr(xs[name], "shape", ()))
                raise DenoiserError(f"the component {name!r} must be a tensor (B, {_dims(part.shape)}), got {got}.")
        if len({len(x) for x in xs.values()}) != 1:
            raise DenoiserError(f"components have {({n: len(x) for n, x in xs.items()})} samples: they must be as many.")

    def _mask_of(self, batch: int, device: torch.device) -> Tensor | None:
        if callable(self.mask):
            raise DenoiserError("this model draws its masks for each run: ask with_nodes(mask=...) for one of its own.")
        if self.mask is None:
            return None
        if len(self.mask) not in (1, batch):
            raise DenoiserError(f"the mask has {len(self.mask)} rows for {batch} samples; one, or one a sample.")
        return self.mask.to(device).expand(batch, -1)

    def _ask(self, given: dict[str, Tensor], times: dict[str, Tensor]) -> Mapping[str, Any]:
        first = next(iter(given.values()))
        inputs = {name: batched(value, first) for name, value in self.inputs.items()}
        mask = self._mask_of(len(first), first.device)
        if mask is not None:
            inputs["mask"] = outside_inference(mask.to(first.dtype))
        try:
            out = self.net(given, times, **inputs)
        except SolverKitError:
            raise
        except Exception as error:
            shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in given.items())
            raise DenoiserError(
                f"{self.name} refused {shapes}: {type(error).__name__}: {error}. It is called as net(xs, times"
                f"{', mask=' if mask is not None else ''}{''.join(f', {n}=' for n in self.inputs)}), xs and times by name."
            ) from error
        if isinstance(out, (tuple, list)) and len(out) == len(self.components):
            out = dict(zip(self.components, out))
        if not isinstance(out, Mapping) or set(out) != set(self.components):
            got = sorted(out) if isinstance(out, Mapping) else type(out).__name__
            raise DenoiserError(f"{self.name} answered {got}; expected one answer for each of {list(self.components)}.")
        return out

    def _spaces(self) -> dict[str, tuple[Space, tuple[int, ...]]]:
        return {name: (part.space, part.shape) for name, part in self.components.items()}

    def with_inputs(self, **inputs: Any) -> JointDenoiser:
        """The same network with other fixed inputs (they replace those of the same name)."""
        return replace(self, inputs={**self.inputs, **inputs})

    def with_nodes(self, mask: Mask | None = None, keys: Tensor | None = None) -> JointDenoiser:
        """The same network with other masks, and names of nodes for the draws.

        Args:
            mask: (N,), (1, N) or (B, N), 1 where there is a node; a function of the samples' keys; None leaves it.
            keys: (N,) or (B, N), a permutation of 0 .. N - 1 in each row: node i draws what node keys[i] of an unpermuted
                run draws. None: 0 .. N - 1.

        Raises:
            OptionError: anything else.
        """
        mask = self.mask if mask is None else checked_mask(mask, self._spaces())
        if keys is not None:
            keys = keys[None] if isinstance(keys, Tensor) and keys.ndim == 1 else keys
            whole = isinstance(keys, Tensor) and keys.ndim == 2 and keys.dtype == torch.long
            if not whole or not bool((keys.sort(dim=1).values == torch.arange(keys.shape[1])).all()):
                raise OptionError("keys must be a permutation of 0 .. N - 1 in each row, (N,) or (B, N) of torch.long.")
        return replace(self, mask=mask, keys=keys)

    def rows(self, start: int | Sequence[int], stop: int | None = None, total: int | None = None) -> JointDenoiser:
        """The denoiser of some samples of a batch; see `Denoiser.rows`."""
        index, total = row_index(start, stop, total)
        inputs = {name: cut(value, index, total) for name, value in self.inputs.items()}
        mask = self.mask if callable(self.mask) else cut(self.mask, index, total)
        return replace(self, inputs=inputs, mask=mask, keys=cut(self.keys, index, total))

    def sampled_by(self, sampler: Any, nfe: int | None, steps: int | None, **given: Any) -> Any:
        """What `sk.sample` does with a system; see `solverkit.joint.sampling`."""
        from .sampling import sample_joint

        return sample_joint(self, sampler, nfe, steps, **given)

    def __repr__(self) -> str:
        parts = (f"{n}: {p.prediction}, {describe(p.schedule)}, {p.shape}" for n, p in self.components.items())
        return f"JointDenoiser({self.name}, {'; '.join(parts)})"


def wrap_joint(
    net: Callable[..., Any],
    components: Mapping[str, tuple[str, Schedule, Sequence[int]]],
    *,
    project: Mapping[str, Any] | None = None,
    mask: Mask | None = None,
    lead: str | None = None,
    **fixed: Any,
) -> JointDenoiser:
    """Adapt a network that denoises several components at once (a torch module is switched to eval mode).

        joint = sk.wrap_joint(
            net, {"x": ("epsilon", sk.VP(continuous=True), (20, 10)), "adj": ("score", sk.VE(), (20, 20))},
            project={"x": sk.joint.nodes, "adj": sk.joint.symmetric_hollow}, mask=mask,
        )
        sk.sample(joint, "dpmpp-2m", nfe=20, num_samples=16).x["adj"]

    Args:
        net: Called as net(xs, times, **fixed), and with mask= where there is one: xs {name: (B, *shape)} in own coordinates
            and the network's dtype, times {name: (B,)} as each schedule tells it. Answers {name: tensor},
            or a tuple in the order of `components`.
        components: {name: (prediction, schedule, shape of one sample)}; predictions as of `sk.wrap`.
        project: {name: space}: `sk.joint.nodes`, `centred`, `symmetric_hollow`, or a function x -> x that is an orthogonal
            projection. Starts, draws and predictions lie in it; a component without one is free.
        mask: 1 where there is a node, (N,), (1, N) or (B, N); or a function of the samples' keys (list of int) -> (B, N).
        lead: The component on whose schedule grids are laid out, the first by default.
        fixed: Passed to every call.

    Raises:
        OptionError: components, a projection or a mask that mean nothing.
        UnknownNameError: a prediction type, or a name in `project` or `lead` that is no component.
    """
    if not callable(net):
        raise DenoiserError(f"net must be callable as net(xs, times), got {type(net).__name__}.")
    if not isinstance(components, Mapping) or not components:
        raise OptionError("components must be {name: (prediction, schedule, shape)}, with at least one of them.")
    spaces = dict(project or {})
    for kind, names in (("project", spaces), ("lead", [] if lead is None else [lead])):
        for name in names:
            if name not in components:
                raise UnknownNameError(f"component in {kind}=", name, components)
    parts = {name: _component(name, given, as_space(name, spaces.get(name))) for name, given in components.items()}
    if isinstance(net, torch.nn.Module):
        net.eval()
    taken = {"mask"} & set(fixed)
    if taken:
        raise OptionError("mask= is an argument of wrap_joint itself; give it once.")
    checked = None if mask is None else checked_mask(mask, {name: (part.space, part.shape) for name, part in parts.items()})
    for name, part in parts.items():
        part.space.check(name, part.shape, None if callable(checked) else checked)
    return JointDenoiser(net, parts, lead or next(iter(parts)), fixed, checked)


def _component(name: str, given: Any, space: Space) -> Component:
    if not isinstance(name, str) or not isinstance(given, (tuple, list)) or len(given) != 3:
        raise OptionError(f"components[{name!r}] must be (prediction, schedule, shape), got {given!r:.60}.")
    prediction, schedule, shape = given
    if prediction not in PREDICTIONS or prediction == "autoencoder":
        known = [p for p in PREDICTIONS if p != "autoencoder"]
        raise UnknownNameError("prediction type", prediction, known, meant(prediction, isinstance(schedule, Flow)))
    if not isinstance(schedule, Schedule):
        raise OptionError(f"components[{name!r}] needs a schedule such as sk.VP() or sk.VE(), got {schedule!r:.60}.")
    whole = isinstance(shape, (tuple, list, torch.Size)) and all(isinstance(n, int) and n > 0 for n in shape)
    if not whole or not shape:
        raise OptionError(f"components[{name!r}] needs the shape of one sample, positive integers, got {shape!r}.")
    return Component(prediction, schedule, tuple(shape), space)


def _told(level: Level, schedule: Schedule, x: Tensor) -> Tensor:
    """The time (B,): integers where the network knows only those, else at least float32."""
    if schedule.integer_time:
        return torch.full((len(x),), round(level.time), dtype=torch.long, device=x.device)
    return torch.full((len(x),), level.time, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)


def _dims(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
