"""`newt whoami`."""

from __future__ import annotations

import typer

from newt.cli.rest import Api, UrlOption
from newt.cli.terminal import JsonOption, console, print_json
from newt.runs.people import Caller
from newt.runs.stored import read


def whoami(url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Whose token this is, and what they may do."""
    api = Api(url)
    caller = read(Caller, api.get("/whoami"))
    if as_json:
        print_json(caller)
        return
    console.print(f"{caller.name or 'nobody by name'}, {caller.role.value} at {api.url}", markup=False, highlight=False)
    for name, most in caller.quotas.model_dump(exclude_none=True).items():
        console.print(f"at most {most:,} {name.replace('_', ' ')}", highlight=False)


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(whoami)
