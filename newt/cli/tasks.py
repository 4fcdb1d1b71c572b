"""`newt tasks`: the task registry."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from newt.cli import task_runs
from newt.cli.terminal import console, name_table, print_whole
from newt.errors import InvalidInputError
from newt.tasks.registry import Task, UnknownTaskError, all_tasks, select_tasks
from newt.tasks.sets import TASK_SETS


class _ListsByDefault(typer.core.TyperGroup):
    """`newt tasks mw-*` is short for `newt tasks list mw-*`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts `list` in front of anything which is not a command."""
        if not args or args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


tasks_app = typer.Typer(
    cls=_ListsByDefault, help="The task registry: list (the default), check and draw the tasks.", no_args_is_help=False
)
task_runs.register(tasks_app)


@tasks_app.command("list")
def list_tasks(
    specs: Annotated[
        list[str] | None, typer.Argument(help="Task names, globs, domains or sets; nothing lists everything.")
    ] = None,
    texts: Annotated[bool, typer.Option("--texts", help="Show the instructions too.")] = False,
    sets: Annotated[bool, typer.Option("--sets", help="List the named task sets instead.")] = False,
) -> None:
    """List tasks: dimensions, lengths, scripted experts, whether the published score is corrected (docs/scores.md)."""
    if sets:
        table = name_table("set", "tasks", "what")
        for name, task_set in TASK_SETS.items():
            table.add_row(name, str(len(select_tasks([name]))), task_set.description)
        console.print(table)
        return
    try:
        tasks = select_tasks(specs) if specs else list(all_tasks())
    except UnknownTaskError as error:
        raise InvalidInputError("tasks", str(error)) from error
    print_whole(_table(tasks, texts))


def _table(tasks: list[Task], texts: bool) -> Table:
    columns = ["task", "domain", "split", "obs", "act", "length", "success", "expert", "score"]
    table = name_table(*columns, *(["instruction"] if texts else []))
    for task in tasks:
        row = [
            task.name,
            task.domain,
            task.split,
            str(task.obs_dim),
            str(task.action_dim),
            str(task.episode_length),
            "yes" if task.has_success else "-",
            "yes" if task.has_expert else "-",
            "corrected" if task.corrected_score else "-",
        ]
        table.add_row(*row, *([task.instruction] if texts else []))
    return table
