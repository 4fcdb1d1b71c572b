"""`newt up`, `newt down`, `newt status`: the local stack."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from newt.cli import computing, serving
from newt.cli.tails import Tail
from newt.cli.terminal import HomeOption, JsonOption, console, name_table, print_json
from newt.errors import InvalidInputError
from newt.local import control
from newt.local.stack import MOST_SHARDS, StackConfig
from newt.local.state import command, default_home
from newt.own import environments, sources
from newt.tasks.domains import DOMAINS, how_to_install, installed_domains

_FOLLOW_S = 0.25
_LEAST_ROOM_BYTES = 64 * 1024  # what the supervisor needs for its state file, and Redis for a moment


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(logs)


def up(
    home: HomeOption = None,
    domain: Annotated[
        list[str] | None,
        typer.Option("--domain", help="Simulator domain to start; repeatable. Default: all installed."),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", help="Also serve tasks of your own: a folder, file, gym:ID, module:NAME; repeatable."),
    ] = None,
    sim: Annotated[
        list[str] | None,
        typer.Option("--sim", help="Also use a simulator that runs elsewhere, as NAME=HOST:PORT; repeatable."),
    ] = None,
    any_port: Annotated[
        bool, typer.Option("--any-port", help="Use free ports instead of the documented ones.")
    ] = False,
    replay_shards: Annotated[
        int,
        typer.Option(
            "--replay-shards",
            min=1,
            max=MOST_SHARDS,
            help="Replay services over which tasks are spread; a home keeps those that it has.",
        ),
    ] = 1,
) -> None:
    """Start Redis, the simulators, replay, planner and learner as processes on this machine.

    Settings of services in the environment (NEWT_LEARNER_DEVICE, NEWT_SIM_WORKERS, ...) reach them: docs/settings.md.
    """
    for name in domain or ():
        if name not in DOMAINS:
            raise InvalidInputError("--domain", f"got {name!r}, expected one of {', '.join(DOMAINS)}")
    domains = tuple(domain or installed_domains())
    elsewhere = _elsewhere(sim or ())
    own = sources.names(map(sources.absolute, env or ()))
    for name, source in own.items():
        if name in elsewhere:
            raise InvalidInputError("--sim", f"{name} is the name of the simulator of {source}; choose another one")
    pythons = pythons_of(own)
    for name, source in own.items():
        sources.declared(source, pythons[name])  # a mistake in it is told now, and in one line
    config = StackConfig(
        home=home or default_home(),
        domains=domains,
        fixed_ports=not any_port,
        sources=own,
        pythons=pythons,
        source_folder=os.getcwd(),
        sims=elsewhere,
        replay_shards=replay_shards,
    )
    with console.status("Starting services ..."):
        state = control.up(config)
    console.print(table_of(state))
    if not domain:
        tell_absent(set(DOMAINS))
    if home is not None and home != default_home():
        console.print(
            f"Other commands find it with: export NEWT_HOME={shlex.quote(str(home.absolute()))}", soft_wrap=True
        )
    console.print(f"page: {state.rest_url}   REST API: {state.rest_url}/docs", soft_wrap=True)
    console.print(f"stop with: {command('down', home)}", soft_wrap=True)


def pythons_of(own: Mapping[str, str]) -> dict[str, str]:
    """The interpreter of each source, by its simulator's name; installs requirements that are not there yet."""
    with console.status("Installing what the sources require ..."):
        return {name: environments.python_of(source) for name, source in own.items()}


def _elsewhere(given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, _, address = text.partition("=")
        if not name or not re.fullmatch(r".+:[0-9]{1,5}", address):
            raise InvalidInputError("--sim", f"got {text!r}, expected NAME=HOST:PORT")
        if name in found:
            raise InvalidInputError("--sim", f"{name} is given twice")
        found[name] = address
    return found


def down(home: HomeOption = None) -> None:
    """Stop the local stack; running runs checkpoint first and resume at the next start."""
    with console.status("Stopping services ..."):
        ran = control.down(home or default_home())
    console.print("Stopped." if ran else "No local stack was running.")


def status(home: HomeOption = None, json: JsonOption = False) -> None:
    """Show the services of the local stack, its planner's models, and devices; exit status 1 unless all are ready."""
    home = home or default_home()
    state = control.read(home)
    served, planner = serving.served_by(state) if state is not None and state.active else ([], None)
    runs = computing.of_runs(state, serving.STATUS_TIMEOUT_S) if state is not None and state.active else {}
    if json:
        stopped: dict[str, Any] = {"state": "stopped", "error": None, "services": []}
        devices = {
            "planner": planner.model_dump() if planner else None,
            "runs": {run: where.model_dump() for run, where in runs.items()},
        }
        models = [model.as_json() for model in served]
        print_json({**(state.model_dump() if state else stopped), "models": models, "devices": devices})
    elif state is None or state.state == "stopped":
        console.print(f"No local stack is running; start one with: {command('up', home)}", soft_wrap=True)
    else:
        console.print(table_of(state))
        if served:
            console.print(serving.table_of(served))
        found = {**({"planner": planner} if planner else {}), **{f"run {run}": where for run, where in runs.items()}}
        if found:
            console.print(computing.table_of(found))
    if state is None or state.state == "stopped":
        raise typer.Exit(1)
    if state.error and not json:
        console.print(f"[red]{escape(state.error)}[/red]", soft_wrap=True)
    if shutil.disk_usage(home).free < _LEAST_ROOM_BYTES and not json:
        console.print(
            f"[red]There is no room left on the disk of {home}: what you see may be old.[/red]", soft_wrap=True
        )
        raise typer.Exit(1)
    if state.state != "running" or any(service["state"] != "ready" for service in state.services):
        raise typer.Exit(1)


def logs(
    service: Annotated[
        str | None, typer.Argument(help="A service as `newt status` names it, or supervisor. Default: all.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written, until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Lines from the end of each log.")] = 20,
    home: HomeOption = None,
) -> None:
    """Show the logs of the local stack, also after its end."""
    home = home or default_home()
    found = {path.stem: path for path in [*sorted((home / "logs").glob("*.log")), home / "supervisor.log"]}
    if service is not None and service not in found:
        raise InvalidInputError("SERVICE", f"got {service!r}, expected one of {', '.join(found)}")
    tails = [Tail(path) for name, path in found.items() if service in (None, name)]
    for tail in tails:
        for text in tail.last(lines):
            print(text if service else f"{tail.name}: {text}")
    while follow:
        for tail in tails:
            for text in tail.news():
                print(text if service else f"{tail.name}: {text}", flush=True)
        time.sleep(_FOLLOW_S)


def tell_absent(domains: Collection[str]) -> None:
    """Says which of the domains are not installed here, and what installs them."""
    present = installed_domains()
    if not present:
        return  # The command line alone: its simulators are elsewhere.
    absent = [name for name in DOMAINS if name in domains and name not in present]
    if absent:
        console.print(
            f"Not installed here: {', '.join(absent)}. Call `make all-domains`, or {how_to_install(absent)}",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )


def table_of(state: control.StackState) -> Table:
    """The services of a stack as a table."""
    table = name_table("service", "state", "address", "metrics port", "pid", "restarts", title=f"stack: {state.state}")
    for service in state.services:
        metrics = str(service["metrics"] or "")
        table.add_row(
            service["name"],
            service["state"],
            service["address"],
            metrics,
            str(service["pid"]),
            str(service["restarts"]),
        )
    return table
