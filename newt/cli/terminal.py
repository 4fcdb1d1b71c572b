"""The console that all commands print to, and what they print in common."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from newt.runs.base import BrokenRecord

# A `:x:` in a path or a message is no picture.
console = Console(emoji=False)

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Folder of the stack's state, logs and data. Default: $NEWT_HOME or ~/.newt."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]

SourceParameter = typer.Argument(
    help="A folder with an env.py, a file, gym:ID, module:NAME, or an installed task's name."
)
SourceArgument = Annotated[str, SourceParameter]


def print_whole(table: Table) -> None:
    """Prints a wide table; where there is no terminal to fit it to (a CI's log), as wide as it is."""
    (console if console.is_terminal else Console(width=200, emoji=False)).print(table)


def print_json(data: BaseModel | list[Any] | dict[str, Any]) -> None:
    """Prints data for programs, whatever the terminal is like."""
    import json

    print(data.model_dump_json(indent=1) if isinstance(data, BaseModel) else json.dumps(data, indent=1))


def name_table(name: str, *columns: str, **settings: Any) -> Table:
    """A table whose first column holds names: they are never cut while another column can give way.

    Args:
        name: Header of the first column.
        columns: The other headers.
        settings: Settings of `rich.table.Table`.
    """
    return Table(Column(name, no_wrap=True), *columns, **settings)


def list_table(*columns: str, note: str | None = None, gap: int = 2) -> Table:
    """A table of one line per row, without a frame, for lists that must fit 80 columns.

    Args:
        columns: Headers; what is below them is never cut.
        note: Header of a last column that is, where the line ends.
        gap: Spaces between columns.
    """
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True)
    if note is not None:
        table.add_column(note, no_wrap=True, overflow="ellipsis", ratio=1)
    return table


def print_broken(records: Sequence[BrokenRecord]) -> None:
    """Prints a line for each stored record that cannot be read, behind the list of the others."""
    for record in records:
        console.print(f"broken {record.kind} {escape(record.id)}: {line(record.error)}", soft_wrap=True)


def line(text: str) -> str:
    """A message of several lines as one, in which nothing is markup."""
    return escape(" ".join(text.split()))
