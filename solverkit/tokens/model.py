"""The token model: a network that answers logits, wrapped so that it answers log-probabilities of the clean tokens."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import DenoiserError, NonFiniteError, OptionError
from ..model.counting import record
from .process import Absorbing, Process

FREE = -1  # in a prompt: a position that is not given
TIMES: Mapping[str, Callable[[float, Process], float]] = {
    "t": lambda m, process: process.time_of(m),
    "share": lambda m, process: m,
    "sigma": lambda m, process: -math.log1p(-min(m, process.share(1.0), 1 - 1e-12)),
}


@dataclass(frozen=True, eq=False)
class TokenModel:
    """model(x, level) -> log P(x_0 | x), (B, L, V), of tokens x (B, L); made by `wrap_tokens`.

    Attributes:
        net, process, vocabulary, mask, shifted, time, never, length, alphabet, fixed: As given to `wrap_tokens`.
        prompt: Ids of given positions, FREE elsewhere, (L,) or (B, L).
        cache: Whether a run answers a sequence that did not change from memory.
    """

    net: Callable[..., Any]
    process: Process
    vocabulary: int
    mask: int | None = None
    shifted: bool = False
    time: str | None = None
    never: tuple[int, ...] = ()
    length: int | None = None
    alphabet: str | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    prompt: Tensor | None = None
    cache: bool = True
    kind: ClassVar[str] = "tokens"

    @property
    def shape(self) -> tuple[int, ...] | None:
        return None if self.length is None else (self.length,)

    @property
    def device(self) -> torch.device:
        parameter = next(iter(getattr(self.net, "parameters", lambda: ())()), None)
        return torch.device("cpu") if parameter is None else parameter.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the network; exact targets answer in float64."""
        parameter = next(iter(getattr(self.net, "parameters", lambda: ())()), None)
        return torch.float64 if parameter is None else parameter.dtype

    @property
    def schedule(self) -> Any:
        """None: what asks for it is for continuous models.

        Raises:
            OptionError: always.
        """
        raise OptionError(
            "this is a token model, and what was called is for continuous models (it asks for a noise schedule). Token "
            "models have sk.sample with a decoder (sk.decoders()), log_likelihood(..., 'elbo'), and what is in "
            "solverkit.tokens."
        )

    def __call__(self, x: Tensor, level: float | Tensor) -> Tensor:
        """(B, L) ids at a level (one, or one a sample) to log-probabilities (B, L, V), float32 or float64.

        Raises:
            DenoiserError: the network refuses the ids, or answers another shape.
            NonFiniteError: it answers NaN.
        """
        told = () if self.time is None else (self._told(len(x), level),)
        record(len(x), x, level)
        try:
            with torch.no_grad():
                out = self.net(x, *told, **self.fixed)
        except (IndexError, TypeError, RuntimeError) as error:
            raise DenoiserError(
                f"the network refuses ids of shape {tuple(x.shape)} (0 to {int(x.max())}; mask={self.mask}, "
                f"time={self.time!r}): {error}. The mask must be an id that it has, and time= what it is told."
            ) from error
        logits = getattr(out, "logits", out)
        expected = (*x.shape, self.vocabulary)
        if not isinstance(logits, Tensor) or tuple(logits.shape) != expected:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise DenoiserError(
                f"the network answers {got} to ids of shape {tuple(x.shape)}, and vocabulary={self.vocabulary} expects "
                f"{expected}: pass vocabulary= as the last dimension of its logits."
            )
        logits = logits if logits.dtype == torch.float64 else logits.float()
        if bool(torch.isnan(logits).any()):
            raise NonFiniteError("the network answered NaN logits.")
        if self.shifted:
            logits = torch.cat([logits[:, :1], logits[:, :-1]], dim=1)
        if self.never:
            logits = logits.index_fill(-1, torch.tensor(self.never, device=logits.device), -math.inf)
        return logits.log_softmax(dim=-1)

    def _told(self, b: int, level: float | Tensor) -> Tensor:
        tell = TIMES[str(self.time)]
        values = level.tolist() if isinstance(level, Tensor) else [float(level)] * b
        parameter = next(iter(getattr(self.net, "parameters", lambda: ())()), None)
        dtype = torch.float64 if parameter is None else torch.float32  # exact targets are functions of float64
        return torch.tensor([tell(m, self.process) for m in values], dtype=dtype, device=self.device)

    def with_prompt(self, prompt: str | Sequence[int] | Tensor, length: int | None = None) -> TokenModel:
        """The model of the rest of a sequence that begins with a prompt, or that has given ids at some positions.

        Args:
            prompt: Text (with an alphabet), ids from the left, or a tensor (L,) or (B, L) with -1 where nothing is given.
            length: L; default the model's.

        Raises:
            OptionError: longer than L, a character or id that the model does not have.
        """
        ids = self.encode(prompt) if isinstance(prompt, str) else torch.as_tensor(prompt, dtype=torch.long)
        whole = length or self.length or ids.shape[-1]
        if ids.shape[-1] > whole:
            raise OptionError(
                f"the prompt has {ids.shape[-1]} tokens, and the sequence {whole}: shorten it, or give length=."
            )
        if bool(((ids >= self.vocabulary) | (ids < FREE)).any()) or bool(torch.isin(ids, torch.tensor(self.never)).any()):
            raise OptionError(
                f"a prompt holds ids 0 to {self.vocabulary - 1} (not the mask), or -1 where nothing is given."
            )
        rest = ids.new_full((*ids.shape[:-1], whole - ids.shape[-1]), FREE)
        prompted = replace(self, prompt=torch.cat([ids, rest], dim=-1), length=whole)
        vars(prompted).update({name: value for name, value in vars(self).items() if name not in vars(prompted)})
        return prompted  # with what it was said to be: its target, its source

    def encode(self, text: str) -> Tensor:
        """Ids of a text, (L,).

        Raises:
            OptionError: a model without an alphabet, or a character that it does not have.
        """
        if self.alphabet is None:
            raise OptionError("this model has no alphabet: give the prompt as ids, not as text.")
        unknown = sorted(set(text) - set(self.alphabet))
        if unknown:
            raise OptionError(f"the model has no character {unknown[0]!r}; its alphabet: {self.alphabet!r}.")
        return torch.tensor([self.alphabet.index(c) for c in text], dtype=torch.long)

    def decode(self, ids: Tensor) -> str:
        """Text of ids (L,); a mask is "_"."""
        alphabet = self.alphabet or ""
        return "".join(alphabet[i] if 0 <= i < len(alphabet) else "_" for i in ids.tolist())

    def sampled_by(self, sampler: Any, nfe: int | None, steps: int | None, **given: Any) -> Any:
        """What `sk.sample` does with a token model; see `solverkit.tokens.sampling`."""
        from .sampling import sample_tokens

        return sample_tokens(self, sampler, nfe, steps, **given)

    def bounded_by(self, x: Tensor, method: str, draws: int | None, seed: Any, batch_size: int | None) -> Any:
        """What `log_likelihood` does with a token model; see `solverkit.tokens.likelihood`."""
        from .likelihood import token_bound

        return token_bound(self, x, method, draws, seed, batch_size)


