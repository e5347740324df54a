"""The parity table of docs/diffusers.md: what a user's plain run of ours and of the native class have in common.

    python benchmarks/dropin_parity.py                          # print the table and its lists
    python benchmarks/dropin_parity.py --write                  # into docs/diffusers.md, between the markers
    python benchmarks/dropin_parity.py --pipelines sd flux      # some of them
    python benchmarks/dropin_parity.py --json parity.json       # every figure; a name that ends in .csv has rows

Each cell compares two runs of a tiny pipeline, 5 steps with the same seed, as a user would write them: of
`NativeClass.from_config` with what must be added for a flow network, and of `SolverKitScheduler.from_config`. What the
networks were shown is recorded at their door, so the coordinates of the latents do not matter.
"""

from __future__ import annotations

import argparse
import inspect
import logging
import math
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from dropin_classes import METHODS, Method, additions, family, lost
from dropin_report import FINAL, SHOWN, STEPS, Cell, markdown, number, write_rows

from solverkit import SolverKitScheduler
from solverkit.pipelines.convention import unit_alpha

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "diffusers.md"
MARKERS = ("<!-- drop-in parity -->\n", "<!-- /drop-in parity -->\n")
UNSHIFTED = {
    "shift": 1.0, "flow_shift": 1.0, "use_dynamic_shifting": False, "shift_terminal": None, "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
}  # fmt: skip


@dataclass
class Seen:
    """One run: what each call of a network was shown, by the name of the input, and the result."""

    calls: list[dict[str, torch.Tensor]]
    final: torch.Tensor


# --- running


