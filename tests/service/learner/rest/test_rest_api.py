"""The REST API of a learner that has Redis, but no simulators, planner or replay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from learner_stack import LearnerStack, processes_of, wait_until

RUN = {"tasks": ["mujoco-reacher"], "name": "test"}


def test_health_and_what_is_missing(alone: LearnerStack) -> None:
    assert alone.get("/healthz") == {"status": "ok"}
    reply = alone.http.get("/readyz")
    assert reply.status_code == 503
    assert set(reply.json()["missing"]) == {"replay", "planner", "sim-mujoco"}
    assert "newt_learner_runs" in alone.http.get("/metrics").text


def test_openapi_describes_every_field(alone: LearnerStack) -> None:
    document = alone.get("/openapi.json")
    assert {"/runs", "/runs/{run_id}", "/runs/{run_id}/events", "/tasks"} <= set(document["paths"])
    for name in ("RunSpec", "ScheduleSpec", "ReplaySpec", "DemosSpec"):
        for field, schema in document["components"]["schemas"][name]["properties"].items():
            assert schema.get("description") or "$ref" in schema, f"{name}.{field}"


@pytest.mark.parametrize(
    ("request_body", "field"),
    [
        ({"tasks": ["nonsense"]}, "tasks"),
        ({**RUN, "plan": {"num_samples": 0}}, "plan.num_samples"),
        ({**RUN, "schedule": {"total_env_steps": "many"}}, "schedule.total_env_steps"),
        ({"tasks": ["mujoco-ant"], "algorithm": {"pretraining": True}}, "algorithm.pretraining"),  # it has no expert
        ({**RUN, "batch": 1}, "batch"),
        ({"tasks": ["walker-walk"]}, "tasks"),  # its domain has no simulator here
        ({**RUN, "resources": {"processes": 2, "nodes": 2}}, "resources.nodes"),  # none could join
    ],
)
def test_bad_requests_name_the_field(alone: LearnerStack, request_body: dict[str, Any], field: str) -> None:
    reply = alone.http.post("/runs", json=request_body)
    assert reply.status_code == 422
    assert [error["field"] for error in reply.json()["fields"]] == [field]
    assert field in reply.json()["message"]


def test_every_reply_has_a_request_id(alone: LearnerStack) -> None:
    given = alone.http.get("/healthz", headers={"X-Request-Id": "mine:1"})
    assert given.headers["x-request-id"] == "mine:1"
    made = {alone.http.get("/runs/nobody").headers["x-request-id"] for _ in range(2)}
    assert len(made) == 2
    assert all(len(name) == 16 for name in made)


def test_runs_are_found_by_their_labels(alone: LearnerStack) -> None:
    labels = {"experiment": "mini/x", "variant": "a"}
    marked = [alone.submit({**RUN, "labels": labels}), alone.submit({**RUN, "labels": {**labels, "variant": "b"}})]

    def found(*terms: str) -> list[str]:
        reply = alone.http.get("/runs", params=[("label", term) for term in terms])
        return [run["id"] for run in reply.raise_for_status().json()["runs"]]

    assert found("experiment=mini/x") == marked
    assert found("experiment=mini/x", "variant=b") == marked[1:]
    assert found("experiment=mini/y") == []
    reply = alone.http.get("/runs", params={"label": "experiment"})
    assert reply.status_code == 422
    assert "NAME=VALUE" in reply.json()["message"]
    for run_id in marked:
        alone.http.post(f"/runs/{run_id}/cancel").raise_for_status()


@pytest.mark.parametrize("bad", ["", "two words", "x" * 65])
def test_a_bad_request_id_is_refused(alone: LearnerStack, bad: str) -> None:
    before = alone.get("/runs")["runs"]
    reply = alone.http.post("/runs", json=RUN, headers={"X-Request-Id": bad})
    assert reply.status_code == 422
    assert [error["field"] for error in reply.json()["fields"]] == ["X-Request-Id"]
    assert "expected 1 to 64" in reply.json()["message"]
    assert alone.get("/runs")["runs"] == before


def test_a_body_that_is_no_json(alone: LearnerStack) -> None:
    reply = alone.http.post("/runs", content=b"{", headers={"content-type": "application/json"})
    assert reply.status_code == 422
    assert reply.json()["error"] == "InvalidInput"


def test_unknown_things_are_404(alone: LearnerStack) -> None:
    for path in ("/runs/x", "/runs/x/metrics", "/runs/x/events", "/runs/x/results", "/runs/x/checkpoints", "/nothing"):
        reply = alone.http.get(path)
        assert reply.status_code == 404, path
        assert reply.json()["message"]


def test_tasks_tell_where_they_can_run(alone: LearnerStack) -> None:
    tasks = {task["name"]: task for task in alone.get("/tasks")["tasks"]}
    assert len(tasks) >= 200
    states = {name: tasks[name]["simulator"] for name in ("mujoco-reacher", "walker-walk", "rd-push-red")}
    assert states == {
        "mujoco-reacher": "unreachable",
        "walker-walk": "not configured",
        "rd-push-red": "not configured",
    }


def test_demo_sets_need_replay(alone: LearnerStack) -> None:
    reply = alone.http.get("/demos")
    assert reply.status_code == 503
    assert "replay" in reply.json()["message"]


def test_a_run_without_its_simulator_fails_and_says_so(alone: LearnerStack) -> None:
    run_id = alone.submit(RUN)
    waiting = alone.follow(run_id, lambda run: run["progress"]["waiting_on"] is not None)
    told = waiting["progress"]["waiting_on"]
    assert waiting["state"] == "failed" or "simulator of mujoco at 127.0.0.1:9" in told
    run = alone.follow(run_id, lambda run: False)
    assert run["state"] == "failed"
    assert "simulator of mujoco at 127.0.0.1:9 did not answer for 2 s" in run["error"]
    assert "docker compose --profile sim-mujoco up -d" in run["error"]
    events = alone.http.get(f"/runs/{run_id}/events").text  # the stream ends, because the run has ended
    assert "event: state" in events
    assert "event: progress" in events
    assert alone.http.post(f"/runs/{run_id}/cancel").status_code == 409
    assert alone.http.post(f"/runs/{run_id}/evaluate", json={}).status_code == 404  # no checkpoint
    assert alone.http.post(f"/runs/{run_id}/evaluate", json={"episodes": 0}).status_code == 422
    assert alone.get(f"/runs/{run_id}/metrics") == {"rows": []}


def test_runs_wait_in_line_and_can_be_cancelled_there(alone: LearnerStack) -> None:
    first, second = alone.submit(RUN), alone.submit(RUN)
    assert alone.get(f"/runs/{second}")["state"] == "queued"
    reply = alone.http.post(f"/runs/{second}/cancel")
    assert (reply.status_code, reply.json()["state"]) == (200, "cancelled")
    assert alone.http.post(f"/runs/{first}/cancel").json()["state"] == "cancelled"
    cancelled = [run["id"] for run in alone.get("/runs", state="cancelled")["runs"]]
    assert {first, second} <= set(cancelled)


def test_episodes_stay_until_the_processes_of_a_cancelled_run_have_ended(alone: LearnerStack) -> None:
    run_id = alone.submit(RUN)
    roles = ("trainer", "collector")
    wait_until(lambda: all(processes_of(run_id, role) for role in roles), "the processes start")
    pids = [processes_of(run_id, role)[0] for role in roles]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)  # they take their time
    try:
        alone.http.post(f"/runs/{run_id}/cancel")
        refused = alone.http.delete(f"/runs/{run_id}/episodes")
        assert (refused.status_code, "under way or ending" in refused.text) == (409, True)
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):  # the learner may have lost patience
                os.kill(pid, signal.SIGCONT)

    def asks_replay() -> bool:
        reply = alone.http.delete(f"/runs/{run_id}/episodes")
        return reply.status_code == 503 and "replay" in reply.text

    wait_until(asks_replay, "the processes have ended")


@pytest.mark.parametrize(("taken", "message"), [("folder", "another learner works in"), ("port", "NEWT_LEARNER_PORT")])
def test_a_second_learner_refuses(alone: LearnerStack, tmp_path: Path, taken: str, message: str) -> None:
    environment = {
        "NEWT_LEARNER_DATA_DIR": str(alone.home / "data" if taken == "folder" else tmp_path),
        "NEWT_LEARNER_PORT": str(alone.ports["learner"] if taken == "port" else 0),
    }
    done = subprocess.run(
        [sys.executable, "-m", "services.learner"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert message in done.stderr
