"""Entry point of the `newt` command."""

from __future__ import annotations

import os
import platform
import sys
from typing import Annotated

import typer

import newt
from newt.cli import (
    backups,
    checkpoints,
    demos,
    env,
    evaluations,
    experiments,
    people,
    play,
    reports,
    runs,
    serving,
    stack,
    tasks,
    tour,
)
from newt.errors import NewtError


def _version(wanted: bool) -> None:
    if wanted:
        print(f"newt {newt.__version__}, Python {platform.python_version()}")
        raise typer.Exit


app = typer.Typer(
    help="Newt: massively multitask world-model RL as a deployment.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


stack.register(app)
backups.register(app)
serving.register(app)
runs.register(app)
app.command("eval")(evaluations.evaluate)
app.command("evaluations")(evaluations.list_evaluations)
app.command()(reports.report)
people.register(app)
tour.register(app)
play.register(app)
app.add_typer(experiments.experiments_app, name="experiment")
app.add_typer(tasks.tasks_app, name="tasks")
app.add_typer(env.env_app, name="env")
app.add_typer(checkpoints.checkpoints_app, name="checkpoints")
app.add_typer(demos.demos_app, name="demos")


def main() -> None:
    """Runs the command; our own errors, and the system's, become one line and exit status 1 (or what they say)."""
    try:
        os.getcwd()
    except FileNotFoundError:
        # The folder that we are in was deleted. Where nothing can be made, no relative name means anything.
        os.chdir("/proc")
    try:
        app()
    except NewtError as error:
        print(f"newt: {error}", file=sys.stderr)
        sys.exit(getattr(error, "exit_status", 1))
    except OSError as error:
        print(f"newt: {error}", file=sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as error:
        # Commands that work on files or start services need more than the extra `cli`.
        if (error.name or "newt").partition(".")[0] in ("newt", "services"):
            raise
        print(f"newt: this command needs {error.name}; install newt[cli,client,agent], or newt[local]", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
