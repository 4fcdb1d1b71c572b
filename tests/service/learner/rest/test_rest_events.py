"""Event streams: what happens is told as it happens, to a bounded number of clients; meanwhile nobody asks Redis."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import redis
from api_server import Api

from newt.cli import watch
from newt.cli.rest import Api as CommandLineApi
from newt.errors import UnavailableError
from newt.runs.evaluations import CheckpointEvaluationRequest, EvaluationJob
from newt.runs.record import Run, RunState
from services.learner.records.history import NewEvent
from services.learner.records.progress import TrainerProgress
from services.learner.records.runs import new_id
from services.learner.records.writer import RunWriter
from services.learner.rest import events

RUN = {"tasks": ["mujoco-reacher"]}


def start(api: Api) -> str:
    return str(api.http.post("/runs", json=RUN).json()["id"])


def read(reply: httpx.Response) -> Iterator[dict[str, Any]]:
    """The events of a stream."""
    event: dict[str, Any] = {}
    for line in reply.iter_lines():
        name, _, value = line.partition(": ")
        if name in ("event", "id", "data"):
            event[name] = json.loads(value) if name == "data" else value
        elif not line and event:
            yield event
            event = {}


def test_a_run_tells_what_happens_and_ends(api: Api) -> None:
    run_id, records = start(api), api.learner.records
    seen: list[dict[str, Any]] = []
    delays: list[float] = []
    with api.http.stream("GET", f"/runs/{run_id}/events") as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        for event in read(reply):
            seen.append(event)
            if event["event"] == "progress" and event["data"]["state"] == "queued" and len(seen) == 2:
                records.history.add_event(run_id, NewEvent("warning", "look"))
                told = time.monotonic()
            elif event["event"] == "warning":
                delays.append(time.monotonic() - told)
                attempt = records.runs.begin(run_id)
                assert attempt == 1
                writer = RunWriter(records, run_id, attempt)
                writer.progress("trainer", TrainerProgress(updates=7))
            elif event["event"] == "progress" and event["data"]["updates"] == 7:
                api.http.post(f"/runs/{run_id}/cancel")
    assert next(event["data"]["message"] for event in seen if event["event"] == "state") == "queued"
    assert seen[-1]["event"] == "progress"
    assert seen[-1]["data"]["state"] == "cancelled"
    assert max(delays) < 3  # not at the next heartbeat
    ids = [event["id"] for event in seen if "id" in event]
    assert ids == sorted(ids)
    # Whoever was cut off goes on behind what it has seen.
    with api.http.stream("GET", f"/runs/{run_id}/events", headers={"Last-Event-ID": ids[1]}) as reply:
        assert [event["id"] for event in read(reply) if "id" in event] == ids[2:]


def test_a_long_history_comes_whole(api: Api) -> None:
    run_id, records = start(api), api.learner.records
    for number in range(1500):  # more than one look shows
        records.history.add_event(run_id, NewEvent("warning", str(number)))
    api.http.post(f"/runs/{run_id}/cancel")
    with api.http.stream("GET", f"/runs/{run_id}/events") as reply:
        messages = [event["data"]["message"] for event in read(reply) if event["event"] == "warning"]
    assert messages == [str(number) for number in range(1500)]


def test_a_deleted_run_ends_its_streams(api: Api) -> None:
    run_id = start(api)
    with api.http.stream("GET", f"/runs/{run_id}/events") as reply:
        kinds = []
        for event in read(reply):
            kinds.append(event["event"])
            if kinds[-1] == "progress":
                api.learner.records.runs.delete(run_id)
    assert kinds[-1] == "deleted"
    assert api.http.get(f"/runs/{run_id}/events").status_code == 404


def test_an_evaluation_tells_its_progress(api: Api) -> None:
    records = api.learner.records.evaluations
    job = EvaluationJob(
        id="e1",
        state="running",
        request=CheckpointEvaluationRequest(checkpoint="imported/x"),
        checkpoint_sha256="0",
        created_at=datetime.now(UTC),
    )
    records.put(job)
    shown = []
    with api.http.stream("GET", "/evaluations/e1/events") as reply:
        for event in read(reply):
            shown.append((event["data"]["progress"], event["data"]["state"]))
            if shown[-1] == (0.0, "running"):
                records.replace(job.model_copy(update={"progress": 0.5}))
            elif shown[-1] == (0.5, "running"):
                records.replace(job.model_copy(update={"progress": 1.0, "state": "succeeded"}))
    assert shown == [(0.0, "running"), (0.5, "running"), (1.0, "succeeded")]
    assert api.http.get("/evaluations/nobody/events").status_code == 404
    assert api.http.get("/demos/nobody/events").status_code == 404


def test_clients_that_wait_cost_nothing_and_are_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id, clients = start(api), 30
    monkeypatch.setattr(events, "MAX_CLIENTS", clients)
    client = redis.Redis.from_url(api.learner.redis_url)

    def commands() -> int:
        return sum(int(stats["calls"]) for name, stats in client.info("commandstats").items() if "hgetall" in name)

    with ExitStack() as stack:
        http = stack.enter_context(httpx.Client(base_url=api.http.base_url, limits=httpx.Limits(), timeout=20))
        streams = [stack.enter_context(http.stream("GET", f"/runs/{run_id}/events")) for _ in range(clients)]
        readers = [read(stream) for stream in streams]
        for reader in readers:
            assert [next(reader)["event"] for _ in range(2)] == ["state", "progress"]
        refused = api.http.get(f"/runs/{run_id}/events")
        assert (refused.status_code, "which is the limit" in refused.text) == (429, True)
        time.sleep(1)
        before = commands()
        time.sleep(2)
        assert commands() - before <= 2
        told = threading.Thread(target=api.learner.records.history.add_event, args=(run_id, NewEvent("warning", "all")))
        told.start()
        assert [next(reader)["event"] for reader in readers] == ["warning"] * clients
        told.join()
    deadline = time.monotonic() + 10
    while api.http.post(f"/runs/{run_id}/cancel").status_code == 200:
        pass
    while api.http.get(f"/runs/{run_id}/events").status_code == 429:  # places come free when clients leave
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert api.learner.records.runs.get(run_id).state is RunState.CANCELLED


def test_ids_of_new_runs_can_be_named(api: Api) -> None:
    for name in ("--", "a" * 64, "-x", ". _"):
        run_id = new_id(api.learner.records.runs.get(start(api)).spec.model_copy(update={"name": name}))
        assert api.http.post("/evaluations", json={"checkpoint": run_id}).status_code == 404


def test_the_command_line_follows_over_a_restart_and_asks_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id, records = start(api), api.learner.records
    asked: list[str] = []
    client = CommandLineApi(str(api.http.base_url))
    get, lines = client.get, client.lines

    def counted(path: str, **params: Any) -> Any:
        asked.append(path)
        return get(path, **params)

    cuts = iter([True, False])

    def cut(path: str) -> Iterator[str]:
        for number, line in enumerate(lines(path)):
            if number > 3 and next(cuts, False):
                raise UnavailableError("cut off")
            yield line

    monkeypatch.setattr(client, "get", counted)
    monkeypatch.setattr(client, "lines", cut)
    seen: list[int] = []

    def show(run: Run) -> None:
        seen.append(run.progress.updates)
        if len(seen) == 3:
            attempt = records.runs.begin(run_id)
            assert attempt is not None
            RunWriter(records, run_id, attempt).progress("trainer", TrainerProgress(updates=7))
        elif seen[-1] == 7 and seen.count(7) == 1:
            records.runs.cancel(run_id)

    run = watch._follow(client, run_id, show)
    assert run.state is RunState.CANCELLED
    assert 7 in seen
    assert len(asked) <= 3  # at first, after the cut, at the end
