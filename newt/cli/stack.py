"""`newt up`, `newt down`, `newt status`: the local stack."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from newt.cli.terminal import console, name_table
from newt.errors import InvalidInputError
from newt.local import control
from newt.local.stack import StackConfig, installed_domains
from newt.tasks.domains import DOMAINS

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Folder of the stack's state, logs and data. Default: $NEWT_HOME or ~/.newt."),
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(up)
    app.command()(down)
    app.command()(status)


def up(
    home: HomeOption = None,
    domain: Annotated[
        list[str] | None,
        typer.Option("--domain", help="Simulator domain to start; repeatable. Default: all installed."),
    ] = None,
    any_port: Annotated[
        bool, typer.Option("--any-port", help="Use free ports instead of the documented ones.")
    ] = False,
) -> None:
    """Start Redis, the simulators, replay, planner and learner as processes on this machine.

    Settings of services in the environment (NEWT_LEARNER_DEVICE, NEWT_SIM_WORKERS, ...) reach them: docs/settings.md.
    """
    for name in domain or ():
        if name not in DOMAINS:
            raise InvalidInputError("--domain", f"got {name!r}, expected one of {', '.join(DOMAINS)}")
    domains = tuple(domain or installed_domains())
    config = StackConfig(home=home or control.default_home(), domains=domains, fixed_ports=not any_port)
    with console.status("Starting services ..."):
        state = control.up(config)
    console.print(table_of(state))
    console.print(f"REST API: {state.rest_url}/docs   stop with: newt down")


def down(home: HomeOption = None) -> None:
    """Stop the local stack; running runs checkpoint first and resume at the next start."""
    with console.status("Stopping services ..."):
        ran = control.down(home or control.default_home())
    console.print("Stopped." if ran else "No local stack was running.")


def status(home: HomeOption = None) -> None:
    """Show the services of the local stack; exit status 1 unless all are ready."""
    state = control.read(home or control.default_home())
    if state is None or state.state == "stopped":
        console.print("No local stack is running; start one with: newt up")
        raise typer.Exit(1)
    console.print(table_of(state))
    if state.error:
        console.print(f"[red]{state.error}[/red]")
    if state.state != "running" or any(service["state"] != "ready" for service in state.services):
        raise typer.Exit(1)


def table_of(state: control.StackState) -> Table:
    """The services of a stack as a table."""
    table = name_table("service", "state", "address", "metrics port", "pid", "restarts", title=f"stack: {state.state}")
    for service in state.services:
        metrics = str(service["metrics"] or "REST port" * (service["name"] == "learner"))
        table.add_row(
            service["name"],
            service["state"],
            service["address"],
            metrics,
            str(service["pid"]),
            str(service["restarts"]),
        )
    return table
