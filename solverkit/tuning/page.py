"""The page of fitted plans on the hub: what they were fitted to, their figures, and the commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .plans import Budget, TunedPlans

FRONT = """\
---
library_name: solverkit
tags:
- diffusion
- sampler
- solverkit-plan
---
"""
HEAD = (
    "| NFE | what runs | best untuned: RMS (median) | which | tuned: RMS (median) | ratio of RMS | of medians | noises |\n"
    "|---|---|---|---|---|---|---|---|\n"
)
# of sk.tune; what the file lacks was the default
SETTINGS = ("samples", "validation", "starts", "passes", "history", "fast", "seed", "reference_evaluations")
LINES = {name: f"--{name}" for name in ("samples", "validation", "starts", "passes", "seed")}
OPTIONS = {"labels": "--label", "guidance": "--guidance"}


def page(plans: TunedPlans) -> str:
    """Markdown, with the front matter of a model card."""
    facts, budgets = dict(plans.facts), sorted(plans.budgets)
    listed = ", ".join(map(str, budgets))
    least, model = (budgets[0] if budgets else 8), facts.get("model", "MODEL")
    others = "".join(f"* {name}: {value}\n" for name, value in sorted(facts.items()) if name not in (*SETTINGS, "options"))
    given = {name: facts[name] for name in SETTINGS if name in facts}
    words = "".join(f" {LINES[name]} {given[name]}" for name in LINES if name in given)
    words += " --fast" if facts.get("fast") else ""
    options = facts.get("options", {})
    words += "".join(f" {OPTIONS[name]} {options[name]}" for name in OPTIONS if name in options)
    command = f"solverkit tune {model} --nfe {','.join(map(str, budgets))}{words} --out plan.safetensors"
    loaded = "".join(f", {name}={value!r}" for name, value in options.items())
    arguments = "".join(f", {name}={value!r}" for name, value in given.items())
    return f"""{FRONT}
# Sampling plans of NFE {listed}

Tables of levels and weights for the probability flow of one network, one for each number of network evaluations (NFE).
They were fitted by solverkit and judged on noises that nothing was fitted to.

## What they were fitted to
* schedule: `{plans.schedule}`; on another one they do not run
* fingerprint of the network with its inputs (class, prompt) and guidance: `{plans.fingerprint or "none"}`; on another
  network, class or guidance they run with a warning, and the figures below do not hold
{others}
## Figures
RMS over samples of the distance from the converged solution, and the median of samples. In brackets: 95 % interval of the
ratio. Where an untuned solver was better, it is what runs.

{HEAD}{"".join(_line(n, plans.budgets[n]) for n in budgets)}
## Use

```python
import solverkit as sk

denoiser = sk.load({model!r}{loaded})
sk.sample(denoiser, "tuned", plan="USER/REPOSITORY", nfe={least}, num_samples=16)
```

In a pipeline: `SolverKitScheduler.from_config(pipe.scheduler.config, sampler="tuned:USER/REPOSITORY")`.

## Repeat

    {command}

or `sk.tune(denoiser, {budgets}{arguments})`.
"""


def _line(n: int, budget: Budget) -> str:
    f = budget.figures
    low, high = f.get("interval", (None, None))
    ran = "the plan" if budget.weights is not None else f"`{budget.sampler}` on {budget.grid}"
    cells = [
        str(n), ran, f"{_number(f, 'untuned_rms')} ({_number(f, 'untuned_median')})", str(f.get("untuned", "-")),
        f"{_number(f, 'rms')} ({_number(f, 'median')})",
        _number(f, "ratio_rms", 2) + (f" [{low:.2f}, {high:.2f}]" if low is not None else ""),
        _number(f, "ratio_median", 2), str(f.get("noises", "-")),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |\n"


def _number(figures: Any, name: str, digits: int = 4) -> str:
    return f"{figures[name]:.{digits}f}" if name in figures else "-"