def tensors(name: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """All numbers in an argument of a network."""
    if isinstance(value, torch.Tensor):
        yield name, value.detach().double().clone()
    elif isinstance(value, (list, tuple)):
        for i, part in enumerate(value):
            yield from tensors(f"{name}[{i}]", part)
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from tensors(f"{name}[{key}]", part)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield name, torch.tensor(float(value), dtype=torch.float64)


@contextmanager
def watched(pipe: Any) -> Iterator[list[dict[str, torch.Tensor]]]:
    """What every network of a pipeline is shown, call by call."""
    calls: list[dict[str, torch.Tensor]] = []
    hooks = []
    for part, network in pipe.components.items():
        if not isinstance(network, torch.nn.Module):
            continue
        names = list(inspect.signature(network.forward).parameters)

        def record(_: Any, args: Any, kwargs: Any, part: str = part, names: list[str] = names) -> None:
            given = {**dict(zip(names, args)), **kwargs}
            calls.append({k: v for key in sorted(given) for k, v in tensors(f"{part}.{key}", given[key])})

        hooks.append(network.register_forward_pre_hook(record, with_kwargs=True))
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def run(tiny: Any, scheduler: Any) -> Seen:
    """A run of the pipeline.

    Raises:
        FloatingPointError: the result is not finite.
    """
    tiny.pipe.scheduler = scheduler
    torch.manual_seed(0)  # some pipelines do not hand their generator to step
    with watched(tiny.pipe) as calls, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        result = tiny.pipe(**tiny.inputs, num_inference_steps=STEPS, generator=torch.Generator().manual_seed(0))
    value = getattr(result, tiny.output)
    value = value if isinstance(value, torch.Tensor) else torch.as_tensor(np.asarray(value, dtype=np.float64))
    if not torch.isfinite(value).all():
        raise FloatingPointError("the result is not finite")
    return Seen(calls, value.detach().double().clone())


def attempt(make: Callable[[], Seen]) -> tuple[Seen | None, str]:
    """A run, or why there is none. Whatever a foreign class raises is a finding."""
    try:
        return make(), ""
    except Exception as error:
        text = re.sub(r"<class '[\w.]*?(\w+)'>('s)?", r"\1\2", " ".join(str(error).split()))
        text = re.sub(r"'?\b\w+Scheduler\b'?(\.| object has )", r"", text)  # the column says which
        text = re.sub(r"The current scheduler class \w+'s", "its", text).split(". ")[0].replace("`", "")
        return None, f"{type(error).__name__}: {text[:150]}" if text else type(error).__name__


class OnLevels(SolverKitScheduler):
    """Ours on given timesteps and sigmas, whatever the pipeline asks for; its copies too."""

    told: list[float]
    levels: list[float] | None

    def set_timesteps(
        self, num_inference_steps: Any = None, device: Any = None, timesteps: Any = None, sigmas: Any = None, mu: Any = None
    ) -> None:
        super().set_timesteps(device=device, timesteps=self.told, sigmas=self.levels)

    def of(self, native: Any, packed: bool) -> OnLevels:
        """On what a native scheduler ran on, after its run.

        Args:
            packed: Ours takes its second evaluations at levels of the grid, so it is given those of the native class too.
        """
        step = 2 if native.order == 2 and not packed else 1
        self.told = [float(t) for t in native.timesteps][::step]
        self.levels = [float(s) for s in getattr(native, "sigmas", ())][::step][: len(self.told)]
        if packed or len(self.levels) < len(self.told):
            self.levels, self.told = None, list(dict.fromkeys(self.told))  # PNDM shows the second one twice
        return self


# --- comparing


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """|a - b| / |b|; inf for other shapes."""
    if a.shape != b.shape:
        return math.inf
    difference = float((a - b).norm())
    return 0.0 if difference == 0 else difference / max(float(b.norm()), 1e-3 * float(a.norm()))


def compare(ours: Seen, native: Seen) -> tuple[float, float, str]:
    """(difference of the results, largest difference of what was shown, where that began)."""
    worst, first = 0.0, ""
    if len(ours.calls) != len(native.calls):
        worst, first = math.inf, f"{len(ours.calls)} calls instead of {len(native.calls)}"
    for i, (a, b) in enumerate(zip(ours.calls, native.calls)):
        for name in a.keys() | b.keys():
            difference = apart(a[name], b[name]) if name in a and name in b else math.inf
            worst = max(worst, difference)
            if difference > SHOWN and not first:
                values = f" ({a[name].flatten()[0]:.6g}, not {b[name].flatten()[0]:.6g})" if difference < math.inf else ""
                first = f"call {i}: {name}{values if 'time' in name else ''}"
    return apart(ours.final, native.final), worst, first


def same(final: float, shown: float) -> bool:
    return final <= FINAL and shown <= SHOWN


def cell(tiny: Any, config: Any, pipeline: str, method: Method) -> Cell:
    """Both plain runs of a shipped config and, where they differ, the ones in which ours is told more."""
    kind = family(config)
    name = method.classes.get(kind)
    found = Cell(pipeline, method.name, name)

    own = {"sampler": method.sampler, "sampler_options": method.options}
    mine, found.reason = attempt(lambda: run(tiny, SolverKitScheduler.from_config(config, **own)))
    if mine is None:
        found.text = "fails"
        return found
    order = tiny.pipe.scheduler.order
    if name is None:
        return found
    cls = getattr(diffusers, name)
    parameters = inspect.signature(cls.__init__).parameters
    native, found.reason = attempt(lambda: cls.from_config(config, **additions(method, kind, config, parameters)))
    theirs = None
    if native is not None:
        found.lost = lost(kind, config, native, parameters)
        source = inspect.getsource(type(tiny.pipe))
        for needed in ("scale_model_input", "init_noise_sigma"):
            if kind == "vp" and unit_alpha(name) and needed not in source:
                found.lost.append(f"the pipeline does not use {needed}, without which this class is wrong")
        theirs, found.reason = attempt(lambda: run(tiny, native))
    if theirs is None:
        found.text = "alone"
        return found
    found.calls = [len(mine.calls), len(theirs.calls)]
    found.final, found.shown, found.first = compare(mine, theirs)
    if same(found.final, found.shown):
        found.text = "="
        return found
    found.text = number(found.final)
    unshifted = {key: value for key, value in UNSHIFTED.items() if key in config} if kind == "flow" else {}
    packed = native.order == 2 and order == 1
    explicit, found.levels_first = attempt(
        lambda: run(tiny, OnLevels.from_config(config, **own, **unshifted).of(native, packed))
    )
    if explicit is not None:
        found.levels_final, found.levels_shown, found.levels_first = compare(explicit, theirs)
        if same(found.levels_final, found.levels_shown):
            found.text = "levels"
            return found
    known = dict(native.config)  # what it made of the shipped config
    unshifted = {key: value for key, value in UNSHIFTED.items() if key in known} if kind == "flow" else {}

    plain = {**own, "native_class": name}
    for what, make in (
        ("=", lambda: SolverKitScheduler.from_config(known, **plain)),
        ("levels", lambda: OnLevels.from_config(known, **plain, **unshifted).of(native, packed)),
    ):
        told, _ = attempt(lambda make=make: run(tiny, make()))
        if told is not None and same(*compare(told, theirs)[:2]):
            found.named = what
            break
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="between the markers of docs/diffusers.md")
    parser.add_argument("--json", type=Path, help="write every figure there (.json or .csv)")
    parser.add_argument("--pipelines", nargs="+", help="some of them")
    arguments = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    if arguments.write and any(page.count(marker) != 1 for marker in MARKERS):
        sys.exit(f"{PAGE} has no place for the table: {MARKERS[0].strip()} ... {MARKERS[1].strip()}, each once.")
    torch.set_num_threads(1)
    diffusers.utils.logging.set_verbosity(logging.CRITICAL)
    sys.path.insert(0, str(ROOT / "tests"))
    from tiny_pipelines import PIPELINES

    start = time.perf_counter()
    cells: list[Cell] = []
    shipped: dict[str, str] = {}
    for name in arguments.pipelines or PIPELINES:
        tiny = PIPELINES[name]()
        scheduler = tiny.pipe.scheduler
        shipped[name] = type(scheduler).__name__.removesuffix("Scheduler")
        before, _ = attempt(lambda tiny=tiny, s=scheduler: run(tiny, type(s).from_config(s.config)))
        cells += [cell(tiny, scheduler.config, name, method) for method in METHODS]
        after, _ = attempt(lambda tiny=tiny, s=scheduler: run(tiny, type(s).from_config(s.config)))
        if before is not None and (after is None or apart(after.final, before.final)):
            sys.exit(f"{name}: the pipeline keeps something of its runs, they cannot be compared in one process.")
        print(f"{name}: {' '.join(c.text for c in cells[-len(METHODS) :])}", file=sys.stderr, flush=True)
    print(f"{time.perf_counter() - start:.0f} seconds", file=sys.stderr)
    if arguments.json:
        write_rows(arguments.json, cells)
    text = markdown(cells, shipped)
    if not arguments.write:
        print(text)
        return
    head, rest = page.split(MARKERS[0])
    PAGE.write_text(head + MARKERS[0] + text + MARKERS[1] + rest.split(MARKERS[1])[1], encoding="utf-8")


if __name__ == "__main__":
    main()
