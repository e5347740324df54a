"""Functions of k-diffusion's form as samplers of ours.

Their state is x = x_0 + sigma eps, ours in the sigma frame; in the flow frame it is divided by alpha.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from ..errors import GridError, OptionError
from ..grid.grid import Grid
from ..process.level import SIGMA_FRAME, Level, from_ratio
from ..registry.declare import sampler as declared
from .draws import BrownianPath, KeyedRandom

OURS = ("model", "x", "sigmas", "sigma_min", "sigma_max", "n", "extra_args", "callback", "disable", "noise_sampler",
        "return_info")  # fmt: skip
ROUNDED = 1e-6  # relative: a sigma that was a node before a logarithm and a power in float32 is that node
PLAIN = (bool, int, float, str)


def adapt_k_diffusion(fn: Callable[..., Any], name: str | None = None, **fields: Any) -> Callable[..., Any]:
    """A function of k-diffusion's form, (model, x, sigmas, extra_args=, callback=, disable=, ...), as a sampler.

    The sampler goes wherever one goes: `sk.sample(denoiser, sk.adapt_k_diffusion(fn), steps=10, eta=0.5)`, or
    `register(sk.adapt_k_diffusion(fn))` in a plugin. Its options are the function's, evaluations are counted as it makes
    them, and what it draws are the run's keyed draws: a Brownian path through `noise_sampler` where it takes one, and
    torch.randn_like in any case. It has no plan (traceable=False).

    A function of (sigma_min, sigma_max), with n or without, chooses its levels itself, between the first and the last
    positive level of the grid; n is the number of steps between them. Where the grid ends at 0 one more evaluation leads
    there, x = D. Where a run begins at alpha = 0, at an infinite sigma, its first step is Euler's, in the flow frame.

    Args:
        fn: The function. It is not changed.
        name: Of the sampler; default the function's.
        fields: Of the card: order, reference, variants, ... (docs/writing-a-sampler.md).

    Raises:
        OptionError: no function of that form.
    """
    if not callable(fn):
        raise OptionError(f"adapt_k_diffusion takes a function (model, x, sigmas, ...), got {type(fn).__name__}.")
    try:
        parameters = inspect.signature(fn).parameters
    except (TypeError, ValueError):
        raise OptionError(f"{fn!r:.60} has no signature; wrap it in a function (model, x, sigmas, ...).") from None
    wanted = ("model", "x", "sigmas") if "sigmas" in parameters else ("model", "x", "sigma_min", "sigma_max")
    if any(p not in parameters for p in wanted):
        raise OptionError(
            f"adapt_k_diffusion takes a function (model, x, sigmas, ...) or (model, x, sigma_min, sigma_max, ...), got "
            f"({', '.join(parameters)})."
        )
    options = [
        p.replace(kind=p.KEYWORD_ONLY, annotation=type(p.default) if type(p.default) in PLAIN else Any)
        for p in parameters.values()
        if p.name not in OURS and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]

    def sampler(model: Any, x: torch.Tensor, grid: Grid, noise: Any, **given: Any) -> torch.Tensor:
        s, t = grid[0], grid[1]
        if s.alpha > 0:
            return KDiffusionRun(fn, model, x, grid, noise)(given)
        x = x + (t - s) * (x - model(x, s)) / s  # sigma / alpha is infinite there: one step of ours, in the frame
        return x if len(grid) == 2 else KDiffusionRun(fn, model, x, grid.tail(1), noise)(given)

    sampler.__name__ = str(name or getattr(fn, "__name__", "sampler"))
    sampler.__doc__ = fn.__doc__
    sampler.__module__ = str(getattr(fn, "__module__", ""))
    sampler.func = fn  # type: ignore[attr-defined]  # as of a partial: whose source a stored result depends on
    first = [inspect.Parameter(p, inspect.Parameter.POSITIONAL_OR_KEYWORD) for p in ("model", "x", "grid", "noise")]
    sampler.__signature__ = inspect.Signature([*first, *options])  # type: ignore[attr-defined]
    sampler.__annotations__ = {p.name: p.annotation for p in options}
    return declared(sampler.__name__, **{"traceable": False, **fields})(sampler)


class KDiffusionRun:
    """One run of a function of k-diffusion's form on a grid of ours.

    Args:
        fn, model, x, grid: As above.
        noise: noise(s, t) -> draws of the run; None: the function draws by itself.
        edit: edit(i, x) -> x changes the state at the start of step i. The function owns its state, so it is changed in
            place, when the model is asked.

    Raises:
        GridError: the run begins at alpha = 0.
    """

    def __init__(
        self, fn: Any, model: Any, x: torch.Tensor, grid: Grid, noise: Any, edit: Callable[..., torch.Tensor] | None = None
    ) -> None:
        if grid[0].alpha == 0:
            raise GridError("functions of k-diffusion know sigma / alpha, which is infinite at alpha = 0.")
        self.fn, self.parameters = fn, inspect.signature(fn).parameters
        self.model, self.grid, self.noise, self.edit = model, grid, noise, edit
        self.x = x if edit is None and grid[0].alpha == 1 else x / grid[0].alpha
        self.sigmas = torch.tensor([level.ratio for level in grid], dtype=x.dtype, device=x.device)
        self.nodes = {float(sigma): level for sigma, level in zip(self.sigmas, grid)}
        self.step = self.asked = 0
        self.starts: dict[int, int] = {}  # evaluations that are the first of a step, and which
        self.random = KeyedRandom(x.shape, self._draw)
        self.random.asleep = noise is None

    def __call__(self, options: dict[str, Any]) -> torch.Tensor:
        hooks: dict[str, Any] = {"callback": self._stepped, "disable": True}
        if self.noise is not None:
            hooks["noise_sampler"] = BrownianPath(self.noise, self._named)
        known = {name: value for name, value in hooks.items() if name in self.parameters}
        if self.edit is not None:
            self._learn(options)
        if "sigmas" in self.parameters:
            x = self._called(self.sigmas, **known, **options)
        else:
            x = self._between(known, options)
        t = self.grid[-1]
        return x if t.alpha == 1 else x * t.alpha

    def _learn(self, options: dict[str, Any]) -> None:
        """Which evaluations are the first of a step: a callback follows them."""
        asked = [0]

        def nothing(x: torch.Tensor, sigma: Any) -> torch.Tensor:
            asked[0] += 1
            return torch.zeros_like(x)

        def stepped(info: Any) -> None:
            self.starts[asked[0] - 1] = len(self.starts)

        still = {"noise_sampler": lambda s, t: torch.zeros_like(self.x)} if "noise_sampler" in self.parameters else {}
        with torch.random.fork_rng():
            self.fn(nothing, self.x.clone(), self.sigmas, callback=stepped, disable=True, **still, **options)

    def _between(self, known: dict[str, Any], options: dict[str, Any]) -> torch.Tensor:
        """A function that lays out its own levels, between the first and the last positive one."""
        levels = [level for level in self.grid if level > 0]
        x, steps = self.x, len(levels) - 1
        if steps:
            count = {"n": steps} if "n" in self.parameters else {}
            x = self._called(sigma_min=levels[-1].ratio, sigma_max=levels[0].ratio, **count, **known, **options)
        return self._model(x, levels[-1].ratio) if self.grid[-1] == 0 else x

    def _called(self, *sigmas: torch.Tensor, **arguments: Any) -> torch.Tensor:
        with self.random:
            made = self.fn(self._model, self.x, *sigmas, **arguments)
        if not isinstance(made, torch.Tensor):
            raise OptionError(f"{getattr(self.fn, '__name__', 'the function')} returned {type(made).__name__}, no state.")
        return made

    def _model(self, x: torch.Tensor, sigma: Any, **extra: Any) -> torch.Tensor:
        if self.edit is not None and self.asked in self.starts:
            x.copy_(self.edit(self.starts[self.asked], x))
        self.asked += 1
        asleep, self.random.asleep = self.random.asleep, True  # what a network draws is its own business
        try:
            levels = [self._level(float(s)) for s in torch.as_tensor(sigma).flatten().unique()]
            if len(levels) > 1:
                levels = [self._level(float(s)) for s in torch.as_tensor(sigma).flatten()]
                own = torch.tensor([level.alpha for level in levels]).to(x).view(-1, *[1] * (x.ndim - 1))
                return self.model(x * own, levels)  # type: ignore[no-any-return]
            level = levels[0]
            return self.model(x if level.frame == SIGMA_FRAME else x * level.alpha, level)  # type: ignore[no-any-return]
        finally:
            self.random.asleep = asleep

    def _node(self, sigma: float) -> Level | None:
        if sigma in self.nodes:
            return self.nodes[sigma]
        near = min(self.nodes, key=lambda node: abs(node - sigma))
        return self.nodes[near] if abs(near - sigma) <= ROUNDED * near else None

    def _level(self, sigma: float) -> Level:
        return self._node(sigma) or self.grid.at(from_ratio(sigma, self.grid.frame))

    def _named(self, sigma: float) -> float:
        """The level that a draw is keyed by: a node, or sigma as far as the state's precision tells it."""
        node = self._node(sigma)
        if node is not None:
            return node.ratio
        return sigma if self.sigmas.dtype == torch.float64 else float(f"{sigma:.6g}")

    def _stepped(self, info: Any) -> None:
        self.step += 1

    def _draw(self) -> torch.Tensor:
        """The next draw that the function makes by itself: of the step where it is, of the run if it does not say."""
        if "callback" not in self.parameters:
            return self.noise(self.grid[0].ratio, self.grid[-1].ratio)  # type: ignore[no-any-return]
        i = min(self.step, len(self.grid) - 2)
        return self.noise(self.grid[i].ratio, self.grid[i + 1].ratio)  # type: ignore[no-any-return]
