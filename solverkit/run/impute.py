"""sk.impute: samples of what is missing, by a network that takes what is observed, or by one that knows nothing of it."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch

from ..errors import OptionError
from ..measurement.measurement import Measurement
from ..measurement.operators import inpainting
from ..model.denoiser import DenoiserLike
from ..model.guidance.given import given
from ..model.guidance.measured import MMPS, PiGDM
from .constraints import inpaint
from .imputed import Imputation
from .sampling import sample

Method = Literal["conditional", "replacement", "chain", "repaint", "pigdm", "mmps"]


def impute(
    denoiser: DenoiserLike,
    observed: torch.Tensor,
    mask: torch.Tensor,
    samples: int = 100,
    *,
    method: Method = "conditional",
    sampler: str | None = None,
    nfe: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    noise_std: float = 0.0,
    iterations: int = 5,
    limit: float | None = None,
    batch_size: int | None = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> Imputation:
    """Impute what is missing from each of N series, images, ...: forecasting and interpolation are masks.

    Methods: "conditional", for a network that is called with `observed` and `mask` (`guidance.given`). For a network of the
    whole data alone: "mmps" and "pigdm" (gradients, `solverkit.inverse`), "replacement" (what is observed, noised anew at
    each level, replaces the state's part), "chain" (the same with the noises of one forward trajectory) and "repaint". The
    last three are biased for Gaussians too, whatever the number of steps; docs/imputation.md has the figures.

    Args:
        denoiser: Of data (B, ...).
        observed: (N, ...) in the model's own coordinates; whatever stands where the mask is false (NaN, too) is not read.
        mask: Bool (N, ...), or (1, ...) for all; true is observed.
        samples: For each of N.
        method: As above.
        sampler: A registered name; default "ddpm", and "repaint" for that method.
        nfe, steps: Budget of a sample, as in `sk.sample`; nfe=50 where neither is given.
        seed: Sample j of series i has the key (seed, i samples + j).
        noise_std: Of what was observed; "mmps" and "pigdm" alone.
        iterations: Of "mmps".
        limit: Of "mmps" and "pigdm": the largest variance of the data in any direction, for networks (`inverse.pigdm`).
        batch_size, dtype: As in `sk.sample`.
        options: Of the sampler.

    Raises:
        OptionError: shapes that do not fit, a mask that is not boolean, NaN where it is true, or an unknown method.
    """
    observed, mask = _checked(denoiser, observed, mask, samples, method)
    if noise_std and method not in ("mmps", "pigdm"):
        raise OptionError(f"method={method!r} takes what is observed as it is; noise_std is for 'mmps' and 'pigdm'.")
    if nfe is None and steps is None:
        nfe = 50
    name = sampler or ("repaint" if method == "repaint" else "ddpm")
    if (method == "repaint") != (name.partition(":")[0] == "repaint"):
        raise OptionError(f"method='repaint' is the sampler 'repaint', and no other method is; got sampler={name!r}.")
    shared = len(mask) == 1 or bool((mask == mask[:1]).all())
    groups = [list(range(len(observed)))] if shared else [[i] for i in range(len(observed))]
    made: list[torch.Tensor] = []
    nfe_sum, products = 0.0, 0
    run = {"nfe": nfe, "steps": steps, "batch_size": batch_size, "dtype": dtype, **options}
    for group in groups:
        known = observed[group].repeat_interleave(samples, 0)
        holes = mask[group[0] if len(mask) > 1 else 0][None].expand_as(known)
        keys = [(int(seed) << 64) + i * samples + j for i in group for j in range(samples)]
        model, constrain = _model(denoiser, known, holes, method, noise_std, iterations, limit)
        result = sample(model, name, shape=known.shape, seed=keys, constrain=constrain, **run)  # type: ignore[arg-type]
        kept = torch.where(holes.to(result.x.device), known.to(result.x), result.x)
        made.append(kept.reshape(len(group), samples, *known.shape[1:]))
        nfe_sum, products = nfe_sum + result.nfe * len(group), products + result.products
    return Imputation(torch.cat(made), mask.expand_as(observed), nfe_sum / len(observed), products)


def _model(
    denoiser: DenoiserLike, known: torch.Tensor, mask: torch.Tensor, method: str, noise_std: float, iterations: int,
    limit: float | None,
) -> tuple[DenoiserLike, Any]:  # fmt: skip
    if method == "conditional":
        return given(denoiser, known, mask), None  # type: ignore[arg-type]  # given says what it needs
    if not bool(mask.any()):
        return denoiser, None  # nothing is observed
    if method in ("mmps", "pigdm"):
        operator = inpainting(mask[0])
        measurement = Measurement(operator, operator(known), noise_std)
        if method == "mmps":
            return MMPS(denoiser, measurement, iterations, limit), None
        return PiGDM(denoiser, measurement, limit), None
    return denoiser, inpaint(known, mask, "chain" if method == "chain" else "fresh")


def _checked(
    denoiser: Any, observed: Any, mask: Any, samples: Any, method: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    if method not in get_args(Method):
        raise OptionError(f"method must be one of {', '.join(map(repr, get_args(Method)))}; got {method!r}.")
    if not isinstance(observed, torch.Tensor) or not observed.is_floating_point() or observed.ndim < 2 or not len(observed):
        got = f"{observed.dtype} {tuple(observed.shape)}" if isinstance(observed, torch.Tensor) else type(observed).__name__
        raise OptionError(f"observed must be floating-point data (N, ...), one row a series; got {got}.")
    shape = getattr(denoiser, "shape", None)
    if shape is not None and tuple(observed.shape[1:]) != tuple(shape):
        raise OptionError(f"observed holds data of shape {tuple(observed.shape[1:])}, the denoiser's are {tuple(shape)}.")
    if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool:
        kind = mask.dtype if isinstance(mask, torch.Tensor) else type(mask).__name__
        raise OptionError(f"mask must be a boolean tensor, true where it is observed; got {kind}.")
    if mask.shape[1:] != observed.shape[1:] or len(mask) not in (1, len(observed)):
        raise OptionError(
            f"mask must have observed's shape {tuple(observed.shape)}, or one row for all; got {tuple(mask.shape)}."
        )
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise OptionError(f"samples must be a whole number of at least 1, got {samples!r}.")
    observed = torch.where(mask, observed, torch.zeros((), dtype=observed.dtype, device=observed.device))
    if not bool(torch.isfinite(observed).all()):
        raise OptionError("observed holds NaN or inf where the mask is true: set the mask to false there.")
    return observed, mask