def wrap_tokens(
    net: Callable[..., Any],
    *,
    process: Process | None = None,
    mask: int | None = None,
    vocabulary: int,
    shifted: bool = False,
    time: str | None = None,
    never: Sequence[int] = (),
    length: int | None = None,
    alphabet: str | None = None,
    cache: bool = True,
    **fixed: Any,
) -> TokenModel:
    """A token model from a network.

    Args:
        net: net(ids) or net(ids, time) -> logits or log-probabilities (B, L, V), or an object that has them as `logits`
            (transformers' masked language models).
        process: `Absorbing` (default) or `Uniform`.
        mask: Id of the mask of an absorbing process; none for a uniform one.
        vocabulary: V, the last dimension of the logits.
        shifted: Logits of position i come from i - 1 (networks that began as autoregressive ones: Dream).
        time: What the network is told: None (nothing: RADD, MDLM, LLaDA), "t", "share" (m), or "sigma" (-log(1 - m): SEDD).
        never: Ids that are never drawn. A mask among the V ids must be one of them (LLaDA, Dream).
        length: Of a sequence, where the network has one.
        alphabet: Characters of ids 0, 1, ..., for prompts and printing.
        cache: Answer a sequence that did not change from memory within a run (only where the network is told no time).
        fixed: Passed to every call of the network.

    Raises:
        OptionError: a mask where there must be none or inside the vocabulary, no mask where there must be one, an unknown
            time, or an alphabet of another size.
    """
    process = Absorbing() if process is None else process
    if not isinstance(process, Process):
        raise OptionError(f"process must be sk.Absorbing(...) or sk.Uniform(...), got {process!r:.60}.")
    if not isinstance(vocabulary, numbers.Integral) or vocabulary < 2:
        raise OptionError(f"vocabulary must be the number of ids, at least 2, got {vocabulary!r}.")
    if process.noise == "uniform" and mask is not None:
        raise OptionError(
            f"a uniform process has no mask, got mask={mask!r}: leave it out, or take process=sk.Absorbing()."
        )
    if process.noise == "absorbing":
        if mask is None or mask < 0:
            raise OptionError(f"an absorbing process needs mask=, the id of its mask, got {mask!r}.")
        if mask < vocabulary and mask not in never:
            raise OptionError(
                f"mask={mask} is inside the vocabulary 0 to {vocabulary - 1}, so it would be a token and the mask at once. "
                f"If the network has a column for its mask (LLaDA, Dream), say so: never=({mask},); else mask={vocabulary}."
            )
    if time is not None and time not in TIMES:
        raise OptionError(f"time must be None or one of {', '.join(map(repr, TIMES))}, got {time!r}.")
    if any(not 0 <= i < vocabulary for i in never):
        raise OptionError(f"never={tuple(never)} holds ids outside 0 to {vocabulary - 1}.")
    if alphabet is not None and len(alphabet) != vocabulary:
        raise OptionError(f"the alphabet has {len(alphabet)} characters and vocabulary={vocabulary}; they must be as many.")
    return TokenModel(
        net, process, int(vocabulary), mask, shifted, time, tuple(never), length, alphabet, fixed, None, cache
    )
