"""The stock pipelines of diffusers that cannot take `SolverKitScheduler`, and why, read from the installed sources.

    python benchmarks/stock_classes.py                  # print the list
    python benchmarks/stock_classes.py --write          # into docs/diffusers.md, between the markers
    python benchmarks/stock_classes.py --out FILE       # into another page with the markers, or a new file

Reasons come from the code of a pipeline (what it does with its scheduler, and which class it looks for) and from
`SolverKitScheduler.from_config` itself, which refuses the configs of schedulers that it cannot stand in for. Why it does
is in VERDICTS, each with the line of diffusers that shows it; a line that is gone is an error.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pipeline_sources import Code, Function, Place, Sources
from scheduler_uses import asked_for, class_checks, missing

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "diffusers.md"
MARKERS = ("<!-- stock classes -->\n", "<!-- /stock classes -->\n")

CLASS, LACKS, TOKENS, RENOISES, STUDENTS, PROCESS, METHOD, REPLACED, BRANCH = (
    "They look for a native class and refuse any other",
    "They use what only their own scheduler has",
    "Their samples are tokens, which have no noise level",
    "Their distilled networks are sampled by noising the denoised prediction anew",
    "Their networks are distilled or trained for a sampler of their own",
    "Their noise process is none that is read",
    "One method of them needs a native class; all else takes the scheduler",
    "They replace the scheduler that their constructor is given; set it afterwards",
    "They do something else for a native class; ours runs as any other class does",
)
TAKEN = (METHOD, REPLACED, BRANCH)  # these pipelines can take it

# scheduler class: the reason, and the line of its source that shows it
VERDICTS = {
    "LCMScheduler": (RENOISES, r"prev_sample = alpha_prod_t_prev\.sqrt\(\) \* denoised"),
    "TCDScheduler": (RENOISES, r"noise = randn_tensor"),
    "SCMScheduler": (RENOISES, r"prev_sample = torch\.cos"),
    "FlowMatchLCMScheduler": (RENOISES, r"noise = randn_tensor"),
    "CMStochasticIterativeScheduler": (RENOISES, r"noise = randn_tensor"),
    "HeliosDMDScheduler": (STUDENTS, r"prev_sample = self\.add_noise"),
    "HeliosScheduler": (STUDENTS, r"def init_sigmas_for_each_stage"),
    "PiflowScheduler": (STUDENTS, r"network-free policy"),
    "FlowMapEulerDiscreteScheduler": (STUDENTS, r"target flow-map timestep"),
    "RFD4ProteinaScheduler": (PROCESS, r"flow sampler for one modality"),
    "KarrasVeScheduler": (PROCESS, r"sigma_hat = sigma \+ gamma"),
    "ScoreSdeVeScheduler": (PROCESS, r"def step_correct"),
    "RePaintScheduler": (PROCESS, r"def undo_step"),
}


class Reason(NamedTuple):
    """Why a pipeline cannot take the scheduler."""

    group: str
    what: str
    place: Place | None


def surface() -> dict[str, list[str] | None]:
    """What `SolverKitScheduler` has: attributes, and for methods with fixed parameters their names."""
    from solverkit import SolverKitScheduler

    scheduler = SolverKitScheduler()
    found: dict[str, list[str] | None] = {}
    for name in {*dir(scheduler), *vars(scheduler)}:
        method = inspect.getattr_static(SolverKitScheduler, name, None)
        parameters = list(inspect.signature(method).parameters.values())[1:] if inspect.isfunction(method) else []
        open_end = not parameters or any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters)
        found[name] = None if open_end else [p.name for p in parameters]
    return found


def refusal(name: str) -> str | None:
    """What `SolverKitScheduler.from_config` says to the config of a native class; None where it takes it."""
    from solverkit import SolverKitScheduler
    from solverkit.errors import SolverKitError

    try:
        SolverKitScheduler.from_config({"_class_name": name})
    except SolverKitError as error:
        return str(error).split(". ")[0].split("; ")[0]
    return None


def recognised(names: str) -> bool:
    """Ours, made from the config of a native class, is an instance of it for the pipelines that look for it.

    Args:
        names: The classes that a pipeline looks for, as `Use.what` has them.
    """
    import diffusers

    from solverkit import SolverKitScheduler

    def made(name: str) -> bool:
        cls = getattr(diffusers, name, None)
        known = inspect.isclass(cls) and name.endswith("Scheduler") and refusal(name) is None
        return bool(known) and isinstance(SolverKitScheduler.from_config({"_class_name": name}), cls)

    return all(made(name) for name in names.split(" or "))


class Survey:
    """All pipelines of diffusers, and what each of them says about its scheduler.

    Args:
        sources: The installed sources.
        have: See `surface`.
    """

    def __init__(self, sources: Sources, have: Mapping[str, list[str] | None]) -> None:
        self.sources, self.have = sources, have
        self._refusals: dict[str, str | None] = {}

    def shipped(self, name: str, codes: list[Code]) -> dict[str, list[str]]:
        """The scheduler classes that a pipeline is written for, by argument or component."""
        found: dict[str, list[str]] = {}
        for code in codes:
            for node in ast.walk(code.node):  # modular: ComponentSpec("scheduler", Class)
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "ComponentSpec" and len(node.args) > 1:
                    role = node.args[0].value if isinstance(node.args[0], ast.Constant) else ""
                    if str(role).endswith("scheduler"):
                        found.setdefault(str(role), []).append(ast.unparse(node.args[1]))
            if code.node.name == "__init__":
                for argument in (*code.node.args.args, *code.node.args.kwonlyargs):
                    if argument.arg.endswith("scheduler"):
                        text = ast.unparse(argument.annotation) if argument.annotation else ""
                        found[argument.arg] = re.findall(r"\w*Scheduler\w*", text)
        for role, classes in found.items():
            if classes == ["SchedulerMixin"]:  # then the docstring says which
                text = " ".join(ast.get_docstring(c.node) or "" for c in self.sources.ancestors(name))
                found[role] = re.findall(r"\[`(\w+Scheduler)`\]", text)
        return {role: list(dict.fromkeys(classes)) for role, classes in found.items() if role != "inverse_scheduler"}

    def refused(self, classes: list[str]) -> bool:
        """Ours stands in for none of these."""
        for name in classes:
            if name not in self._refusals:
                self._refusals[name] = refusal(name) if name.endswith("Scheduler") else None  # not SchedulerMixin
        return bool(classes) and all(self._refusals[name] for name in classes)

    def _of_scheduler(self, name: str) -> Reason:
        """Why ours does not stand in for a scheduler class."""
        found = self.sources.find(name)
        assert found is not None
        for node in found.node.body:
            if isinstance(node, Function) and node.name == "step":
                sample = next((a for a in node.args.args if a.arg == "sample"), None)
                if sample is not None and "LongTensor" in ast.unparse(sample.annotation or ast.Constant("")):
                    return Reason(TOKENS, f"{name}.step takes a LongTensor", Place(found.path, sample.lineno))
        group, pattern = VERDICTS[name]
        place = self.sources.line(found.path, pattern)
        if place is None:
            raise SystemExit(f"{found.path} has no line {pattern!r} any more: look at the verdict on {name} again.")
        said = str(self._refusals[name])
        return Reason(group, name if "does not read" in said else said, place)

    def reasons(self, name: str) -> list[Reason] | None:
        """Why a pipeline cannot take the scheduler; empty where it can, None where it has no scheduler."""
        codes = self.sources.code(name)
        roles = self.shipped(name, codes)
        uses = [use for code in codes for use in class_checks(code)]
        optional = asked_for(codes)
        uses += [use for code in codes for use in missing(code, self.have, optional)]
        if not roles and not uses:
            return None
        found: list[Reason] = []
        for use in uses:
            if use.kind == "branches" and recognised(use.what):
                continue
            if use.kind in ("replaces", "branches"):
                found.append(Reason(REPLACED if use.kind == "replaces" else BRANCH, use.what, use.place))
                continue
            methods = use.code.methods
            whole = bool(methods & {"__call__", "__init__"}) or any(self._sets_up(codes, m) for m in methods)
            if not whole:
                found.append(Reason(METHOD, f"{', '.join(sorted(methods))}: {use.what}", use.place))
            elif use.kind == "raises":
                found.append(Reason(CLASS, use.what, use.place))
            else:
                found.append(Reason(LACKS, use.what, use.place))
        main = [roles["scheduler"]] if "scheduler" in roles else list(roles.values())
        if main and all(self.refused(classes) for classes in main):
            found += [self._of_scheduler(c) for classes in main for c in classes]
        return list(dict.fromkeys(found))

    def _sets_up(self, codes: list[Code], method: str) -> bool:
        """__call__ reads what this method leaves in self."""
        stored = {a for c in codes if c.node.name == method for a, store in _own_attributes(c.node) if store}
        read = {a for c in codes if "__call__" in c.methods for a, store in _own_attributes(c.node) if not store}
        return bool(stored & read)


def _own_attributes(function: Function) -> list[tuple[str, bool]]:
    """Attributes of self, and whether they are assigned."""
    return [
        (node.attr, isinstance(node.ctx, ast.Store))
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    ]


def public_pipelines(sources: Sources) -> list[str]:
    """The pipeline classes that diffusers exports."""
    import diffusers

    return [name for name in sorted(dir(diffusers)) if sources.is_pipeline(name)]


def markdown(found: Mapping[str, list[Reason]], without: int) -> str:
    """The list, grouped by the first reason of each class."""
    import diffusers

    groups: dict[str, list[str]] = defaultdict(list)
    out = 0
    for name, reasons in found.items():
        if not reasons:
            continue
        group = min((r.group for r in reasons), key=ORDER.index)
        out += group not in TAKEN
        own = {r.what: r for r in reversed(reasons) if r.group == group}  # the first place of each
        shown = "; ".join(f"{r.what}, `{r.place}`" for r in reversed(own.values()))
        groups[group].append(f"* `{name}`: {shown}\n")
    lines = [
        f"Of the {len(found) + without} public pipeline classes of diffusers {diffusers.__version__}, {len(found)} have a "
        f"scheduler, and {out} of these cannot take `SolverKitScheduler`. Places are files of diffusers.\n\n"
    ]
    for group in ORDER:
        if group in groups:
            lines.append(f"**{group}** ({len(groups[group])}):\n" + "".join(groups[group]) + "\n")
    return "".join(lines)


ORDER = (CLASS, TOKENS, RENOISES, STUDENTS, PROCESS, LACKS, *TAKEN)


def put(page: Path, text: str) -> None:
    """Between the markers of a page; a page that does not exist becomes the list."""
    if not page.exists():
        page.write_text(text, encoding="utf-8")
        return
    old = page.read_text(encoding="utf-8")
    if any(old.count(marker) != 1 for marker in MARKERS):
        sys.exit(f"{page} has no place for the list: {MARKERS[0].strip()} ... {MARKERS[1].strip()}, each once.")
    head, rest = old.split(MARKERS[0])
    page.write_text(head + MARKERS[0] + text + MARKERS[1] + rest.split(MARKERS[1])[1], encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="between the markers of docs/diffusers.md")
    parser.add_argument("--out", type=Path, help="another page, or a new file")
    arguments = parser.parse_args()
    sources = Sources()
    survey = Survey(sources, surface())
    names = public_pipelines(sources)
    all_reasons = {name: survey.reasons(name) for name in names}
    found = {name: reasons for name, reasons in all_reasons.items() if reasons is not None}
    text = markdown(found, len(names) - len(found))
    page = arguments.out or (PAGE if arguments.write else None)
    if page is None:
        print(text)
    else:
        put(page, text)


if __name__ == "__main__":
    main()
