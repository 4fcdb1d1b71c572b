"""Redis is away when the learner starts, or when an evaluation or a collection ends: nothing stays under way."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from learner_stack import LearnerStack, processes_of, wait_until
from tiny_agents import write_agent

from newt.local import redis_server
from newt.runs.demos import DemoCollection, ScriptedDemosRequest
from newt.runs.evaluations import CheckpointEvaluationRequest
from services.learner.demo_jobs import DemoJobs
from services.learner.demo_sets import DemoSets
from services.learner.dependencies import Dependencies
from services.learner.jobs import EvaluationJobs
from services.learner.library import CheckpointLibrary
from services.learner.settings import LearnerSettings
from services.learner.store import RunStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

REACHER = "mujoco-reacher"


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LearnerStack]:
    """A stack without a planner: what evaluates waits."""
    stack = LearnerStack(tmp_path_factory.mktemp("idle"), ("sim", "replay"), {"DEPENDENCY_TIMEOUT_S": 3600})
    try:
        write_agent(stack.home / "free", [REACHER])
        reply = stack.http.put("/checkpoints/free", content=(stack.home / "free").read_bytes())
        assert reply.status_code == 201, reply.text
        wait_until(lambda: set(stack.http.get("/readyz").json()["missing"]) == {"planner"}, "the others are there")
        yield stack
    finally:
        stack.stop()


@pytest.fixture
def records(idle: LearnerStack) -> RunStore:
    return RunStore.connect(idle.redis.url)


def evaluate(stack: LearnerStack) -> str:
    reply = stack.http.post("/evaluations", json={"checkpoint": "imported/free", "episodes": 2})
    assert reply.status_code == 202, reply.text
    return str(reply.json()["id"])


def collecting(name: str) -> DemoCollection:
    """What a learner that died has left."""
    request = ScriptedDemosRequest(name=name, tasks=[REACHER], episodes=1000)
    created = datetime.now(UTC)
    return DemoCollection(
        name=name, state="collecting", source="scripted", request=request, tasks=[REACHER], created_at=created
    )


def collection(stack: LearnerStack, name: str) -> dict[str, Any]:
    return dict(stack.get(f"/demos/{name}")["collection"])


def said(stack: LearnerStack, event: str) -> int:
    return (stack.home / "learner.log").read_text().count(f'"event": "{event}"')


def test_a_learner_that_starts_before_redis_sees_to_what_was_left(idle: LearnerStack, records: RunStore) -> None:
    job_id = evaluate(idle)
    records.put_demo_collection(collecting("left"))
    idle.kill("learner")
    idle.redis.stop()
    idle.kill("replay")
    idle.start("learner")
    wait_until(lambda: said(idle, "not_recovered_yet") == 2, "both are tried")
    idle.redis = redis_server.start(idle.redis.directory, idle.redis.port)
    wait_until(lambda: records.job(job_id).attempt == 2, "the evaluation is started again")

    def left() -> DemoCollection:
        found = records.demo_collection("left")
        assert found is not None
        return found

    wait_until(lambda: left().state == "failed", "the collection is ended")
    assert "the learner was restarted" in (left().error or "")
    assert left().unfinished  # its remains cannot be removed yet
    idle.start("replay")
    wait_until(lambda: not left().unfinished, "its remains are removed")
    assert idle.http.delete("/demos/left").status_code == 200
    assert idle.http.delete(f"/evaluations/{job_id}").status_code == 204


def test_ends_are_recorded_when_redis_is_back(idle: LearnerStack) -> None:
    job_id = evaluate(idle)
    request = {"name": "hurt", "tasks": [REACHER], "episodes": 1000}
    wait_until(lambda: idle.http.post("/demos", json=request).status_code == 202, "the collection is begun")
    before = said(idle, "retrying")
    idle.redis.stop()
    for process in (*processes_of(job_id, "evaluator").values(), *processes_of("hurt", "demo_worker").values()):
        os.kill(process, signal.SIGKILL)
    wait_until(lambda: said(idle, "retrying") == before + 2, "both ends are noticed")
    idle.redis = redis_server.start(idle.redis.directory, idle.redis.port)
    wait_until(lambda: idle.get(f"/evaluations/{job_id}")["state"] == "failed", "the evaluation's end is recorded")
    assert "SIGKILL" in idle.get(f"/evaluations/{job_id}")["error"]
    wait_until(lambda: collection(idle, "hurt")["state"] == "failed", "the collection's end is recorded")
    assert "SIGKILL" in collection(idle, "hurt")["error"]


def test_a_collection_that_nobody_works_on_can_be_cancelled(idle: LearnerStack, records: RunStore) -> None:
    """Its first record was stored, but the reply was lost."""
    records.put_demo_collection(collecting("orphan"))
    reply = idle.http.post("/demos/orphan/cancel")
    assert (reply.status_code, reply.json()["state"]) == (200, "cancelled"), reply.text


def test_a_late_recovery_leaves_alone_what_was_started_meanwhile(
    idle: LearnerStack, records: RunStore, tmp_path: Path
) -> None:
    address = f"127.0.0.1:{idle.ports['sim']}"
    settings = LearnerSettings(
        redis_url=idle.redis.url, data_dir=tmp_path, replay=idle.replay_address, sims={"mujoco": address}
    )
    library = CheckpointLibrary(idle.home / "data")
    jobs = EvaluationJobs(records, settings, library)
    demo_jobs = DemoJobs(
        records, settings, DemoSets(settings.replay, records), Dependencies(records, settings), lambda model: None
    )
    try:
        job = jobs.start(CheckpointEvaluationRequest(checkpoint="imported/free"))
        demo_jobs.start_scripted(ScriptedDemosRequest(name="mine", tasks=[REACHER], episodes=1000))
        jobs.recover()
        demo_jobs.recover()
        log = tmp_path / "demos" / "mine.log"
        wait_until(lambda: "process_started" in log.read_text(), "the collection goes on")
        assert records.job(job.id).attempt == 1
        found = demo_jobs.cancel("mine")
        assert (found.state, found.error) == ("cancelled", None)
        jobs.delete(job.id)
    finally:
        jobs.stop()
        demo_jobs.stop()
