"""The keeper with real processes and real Redis; their other dependencies are away, so that they only wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes_api import Cluster
from learner_stack import wait_until

from newt.local.redis_server import RedisServer
from newt.runs.record import RunState
from newt.runs.spec import RunSpec
from services.learner.processes.runs import TWO_PROCESSES, RunKeeper
from services.learner.records.runs import new_id
from services.learner.records.store import Records
from services.learner.settings import LearnerSettings

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
def keeper(records: Records, settings: LearnerSettings) -> Iterator[RunKeeper]:
    for run_id, state in records.runs.states().items():
        if not state.finished:
            records.runs.cancel(run_id)
    keeper = RunKeeper(records, settings)
    keeper.start()
    yield keeper
    keeper.stop()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """One with a template of nodes, which the learner finds."""
    cluster = Cluster()
    (tmp_path / "kubeconfig").write_text(cluster.kubeconfig())
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    template = {"spec": {"containers": [{"name": "node", "command": ["node"]}]}}
    cluster.objects["/api/v1/namespaces/newt/podtemplates/node"] = {"template": template}
    yield cluster
    cluster.shutdown()
    cluster.server_close()


def _submit(keeper: RunKeeper, settings: LearnerSettings) -> str:
    run_id = new_id(SPEC)
    keeper._runs.create(run_id, SPEC, settings.folder.run(run_id))
    keeper.wake()
    return run_id


def _waits(records: Records, run_id: str) -> bool:
    waiting_on = records.runs.get(run_id).progress.waiting_on or ""
    return "replay" in waiting_on and "simulator" in waiting_on


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_crashes_are_repaired_until_there_are_too_many(
    records: Records, settings: LearnerSettings, keeper: RunKeeper
) -> None:
    run_id = _submit(keeper, settings)
    wait_until(lambda: set(keeper.pids(run_id)) == set(TWO_PROCESSES), "both processes")
    first = keeper.pids(run_id)
    os.kill(first["trainer"], signal.SIGKILL)
    wait_until(lambda: keeper.pids(run_id)["trainer"] != first["trainer"], "a new trainer")
    second = keeper.pids(run_id)
    assert second["collector"] == first["collector"]
    assert records.runs.get(run_id).progress.restarts == 1
    os.kill(second["trainer"], signal.SIGSEGV)
    wait_until(lambda: records.runs.get(run_id).state is RunState.FAILED, "failed")
    error = records.runs.get(run_id).error or ""
    assert "the trainer was killed by SIGSEGV" in error
    assert "2 crashes in 300 s" in error
    wait_until(lambda: not _alive(second["collector"]), "the end of the collector")


def test_a_cancelled_run_loses_its_processes_and_makes_room(
    records: Records, settings: LearnerSettings, keeper: RunKeeper
) -> None:
    first, second = _submit(keeper, settings), _submit(keeper, settings)
    wait_until(lambda: _waits(records, first), "waiting is told")
    assert records.runs.get(second).state is RunState.QUEUED
    pids = keeper.pids(first)
    records.runs.cancel(first)
    keeper.wake()
    wait_until(lambda: not any(_alive(pid) for pid in pids.values()), "the end of the processes")
    wait_until(lambda: records.runs.get(second).state.active, "the next run")
    assert records.runs.get(first).state is RunState.CANCELLED
    records.runs.cancel(second)


def test_a_run_has_processes_when_its_nodes_run_and_keeps_its_place_until_then(
    records: Records, settings: LearnerSettings, cluster: Cluster
) -> None:
    keeper = RunKeeper(records, settings.model_copy(update={"node_template": "node", "node_queue": "newt"}))
    resources = SPEC.resources.model_copy(update={"processes": 2, "nodes": 2})
    run_id = new_id(SPEC)
    records.runs.create(run_id, SPEC.model_copy(update={"resources": resources}), settings.folder.run(run_id))
    later = _submit(keeper, settings)
    keeper.start()
    try:
        wait_until(lambda: "JobSet" in (records.runs.get(run_id).progress.waiting_on or ""), "waiting is told")
        ((path, found),) = [item for item in cluster.objects.items() if "/jobsets/" in item[0]]
        assert records.runs.get(run_id).state is records.runs.get(later).state is RunState.QUEUED
        found["status"] = {"replicatedJobsStatus": [{"name": "node", "ready": 1}]}
        wait_until(lambda: set(keeper.pids(run_id)) == set(TWO_PROCESSES), "both processes")
        wait_until(lambda: "JobSet" not in (records.runs.get(run_id).progress.waiting_on or ""), "no more waiting")
        # A trainer that died because its nodes did waits for them; the collector goes on.
        found["status"] = {}
        first = keeper.pids(run_id)
        os.kill(first["trainer"], signal.SIGKILL)
        wait_until(lambda: "not all pods" in (records.runs.get(run_id).progress.waiting_on or ""), "waiting is told")
        assert _alive(first["collector"])
        found["status"] = {"replicatedJobsStatus": [{"name": "node", "ready": 1}]}
        wait_until(lambda: keeper.pids(run_id)["trainer"] != first["trainer"], "a new trainer")
        wait_until(lambda: "JobSet" not in (records.runs.get(run_id).progress.waiting_on or ""), "no more waiting")
        records.runs.cancel(run_id)
        keeper.wake()
        wait_until(lambda: path in cluster.removed, "the end of the nodes")
        wait_until(lambda: records.runs.get(later).state.active, "the next run")
    finally:
        records.runs.cancel(later)
        keeper.stop()


def test_a_run_whose_nodes_never_run_fails(records: Records, settings: LearnerSettings, cluster: Cluster) -> None:
    keeper = RunKeeper(records, settings.model_copy(update={"node_template": "node", "max_restarts": 0}))
    resources = SPEC.resources.model_copy(update={"processes": 2, "nodes": 2})
    run_id = new_id(SPEC)
    records.runs.create(run_id, SPEC.model_copy(update={"resources": resources}), settings.folder.run(run_id))
    keeper.start()
    try:
        wait_until(lambda: any("/jobsets/" in path for path in cluster.objects), "a JobSet")
        ((path, found),) = [item for item in cluster.objects.items() if "/jobsets/" in item[0]]
        found["status"] = {"conditions": [{"type": "Failed", "status": "True", "message": "no such image"}]}
        wait_until(lambda: records.runs.get(run_id).state is RunState.FAILED, "failed")
        assert "Failed: no such image" in (records.runs.get(run_id).error or "")
        wait_until(lambda: path in cluster.removed, "the end of the JobSet")
    finally:
        keeper.stop()


def test_processes_end_with_their_keeper_and_the_next_one_goes_on(records: Records, settings: LearnerSettings) -> None:
    """A keeper in a process of its own is killed: its children notice, and never are there two trainers."""
    code = (
        "import sys, time; from newt import logs; logs.configure('test');"
        "from services.learner.settings import LearnerSettings;"
        "from services.learner.records.store import Records; from services.learner.processes.runs import RunKeeper;"
        "s = LearnerSettings(); v = RunKeeper(Records.connect(s.redis_url.get_secret_value()), s); v.start();\n"
        "while len(v.pids(sys.argv[1])) < 2: time.sleep(0.05)\n"
        "print(*v.pids(sys.argv[1]).values(), flush=True); time.sleep(600)"
    )
    run_id = _submit(RunKeeper(records, settings), settings)
    environment = {**os.environ, **settings.environment()}
    with subprocess.Popen([sys.executable, "-c", code, run_id], env=environment, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        pids = [int(pid) for pid in first.stdout.readline().split()]
        wait_until(lambda: _waits(records, run_id), "waiting is told")
        first.kill()
    successor = RunKeeper(records, settings)
    successor.start()
    try:
        wait_until(lambda: not any(_alive(pid) for pid in pids), "the end of the orphans")
        wait_until(lambda: records.runs.get(run_id).attempt == 2 and _waits(records, run_id), "the next attempt")
    finally:
        successor.stop()
    assert records.runs.get(run_id).state.active  # a stopped learner does not end its runs
    records.runs.cancel(run_id)
