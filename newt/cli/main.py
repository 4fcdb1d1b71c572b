"""Entry point of the `newt` command."""

from __future__ import annotations

import sys

import typer

from newt.cli import checkpoints, demo, demos, evaluations, play, runs, stack, tasks
from newt.errors import NewtError

app = typer.Typer(
    help="Newt: massively multitask world-model RL as a deployment.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
stack.register(app)
runs.register(app)
app.command("eval")(evaluations.evaluate)
demo.register(app)
play.register(app)
app.add_typer(tasks.tasks_app, name="tasks")
app.add_typer(checkpoints.checkpoints_app, name="checkpoints")
app.add_typer(demos.demos_app, name="demos")


def main() -> None:
    """Runs the command; our own errors become one line and exit status 1."""
    try:
        app()
    except NewtError as error:
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
