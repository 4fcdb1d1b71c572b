"""The console that all commands print to."""

from rich.console import Console
from rich.table import Table

console = Console()


def print_whole(table: Table) -> None:
    """Prints a wide table; where there is no terminal to fit it to (a CI's log), as wide as it is."""
    (console if console.is_terminal else Console(width=200)).print(table)
