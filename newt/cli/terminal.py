"""The console that all commands print to."""

from typing import Any

from rich.console import Console
from rich.table import Column, Table

console = Console()


def print_whole(table: Table) -> None:
    """Prints a wide table; where there is no terminal to fit it to (a CI's log), as wide as it is."""
    (console if console.is_terminal else Console(width=200)).print(table)


def name_table(name: str, *columns: str, **settings: Any) -> Table:
    """A table whose first column holds names: they are never cut while another column can give way.

    Args:
        name: Header of the first column.
        columns: The other headers.
        settings: Of `rich.table.Table`.
    """
    return Table(Column(name, no_wrap=True), *columns, **settings)
