"""`newt env serve` and `newt env image`: the simulator of a source elsewhere, as a service or in a container."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from newt.cli.terminal import SourceArgument, console
from newt.errors import InvalidInputError, NewtError, PreconditionError
from newt.own import environments, sources
from newt.own.images import BASE_IMAGE, Image
from newt.wire.addresses import bare_host

_BUILD_TIMEOUT_S = 3600.0


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(serve)
    app.command()(image)


def serve(
    source: SourceArgument,
    address: Annotated[str, typer.Option(help="Where it listens, HOST:PORT; 0.0.0.0 is all of this machine.")],
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes. Default: one per core.")] = None,
) -> None:
    """Serve the tasks of a source from this machine, until Ctrl-C, for learners and clients on others."""
    host, port = _bound(address)
    (name,) = sources.names([source])
    inside = sources.absolute(source)
    python = environments.python_of(inside)
    sources.declared(inside, python)  # a mistake in it is told now, and in one line
    console.print(f"Serving {source} at {address}. There: newt up --sim {name}=THIS-HOST:{port}", soft_wrap=True)
    variables = {
        "NEWT_SIM_DOMAINS": "own",
        "NEWT_SIM_SOURCES": json.dumps([inside]),
        "NEWT_SIM_HOST": host,
        "NEWT_SIM_PORT": str(port),
        **({"NEWT_SIM_WORKERS": str(workers)} if workers else {}),
    }
    os.execve(python, [python, "-m", "services.sim"], {**os.environ, **variables})


def image(
    source: SourceArgument,
    name: Annotated[str | None, typer.Option(help="Name of the simulator. Default: the source's.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the files. Default: NAME-image in this one.")] = None,
    base: Annotated[str, typer.Option(help="Image to begin with: one of Newt's simulators.")] = BASE_IMAGE,
    requirement: Annotated[
        list[str] | None, typer.Option(help="A package to install beside those that the source names; repeatable.")
    ] = None,
    write_only: Annotated[bool, typer.Option("--write-only", help="Write the files and build nothing.")] = False,
) -> None:
    """Build a container image of the simulator of a source, and write what brings it into compose and Kubernetes."""
    (found,) = sources.names([source])
    name = name or found.replace(".", "-")
    built = Image(source, name, (out or Path(f"{name}-image")).absolute(), base, requirement or ())
    built.write()
    console.print(f"written: {built.folder}", soft_wrap=True, highlight=False)
    build = ["docker", "build", "--tag", built.tag, str(built.folder)]
    if not write_only:
        if shutil.which("docker") is None:
            raise PreconditionError(f"no docker here; where there is one: {' '.join(build)}  (or --write-only)")
        if subprocess.run(build, timeout=_BUILD_TIMEOUT_S).returncode:
            raise NewtError(
                f"docker could not build it, see above; its base {base} is built by `docker compose build sim-mujoco`, "
                "or choose another --base"
            )
        console.print(f"built: {built.tag}", soft_wrap=True, highlight=False)
    console.print(f"compose: docker compose -f compose.yaml -f {built.folder}/compose.yaml up", soft_wrap=True)
    console.print(f"Kubernetes: a component of your kustomization: {built.folder}", soft_wrap=True)


def _bound(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise InvalidInputError("--address", f"got {address!r}, expected HOST:PORT")
    return bare_host(host), int(port)
