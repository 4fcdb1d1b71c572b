"""`newt tasks`: the task registry."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer
from rich.table import Table

from newt.cli import task_checks
from newt.cli.stack import tell_absent
from newt.cli.terminal import JsonOption, list_table, print_json, print_whole
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
task_checks.register(tasks_app)


@tasks_app.command("list")
def list_tasks(
    specs: Annotated[
        list[str] | None, typer.Argument(help="Task names, globs, domains or sets; nothing lists everything.")
    ] = None,
    texts: Annotated[bool, typer.Option("--texts", help="Show the instructions too.")] = False,
    sets: Annotated[bool, typer.Option("--sets", help="List the named task sets instead.")] = False,
    json: JsonOption = False,
) -> None:
    """List tasks: dimensions, lengths, scripted experts, whether the published score is corrected (docs/scores.md)."""
    if sets:
        if json:
            print_json({name: [task.name for task in select_tasks([name])] for name in TASK_SETS})
            return
        table = list_table("set", "tasks", note="what")
        for name, task_set in TASK_SETS.items():
            table.add_row(name, str(len(select_tasks([name]))), task_set.description)
        print_whole(table)
        return
    try:
        tasks = select_tasks(specs) if specs else list(all_tasks())
    except UnknownTaskError as error:
        raise InvalidInputError("tasks", str(error)) from error
    if json:
        print_json([_facts(task) for task in tasks])
        return
    print_whole(table_of(tasks, texts))
    tell_absent({task.domain for task in tasks})


def _facts(task: Task) -> dict[str, Any]:
    """What there is to know of a task, for programs."""
    facts = {field.name: getattr(task, field.name) for field in dataclasses.fields(task)}
    del facts["embodiment"], facts["goal"]
    return {**facts, "corrected_score": task.corrected_score is not None, "instruction": task.instruction}


def table_of(tasks: list[Task], texts: bool = False) -> Table:
    """A line per task, with its instruction where `texts` are wanted."""
    columns = ["task", "domain", "obs", "act", "len", "notes"]
    if texts:
        table = list_table(*columns, note="instruction", gap=1)
    else:
        table = list_table(*columns[:-1], note=columns[-1], gap=1)
    for task in tasks:
        notes = {
            task.split: task.split != "train",
            "corrected": task.corrected_score,
            "success": task.has_success,
            "expert": task.has_expert,
        }
        row = [
            task.name,
            task.domain,
            str(task.obs_dim),
            str(task.action_dim),
            str(task.episode_length),
            " ".join(name for name, true in notes.items() if true) or "-",
        ]
        table.add_row(*row, *([task.instruction] if texts else []))
    return table
