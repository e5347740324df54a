"""The `solverkit` command. This module only wires: what a command does stands in `solverkit/commands`.

torch and everything that imports it are loaded inside the commands, so that `--help` stays quick.
"""

from __future__ import annotations

import os
import sys
import warnings

import typer

from .commands import (
    bench,
    catalogue,
    checks,
    cite,
    compare,
    diagnose,
    likelihood,
    plugin_template,
    report,
    sample,
    show,
    stats,
    tune,
)
from .commands.console import Settings, settings
from .commands.waiting import wait_passively
from .errors import BudgetError, GridError, OptionError, PluginWarning, SolverKitError, UnknownNameError

BAD_USAGE = (UnknownNameError, OptionError, BudgetError, GridError)

app = typer.Typer(
    name="solverkit",
    help="Sample pretrained diffusion, score and flow networks, and measure how well.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(value: bool) -> None:
    if value:
        from . import __version__

        print(f"solverkit {__version__}")
        raise typer.Exit


@app.callback()
def root(
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Print results only: no progress, no remarks."),
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    settings.quiet, settings.debug = quiet, debug


catalogue.add_to(app)
app.command("show")(show.show)
app.command("sample")(sample.sample)
app.command("bench")(bench.bench)
app.command("report")(report.report)
app.command("compare")(compare.compare)
app.command("likelihood")(likelihood.likelihood)
app.command("stats")(stats.stats)
app.command("tune")(tune.tune)
app.command("diagnose")(diagnose.diagnose)
app.command("check")(checks.check)
app.command("cite")(cite.cite)
app.command("new-plugin")(plugin_template.new_plugin)


def main(arguments: list[str] | None = None) -> None:
    """The entry point. Exit codes: 0, 1 (it failed), 2 (bad usage), 130 (interrupted)."""
    wait_passively(os.environ)
    settings.__dict__.update(Settings().__dict__)
    warnings.showwarning = _show_warning
    try:
        app(args=_flags_first(sys.argv[1:] if arguments is None else arguments))
    except SolverKitError as error:
        if settings.debug:
            raise
        _complain(f"Error: {error}", "red")
        sys.exit(2 if isinstance(error, BAD_USAGE) else 1)
    except OSError as error:  # such as a disk that became full; a reader that closed its pipe ends the script quietly
        if settings.debug:
            raise
        _complain(f"Error: {error}", "red")
        sys.exit(1)


def _flags_first(arguments: list[str]) -> list[str]:
    """`solverkit bench --quiet` means `solverkit --quiet bench`."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    flags = [a for a in arguments[:end] if a in ("--quiet", "-q", "--debug")]
    return [*flags, *(a for i, a in enumerate(arguments) if i >= end or a not in flags)]


def _show_warning(message: Warning | str, category: type[Warning], *where: object, **more: object) -> None:
    if issubclass(category, PluginWarning):
        _complain(f"Warning: {message}", "yellow")
    elif not settings.quiet:
        print(f"{category.__name__}: {message}", file=sys.stderr)


def _complain(text: str, colour: str) -> None:
    if os.environ.get("NO_COLOR"):
        print(text, file=sys.stderr)
    else:
        typer.secho(text, fg=colour, err=True)


if __name__ == "__main__":
    main()
