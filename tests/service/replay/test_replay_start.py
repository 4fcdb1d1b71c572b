"""The service as a process: settings, port, metrics, health."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable

import pytest
from replay_episodes import make_buffer, numbered, take
from replay_stack import ServiceProcess, wait_ready

from newt.client.replay import ReplayClient
from newt.local.ports import free_port
from newt.local.redis_server import RedisServer


def run_service(**env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.replay"],
        env={**os.environ, **env},
        timeout=60,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("NEWT_REPLAY_PORT", "many", "port"),
        ("NEWT_REPLAY_PROT", "1", "NEWT_REPLAY_PROT"),
        ("NEWT_REPLAY_REDIS_URL", "localhost:6379", "redis://"),
    ],
)
def test_bad_settings_are_named(name: str, value: str, said: str) -> None:
    done = run_service(**{"NEWT_REPLAY_PORT": "0", name: value})
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_named(redis: RedisServer, start_process: Callable[[str], ServiceProcess]) -> None:
    process = start_process(redis.url)
    done = run_service(NEWT_REPLAY_PORT=str(process.port), NEWT_REPLAY_REDIS_URL=redis.url)
    assert done.returncode == 1
    assert f"cannot bind 127.0.0.1:{process.port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_metrics_tell_what_is_held_and_done(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics_port = free_port()
    monkeypatch.setenv("NEWT_REPLAY_METRICS_PORT", str(metrics_port))
    process = ServiceProcess(redis.url)
    process.start()
    try:
        wait_ready(process.address)
        with ReplayClient(process.address) as client:
            make_buffer(client, capacity_rows=20)
            for number in range(3):
                client.append(numbered(number, 9), buffer_id="run", timeout_s=10)
            client.append(numbered(2, 9), buffer_id="run", timeout_s=10)
            client.append(numbered(0, 9), demo_set="d", timeout_s=10)
            take(client, 2, batch_size=32)
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=10) as reply:
            lines = dict(line.rsplit(" ", 1) for line in reply.read().decode().splitlines() if line[0] != "#")
    finally:
        code = process.terminate()
    assert code == 0
    for name, value in {
        'newt_replay_appended_transitions_total{kind="buffer"}': 27,
        'newt_replay_appended_episodes_total{kind="buffer"}': 3,
        'newt_replay_appended_episodes_total{kind="demos"}': 1,
        'newt_replay_duplicate_episodes_total{kind="buffer"}': 1,
        "newt_replay_evicted_episodes_total": 1,
        'newt_replay_sampled_sequences_total{origin="online"}': 64,
        "newt_replay_sample_seconds_count": 2,
        "newt_replay_redis_up": 1,
    }.items():
        assert float(lines[name]) == value, name
    assert (
        'grpc_server_handled_total{grpc_code="OK",grpc_method="Append",grpc_service="newt.v1.ReplayService"}' in lines
    )
