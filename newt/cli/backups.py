"""`newt backup` and `newt restore`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr

from newt.cli.terminal import HomeOption, console
from newt.errors import InvalidInputError, NotFoundError, PreconditionError
from newt.local import control, redis_server, stack
from newt.local.state import StackError, command, default_home, locked
from newt.security import SecuritySettings, redis_address

_STOP_S = 60.0  # Redis writes the end of its file first

RedisOption = Annotated[
    list[str] | None,
    typer.Option(
        "--redis",
        help="Address of a deployment's Redis, instead of a local stack's; with --data. Once for each replay service, "
        "in the order of NEWT_LEARNER_REPLAY, where several share runs' tasks.",
    ),
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

    with console.status("Copying ..."), _deployment(home, redis, data, restored=None) as (urls, folder):
        if keep is None:
            done = making.make(place, urls, folder)
        else:
            place, done = making.make_kept(place, keep, urls, folder)
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
    from newt.backup import manifest, places, restoring

    with console.status("Restoring ..."):
        shards = manifest.read(places.at(place)).shards
        with _deployment(home, redis, data, restored=shards) as (urls, folder):
            done = restoring.restore(place, urls, folder)
    console.print(f"restored {done.summary()}", soft_wrap=True, highlight=False, markup=False)
    if not redis:
        console.print(f"start the stack with: {command('up', home)}", soft_wrap=True, highlight=False, markup=False)


@contextmanager
def _deployment(
    home: Path | None, redis: list[str] | None, data: Path | None, *, restored: int | None
) -> Iterator[tuple[list[str], Path]]:
    """Addresses of Redis and data folder: as given, or of a local stack; one that is stopped gets its Redis meanwhile.

    Args:
        home: Of a local stack.
        redis: As given.
        data: As given.
        restored: For a stopped stack that is to get a backup: of how many replay services that is.
    """
    if (not redis) != (data is None) or (redis and home is not None):
        raise InvalidInputError("--redis", "expected --redis and --data together, for a deployment; or --home, or none")
    if redis and data is not None:
        yield [redis_address(SecretStr(url)) for url in redis], data
        return
    home = home or default_home()
    running = control.read(home)
    if running is not None and running.active and restored is None:
        addresses = {service["name"]: service["address"] for service in running.services}
        names = [stack.shard_name("redis", shard) for shard in range(stack.stored_shards(home))]
        if any(name not in addresses for name in names):
            raise StackError(f"the stack in {home} is only starting; try again when `newt status` shows it")
        ports = [int(addresses[name].rpartition(":")[2]) for name in names]
        yield [redis_address(SecretStr(stack.redis_url(port))) for port in ports], home / "data"
        return
    used = (home / "redis").is_dir()
    if restored is None and not used:
        raise NotFoundError(
            f"{home} holds nothing of a stack; expected --home of one that has run, or --redis and --data"
        )
    shards = stack.stored_shards(home) if used or restored is None else restored
    if restored not in (None, shards):
        raise PreconditionError(
            f"the backup is of {restored} replay services, {home} is of {shards}; restore into a new home, or into one "
            f"of `newt up --replay-shards {restored}`. Nothing was changed"
        )
    password = SecuritySettings().redis_password()
    with locked(home), ExitStack() as started:
        urls = []
        for shard in range(shards):
            folder = home / stack.shard_name("redis", shard)
            if restored is not None and not folder.exists():
                started.push(_removing(folder))
            try:
                server = redis_server.start(folder, password=password.get_secret_value() if password else "")
            except redis_server.RedisServerError as error:
                raise StackError(str(error)) from error
            started.callback(server.stop, _STOP_S)
            urls.append(server.url)
        yield urls, home / "data"


def _removing(folder: Path) -> Callable[..., None]:
    """Of a restore that fails: a home has as many replay services as it has folders of Redis."""

    def leave(error: type[BaseException] | None, *_: object) -> None:
        if error is not None:
            shutil.rmtree(folder, ignore_errors=True)

    return leave
