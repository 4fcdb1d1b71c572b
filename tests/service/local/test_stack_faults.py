"""Disks, folders and signals at the wrong time, on a real stack."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from newt.local import control, redis_server, state
from newt.local.processes import start_time
from newt.local.stack import StackConfig
from newt.local.state import StackState

ROOT = Path(__file__).parents[3]


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def newt(home: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NEWT_HOME": str(home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "newt.cli.main", *arguments]
    if cwd is not None:  # in a folder that is gone
        cwd.mkdir()
        command = ["sh", "-c", f'cd {cwd} && rmdir {cwd} && exec "$@"', "sh", *command]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=170)


@pytest.fixture(scope="module")
def small_disk() -> Iterator[Path]:
    """A file system of its own with 24 MB."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="module")
def home(small_disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A stack on that disk, started from a folder that no longer exists."""
    result = newt(small_disk / "newt", "up", "--any-port", "--domain", "mujoco", cwd=tmp_path_factory.mktemp("a") / "b")
    assert result.returncode == 0, result.stdout + result.stderr
    yield small_disk / "newt"
    control.down(small_disk / "newt")


def stack(home: Path) -> StackState:
    found = control.read(home)
    assert found is not None
    return found


def alive(pid: int) -> bool:
    return start_time(pid) is not None


@pytest.mark.slow
def test_services_run_where_their_files_are(home: Path) -> None:
    for service in stack(home).services:
        assert Path(f"/proc/{service['pid']}/cwd").readlink().is_relative_to(home), service["name"]


@pytest.mark.slow
def test_commands_work_in_a_folder_that_is_gone(home: Path, tmp_path: Path) -> None:
    assert newt(home, "status", cwd=tmp_path / "gone").returncode == 0
    assert newt(home, "runs", cwd=tmp_path / "gone").returncode == 0
    result = newt(home, "runs", "checkpoints", "r", "--download", "c", "--to", "here", cwd=tmp_path / "gone")
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)


@pytest.mark.slow
def test_a_full_disk_stops_nothing_and_is_forgotten_when_there_is_room(home: Path) -> None:
    before = stack(home)
    filler = home.parent / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    try:
        replay = next(service for service in before.services if service["name"] == "replay")
        os.kill(replay["pid"], signal.SIGKILL)
        time.sleep(2)  # Four times around the supervisor's loop.
        assert before.supervised
        assert all(alive(service["pid"]) for service in before.services if service is not replay)
        told = newt(home, "status")
        assert told.returncode == 1
        assert "no room" in told.stdout
    finally:
        filler.unlink()

    def recovered() -> bool:
        now = next(service for service in stack(home).services if service["name"] == "replay")
        return bool(now["restarts"] == 1 and now["state"] == "ready")

    wait_until(recovered, "replay is back and the state file tells it")
    assert newt(home, "status").returncode == 0
    words = (home / "supervisor.log").read_text()
    assert "state_written_again" in words


@pytest.mark.slow
def test_everything_dies_with_the_supervisor(home: Path) -> None:
    before = stack(home)
    with pytest.raises(control.StackError, match="runs already"):
        control.up(StackConfig(home, ("mujoco",), fixed_ports=False))
    os.kill(before.pid, signal.SIGKILL)
    wait_until(lambda: not any(alive(service["pid"]) for service in before.services), "no service is left")
    assert control.read(home) is None
    assert control.down(home) is False


def test_down_ends_a_stack_whose_supervisor_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_DOWN_TIMEOUT_S", 1.0)
    starting = threading.Thread(target=lambda: up_in_vain(tmp_path))
    starting.start()
    wait_until(lambda: len(getattr(state.last(tmp_path), "services", [])) > 1, "Redis and another service have started")
    before = stack(tmp_path)
    os.kill(before.pid, signal.SIGSTOP)
    assert control.down(tmp_path) is True
    assert not before.supervised
    assert not any(alive(service["pid"]) for service in before.services)
    starting.join(30)


def up_in_vain(home: Path) -> str:
    """Starts a stack that somebody stops meanwhile; returns why it did not start."""
    with pytest.raises(control.StackError) as caught:
        control.up(StackConfig(home, (), fixed_ports=False))
    return str(caught.value)


@pytest.mark.parametrize("delay_s", [0.0, 0.3, 1.0])
def test_down_stops_a_stack_that_is_just_starting(tmp_path: Path, delay_s: float) -> None:
    said: list[str] = []
    starting = threading.Thread(target=lambda: said.append(up_in_vain(tmp_path)))
    starting.start()
    wait_until(lambda: state.is_locked(tmp_path), "the start begins")
    time.sleep(delay_s)
    assert control.down(tmp_path) is True
    starting.join(30)
    assert said == ["the stack was stopped while it started"]
    assert not state.is_locked(tmp_path)
    left = state.last(tmp_path)
    assert left is None or not any(alive(service["pid"]) for service in left.services)


def test_two_starts_at_once_are_one_stack(tmp_path: Path) -> None:
    with state.locked(tmp_path), pytest.raises(control.StackError, match="runs already"):
        control.up(StackConfig(tmp_path, (), fixed_ports=False))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """What a Redis with five keys leaves."""
    server = redis_server.start(tmp_path / "redis")
    client = redis.Redis.from_url(server.url)
    for number in range(5):
        client.set(f"newt:{number}", b"\0" * 100 + b"\r\n")
    client.close()
    server.stop()
    return tmp_path / "redis"


def keys(directory: Path) -> int:
    server = redis_server.start(directory)
    client = redis.Redis.from_url(server.url)
    try:
        return int(client.dbsize())
    finally:
        client.close()
        server.stop()


def append_only(directory: Path) -> Path:
    return max([directory / "appendonly.aof", *directory.glob("appendonlydir/*.incr.aof")], key=Path.exists)


@pytest.mark.parametrize(("cut", "zeros", "kept"), [(0, 1, 5), (0, 4096, 5), (0, 200_000, 5), (30, 100, 4)])
def test_zeros_that_a_power_cut_left_are_cut_off(data: Path, cut: int, zeros: int, kept: int) -> None:
    path = append_only(data)
    damaged = path.read_bytes()[: path.stat().st_size - cut] + bytes(zeros)
    path.write_bytes(damaged)
    assert keys(data) == kept
    (copy,) = data.glob("*.copy")
    assert copy.read_bytes() == damaged
    assert keys(data) == kept
    assert len(list(data.glob("*.copy"))) == 1


def test_a_file_that_ends_as_it_should_is_left_alone(data: Path) -> None:
    assert redis_server.mend(data) == []
    server = redis_server.start(data)
    client = redis.Redis.from_url(server.url)
    client.bgrewriteaof()
    wait_until(lambda: client.info("persistence")["aof_rewrite_in_progress"] == 0, "the file is rewritten")
    client.close()
    server.stop()
    assert redis_server.mend(data) == []
    assert keys(data) == 5


@pytest.mark.parametrize(
    "content",
    [b"", bytes(100), b"garbage\n", b"*", b"*3\r\n$3\r\nSET\r\n", b"*-1\r\n", b"REDIS0009", bytes(range(256))],
    ids=lambda content: repr(content[:12]),
)
def test_any_bytes_as_redis_data_are_read_or_refused_in_words(data: Path, content: bytes) -> None:
    path = append_only(data)
    path.write_bytes(content)
    try:
        assert keys(data) == 0
    except redis_server.RedisServerError as error:
        assert "keep a copy of that folder" in str(error), error  # noqa: PT017 - either way is right


def test_data_that_redis_refuses_is_told_in_its_words_with_what_to_do(data: Path) -> None:
    path = append_only(data)
    content = bytearray(path.read_bytes())
    content[40:60] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(control.StackError, match=r"redis exited .*append only file.* keep a copy of that folder"):
        control.up(StackConfig(data.parent, (), fixed_ports=False))
    with pytest.raises(redis_server.RedisServerError, match=r"append only file.* keep a copy of that folder"):
        redis_server.start(data)
    assert path.read_bytes() == content
