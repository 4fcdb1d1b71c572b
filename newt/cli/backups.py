"""`newt backup` and `newt restore`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr

from newt.cli.terminal import HomeOption, console
from newt.errors import InvalidInputError, NotFoundError
from newt.local import control, redis_server, stack
from newt.local.state import StackError, command, default_home, locked
from newt.security import SecuritySettings, redis_address

_STOP_S = 60.0  # Redis writes the end of its file first

RedisOption = Annotated[
    str | None,
    typer.Option("--redis", help="Address of a deployment's Redis, instead of a local stack's; with --data."),
]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="Data folder of that deployment's learner; with --redis.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(backup)
    app.command()(restore)


def backup(
    place: Annotated[str, typer.Argument(metavar="PLACE", help="Folder to make, or s3://BUCKET/PATH.")],
    keep: Annotated[
        int | None,
        typer.Option(
            min=1, help="PLACE is one of backups: make one there, named after the time, and keep the newest so many."
        ),
    ] = None,
    home: HomeOption = None,
    redis: RedisOption = None,
    data: DataOption = None,
) -> None:
    """Copy runs, checkpoints, evaluations, buffers and demonstrations into a folder or a bucket, while runs go on.

    A run restored from it goes on as it would after a crash: from its newest checkpoint, with the episodes of then.
    Address and keys of a bucket's storage come from AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, or
    from where else its programs look for them.
    """
    from newt.backup import making

    with console.status("Copying ..."), _deployment(home, redis, data, stopped=False) as (url, folder):
        if keep is None:
            done = making.make(place, url, folder)
        else:
            place, done = making.make_kept(place, keep, url, folder)
    console.print(f"{place}: {done.summary()}", soft_wrap=True, highlight=False, markup=False)


def restore(
    place: Annotated[str, typer.Argument(metavar="PLACE", help="A backup: a folder, or s3://BUCKET/PATH.")],
    home: HomeOption = None,
    redis: RedisOption = None,
    data: DataOption = None,
) -> None:
    """Put a backup into an empty home of a stopped stack, or an empty Redis and an empty data folder.

    All or nothing. Runs that had not ended go on when the stack starts.
    """
    from newt.backup import restoring

    with console.status("Restoring ..."), _deployment(home, redis, data, stopped=True) as (url, folder):
        done = restoring.restore(place, url, folder)
    console.print(f"restored {done.summary()}", soft_wrap=True, highlight=False, markup=False)
    if redis is None:
        console.print(f"start the stack with: {command('up', home)}", soft_wrap=True, highlight=False, markup=False)


@contextmanager
def _deployment(
    home: Path | None, redis: str | None, data: Path | None, *, stopped: bool
) -> Iterator[tuple[str, Path]]:
    """Address of Redis and data folder: as given, or of a local stack; one that is stopped gets a Redis meanwhile."""
    if (redis is None) != (data is None) or (redis is not None and home is not None):
        raise InvalidInputError("--redis", "expected --redis and --data together, for a deployment; or --home, or none")
    if redis is not None and data is not None:
        yield redis_address(SecretStr(redis)), data
        return
    home = home or default_home()
    if (shards := stack.stored_shards(home)) > 1:
        raise StackError(
            f"{home} holds the data of {shards} replay services; backups know one Redis: stop the stack and copy the "
            "folder as a whole"
        )
    running = control.read(home)
    if running is not None and running.active and not stopped:
        ports = [service["address"].rpartition(":")[2] for service in running.services if service["name"] == "redis"]
        if not ports:
            raise StackError(f"the stack in {home} is only starting; try again when `newt status` shows it")
        yield redis_address(SecretStr(stack.redis_url(int(ports[0])))), home / "data"
        return
    if not stopped and not (home / "redis").is_dir():
        raise NotFoundError(
            f"{home} holds nothing of a stack; expected --home of one that has run, or --redis and --data"
        )
    password = SecuritySettings().redis_password()
    with locked(home):
        try:
            server = redis_server.start(home / "redis", password=password.get_secret_value() if password else "")
        except redis_server.RedisServerError as error:
            raise StackError(str(error)) from error
        try:
            yield server.url, home / "data"
        finally:
            server.stop(_STOP_S)
