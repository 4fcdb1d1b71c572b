"""The supervisor with real processes and real Redis; their other dependencies are away, so that they only wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from learner_stack import wait_until

from newt.local.redis_server import RedisServer
from newt.runs.record import RunState
from newt.runs.spec import RunSpec
from services.learner.settings import LearnerSettings
from services.learner.store import RunStore
from services.learner.supervisor import ROLES, Supervisor

SPEC = RunSpec.model_validate({"tasks": ["mujoco-reacher"], "preset": "laptop", "model": {"latent_dim": 16}})


@pytest.fixture
def settings(shared_redis: RedisServer, tmp_path: Path) -> LearnerSettings:
    return LearnerSettings(
        redis_url=shared_redis.url,
        data_dir=tmp_path,
        hub_port=9,
        replay="127.0.0.1:9",
        planner="127.0.0.1:9",
        sims={"mujoco": "127.0.0.1:9"},
        max_restarts=1,
        torch_threads=1,
    )


@pytest.fixture
def supervisor(store: RunStore, settings: LearnerSettings) -> Iterator[Supervisor]:
    for run_id, state in store.states().items():
        if not state.finished:
            store.cancel(run_id)
    supervisor = Supervisor(store, settings)
    supervisor.start()
    yield supervisor
    supervisor.stop()


def _submit(store: RunStore, settings: LearnerSettings) -> str:
    return store.create(SPEC, lambda run_id: settings.data_dir / "runs" / run_id).id


def _waits(store: RunStore, run_id: str) -> bool:
    waiting_on = store.get(run_id).progress.waiting_on or ""
    return "replay" in waiting_on and "simulator" in waiting_on


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_crashes_are_repaired_until_there_are_too_many(
    store: RunStore, settings: LearnerSettings, supervisor: Supervisor
) -> None:
    run_id = _submit(store, settings)
    wait_until(lambda: set(supervisor.pids(run_id)) == set(ROLES), "both processes")
    first = supervisor.pids(run_id)
    os.kill(first["trainer"], signal.SIGKILL)
    wait_until(lambda: supervisor.pids(run_id)["trainer"] != first["trainer"], "a new trainer")
    second = supervisor.pids(run_id)
    assert second["collector"] == first["collector"]
    assert store.get(run_id).progress.restarts == 1
    os.kill(second["trainer"], signal.SIGSEGV)
    wait_until(lambda: store.get(run_id).state is RunState.FAILED, "failed")
    error = store.get(run_id).error or ""
    assert "the trainer killed by SIGSEGV" in error
    assert "2 crashes in 300 s" in error
    wait_until(lambda: not _alive(second["collector"]), "the end of the collector")


def test_a_cancelled_run_loses_its_processes_and_makes_room(
    store: RunStore, settings: LearnerSettings, supervisor: Supervisor
) -> None:
    first, second = _submit(store, settings), _submit(store, settings)
    wait_until(lambda: _waits(store, first), "waiting is told")
    assert store.get(second).state is RunState.QUEUED
    pids = supervisor.pids(first)
    store.cancel(first)
    wait_until(lambda: not any(_alive(pid) for pid in pids.values()), "the end of the processes")
    wait_until(lambda: store.get(second).state.active, "the next run")
    assert store.get(first).state is RunState.CANCELLED
    store.cancel(second)


def test_processes_end_with_their_supervisor_and_the_next_one_goes_on(
    store: RunStore, settings: LearnerSettings
) -> None:
    """A supervisor in a process of its own is killed: its children notice, and never are there two trainers."""
    code = (
        "import sys, time; from newt import logs; logs.configure('test');"
        "from services.learner.settings import LearnerSettings;"
        "from services.learner.store import RunStore; from services.learner.supervisor import Supervisor;"
        "s = LearnerSettings(); v = Supervisor(RunStore.connect(s.redis_url.get_secret_value()), s); v.start();\n"
        "while len(v.pids(sys.argv[1])) < 2: time.sleep(0.05)\n"
        "print(*v.pids(sys.argv[1]).values(), flush=True); time.sleep(600)"
    )
    run_id = _submit(store, settings)
    environment = {**os.environ, **settings.environment()}
    with subprocess.Popen([sys.executable, "-c", code, run_id], env=environment, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        pids = [int(pid) for pid in first.stdout.readline().split()]
        wait_until(lambda: _waits(store, run_id), "waiting is told")
        first.kill()
    successor = Supervisor(store, settings)
    successor.start()
    try:
        wait_until(lambda: not any(_alive(pid) for pid in pids), "the end of the orphans")
        wait_until(lambda: store.get(run_id).attempt == 2 and _waits(store, run_id), "the next attempt")
    finally:
        successor.stop()
    assert store.get(run_id).state.active  # a stopped learner does not end its runs
    store.cancel(run_id)
