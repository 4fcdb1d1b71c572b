"""Whatever lies where a stack keeps its files: one line or a way on, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from newt.cli import main
from newt.local import control
from newt.local.state import LOCK_FILE, STATE_FILE, last

STATE = {"state": "running", "error": None, "pid": 4242, "started": 17, "home": "/", "services": []}
SERVICE = {"name": "learner", "state": "ready", "pid": 4243, "address": "127.0.0.1:1", "metrics": None, "restarts": 0}
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
CONTENTS = (
    st.binary(max_size=200)
    | JSON.map(lambda value: json.dumps(value).encode())
    # A true record with one wrong field.
    | st.tuples(st.sampled_from([*STATE]), JSON).map(lambda pair: json.dumps({**STATE, pair[0]: pair[1]}).encode())
    | st.tuples(st.sampled_from([*SERVICE]), JSON).map(
        lambda pair: json.dumps({**STATE, "services": [{**SERVICE, pair[0]: pair[1]}]}).encode()
    )
    # What a crash leaves: the beginning, and zeros.
    | st.integers(0, 90).map(lambda length: json.dumps(STATE).encode()[:length] + bytes(20))
    | st.just(b"[" * 100_000)
)


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    """Exit status of a command and the one line that it says on stderr."""
    monkeypatch.setattr(sys, "argv", ["newt", *arguments])
    with pytest.raises(SystemExit) as ended:
        main.main()
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) <= 1, printed.err
    return int(ended.value.code or 0), (printed.err or printed.out).strip()


@given(content=CONTENTS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_in_the_state_file_are_no_stack(tmp_path: Path, content: bytes) -> None:
    (tmp_path / STATE_FILE).write_bytes(content)
    (tmp_path / LOCK_FILE).write_bytes(content)
    assert control.read(tmp_path) is None  # Nobody has the process 4242 that began at tick 17.
    assert control.down(tmp_path) is False


def test_a_true_record_is_read(tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).write_text(json.dumps({**STATE, "services": [SERVICE]}))
    state = last(tmp_path)
    assert state is not None
    assert state.rest_url == "http://127.0.0.1:1"
    earlier = {name: value for name, value in STATE.items() if name != "started"}
    (tmp_path / STATE_FILE).write_text(json.dumps(earlier))
    assert last(tmp_path) is not None


@pytest.mark.parametrize("command", ["up", "down", "status"])
def test_a_home_that_cannot_be_used_is_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder" / STATE_FILE).mkdir(parents=True)
    homes = [tmp_path / "file", tmp_path / "file" / "below", tmp_path / "folder"]
    if command == "up":
        homes += [Path("/proc/newt"), Path("/sys/kernel/newt"), Path("/dev/null")]
    for home in homes:
        status, line = run(capsys, monkeypatch, command, "--home", str(home))
        assert status == 2, (home, line)
        assert line.startswith(f"newt: cannot keep a stack in {home}: ")
        assert line.endswith("name a folder that can be written with --home or $NEWT_HOME")
    monkeypatch.setenv("NEWT_HOME", str(homes[0]))
    assert run(capsys, monkeypatch, command)[0] == 2


def test_a_home_of_a_person_that_cannot_be_written_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NEWT_HOME", raising=False)
    monkeypatch.setenv("HOME", "/proc/nobody")
    status, line = run(capsys, monkeypatch, "up", "--domain", "mujoco")
    assert status == 2
    assert "/proc/nobody/.newt" in line


def test_a_log_on_a_full_disk_ends_no_process() -> None:
    script = "import structlog\nfrom newt import logs\nlogs.configure('test')\nfor _ in range(2000): " + (
        "structlog.get_logger().error('event', text='x' * 100)\nprint('alive')"
    )
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=full, text=True, timeout=60, env=os.environ
        )
    assert done.stdout == "alive\n"
