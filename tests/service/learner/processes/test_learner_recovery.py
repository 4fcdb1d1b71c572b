"""Redis is away when the learner starts, or when an evaluation or a collection ends: nothing stays under way."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from learner_stack import LearnerStack, processes_of, wait_until
from tiny_agents import write_agent
from typer.testing import CliRunner

from newt.cli.main import app
from newt.local import redis_server
from newt.runs.demos import DemoCollection, ScriptedDemosRequest
from newt.runs.spec import RunSpec
from services.learner.records import keys
from services.learner.records.store import Records

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
def records(idle: LearnerStack) -> Records:
    return Records.connect(idle.redis.url)


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


def test_a_learner_that_starts_before_redis_sees_to_what_was_left(idle: LearnerStack, records: Records) -> None:
    job_id = evaluate(idle)
    records.demos.put(collecting("left"))
    idle.kill("learner")
    idle.redis.stop()
    idle.kill("replay")
    idle.start("learner")
    wait_until(lambda: said(idle, "keeper_waits") >= 3, "all keepers wait")
    idle.redis = redis_server.start(idle.redis.directory, idle.redis.port)
    wait_until(lambda: records.evaluations.get(job_id).attempt == 2, "the evaluation is started again")

    def left() -> DemoCollection:
        found = records.demos.find("left")
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
    before = said(idle, "keeper_waits")
    idle.redis.stop()
    for process in (*processes_of(job_id, "evaluator").values(), *processes_of("hurt", "worker").values()):
        os.kill(process, signal.SIGKILL)
    wait_until(lambda: said(idle, "keeper_waits") >= before + 2, "both ends are noticed")
    idle.redis = redis_server.start(idle.redis.directory, idle.redis.port)
    wait_until(lambda: idle.get(f"/evaluations/{job_id}")["state"] == "failed", "the evaluation's end is recorded")
    assert "SIGKILL" in idle.get(f"/evaluations/{job_id}")["error"]
    wait_until(lambda: collection(idle, "hurt")["state"] == "failed", "the collection's end is recorded")
    assert "SIGKILL" in collection(idle, "hurt")["error"]


def test_a_collection_that_nobody_works_on_can_be_cancelled(idle: LearnerStack, records: Records) -> None:
    """Its first record was stored, but the reply was lost."""
    records.demos.put(collecting("orphan"))
    reply = idle.http.post("/demos/orphan/cancel")
    assert (reply.status_code, reply.json()["state"]) == (200, "cancelled"), reply.text


def test_broken_records_are_named_and_deleted_through_the_api(idle: LearnerStack, records: Records) -> None:
    """One of each kind; the run's settings are gone, the others are no JSON."""
    spec = RunSpec.model_validate({"tasks": [REACHER], "preset": "laptop"})
    for run_id in ("torn", "whole"):
        records.runs.create(run_id, spec, idle.home)
        records.runs.cancel(run_id)
    records.client.hset(keys.run("torn"), "spec", '{"tasks": 5}')
    records.client.hset(keys.EVALUATIONS, "torn", "{")
    records.client.hset(keys.DEMOS, "torn", "[]")
    places = {"runs": "runs", "evaluations": "evaluations", "demos": "demo_sets"}
    for place, name in places.items():
        listing = idle.get(f"/{place}")
        (broken,) = listing["broken"]
        assert broken["id"] == "torn"
        assert f"DELETE /{place}/torn" in broken["error"]
        assert "torn" not in [found.get("id") for found in listing[name]]
        words = ["demos", "list"] if place == "demos" else [place]
        shown = CliRunner().invoke(app, [*words, "--url", str(idle.http.base_url)])
        assert f"{broken['kind']} torn: " in shown.output
    assert "whole" in [run["id"] for run in idle.get("/runs")["runs"]]
    told = idle.http.get("/readyz").json()
    assert {(broken["kind"], broken["id"]) for broken in told["broken"]} == {
        ("run", "torn"), ("evaluation", "torn"), ("demonstrations", "torn")
    }  # fmt: skip
    assert 'newt_learner_broken_records{kind="run"} 1.0' in idle.http.get("/metrics").text
    for place in places:
        for call, path in ((idle.http.get, f"/{place}/torn"), (idle.http.post, f"/{place}/torn/cancel")):
            reply = call(path)
            assert reply.status_code in (404, 405, 409), (path, reply.text)
        reply = idle.http.delete(f"/{place}/torn")
        assert reply.status_code in (200, 204), (place, reply.text)
        assert idle.get(f"/{place}")["broken"] == []
    assert idle.http.get("/readyz").json()["broken"] == []
    assert idle.http.delete("/runs/whole").status_code == 204
