"""One request id, and one trace, from the REST API through every service and process that works for it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from span_receiver import Received, SpanReceiver, receiving

from newt.local import control
from newt.local.control import StackState
from newt.local.stack import StackConfig

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
RUN = {
    "tasks": ["mujoco-reacher"],
    "preset": "laptop",
    "schedule": {
        "total_env_steps": 100_000,
        "seed_env_steps": 100,
        "updates_per_env_step": 0.05,
        "eval_every_env_steps": 0,
        "publish_every_s": 1,
    },
    "demos": {"scripted_episodes": 0},
    "evaluation": {"episodes_per_task": 0},
    "replay": {"batch_size": 16},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traced")


@pytest.fixture(scope="module")
def receiver() -> Iterator[SpanReceiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def stack(home: Path, receiver: SpanReceiver) -> Iterator[StackState]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        state = control.up(StackConfig(home, ("mujoco",), fixed_ports=False, sim_workers=1))
    yield state
    control.down(home)


def lines(path: Path, request_id: str) -> list[dict[str, Any]]:
    """The lines of a log that belong to a request."""
    found = [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]
    return [line for line in found if line.get("request_id") == request_id]


def first_calls(path: Path, request_id: str) -> list[str]:
    return [line["method"] for line in lines(path, request_id) if line["event"] == "first_call"]


def check_spans(found: list[Received], request_id: str, run_id: str, caller: str) -> None:
    """Every service's first calls are in the caller's trace, below the processes that REST's answer led to."""
    spans = {(span.service, span.name): span for span in found}
    assert len(spans) == len(found), "a span for every method, not for every step"
    post = spans["learner", "POST /runs"]
    assert (post.parent_id, post.attributes["http.response.status_code"]) == (caller, 201)
    assert post.attributes["newt.request_id"] == request_id
    starts = {name: spans[name, f"{name} starts"] for name in ("collector", "trainer")}
    assert {span.parent_id for span in starts.values()} == {post.span_id}
    for service, method, by in (
        ("sim", "SimService/Open", "collector"),
        ("sim", "SimService/StepStream", "collector"),
        ("planner", "PlannerService/Plan", "collector"),
        ("replay", "ReplayService/Append", "collector"),
        ("replay", "ReplayService/Sample", "trainer"),
        ("learner", "WeightsService/Publish", "trainer"),
    ):
        span = spans[service, f"newt.v1.{method}"]
        assert span.parent_id == starts[by].span_id, (method, span)
        assert span.attributes["newt.run"] == run_id
        assert span.attributes["newt.request_id"] == request_id
        assert not span.failed or method.endswith("Plan"), span  # a planner may have no weights yet


def test_a_request_is_followed_through_all_logs_and_spans(
    stack: StackState, home: Path, receiver: SpanReceiver
) -> None:
    trace_id, caller = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    wanted = {
        "sim-mujoco": {"newt.v1.SimService/Open", "newt.v1.SimService/StepStream"},
        "replay": {
            "newt.v1.ReplayService/CreateBuffer",
            "newt.v1.ReplayService/Append",
            "newt.v1.ReplayService/Sample",
        },
        "planner": {"newt.v1.PlannerService/Plan"},
        "learner": {"newt.v1.WeightsService/Publish"},
    }
    request_id = "observed-7f.3"
    with httpx.Client(base_url=stack.rest_url, timeout=20) as http:
        reply = http.post(
            "/runs", json=RUN, headers={"X-Request-Id": request_id, "traceparent": f"00-{trace_id}-{caller}-01"}
        )
        assert reply.status_code == 201, reply.text
        assert reply.headers["x-request-id"] == reply.json()["request_id"] == request_id
        run_id = reply.json()["id"]
        assert reply.json()["traceparent"].startswith(f"00-{trace_id}-")
        deadline = time.monotonic() + 120
        missing = wanted
        while missing:
            run = http.get(f"/runs/{run_id}").json()
            assert time.monotonic() < deadline, (missing, run["progress"])
            assert run["state"] != "failed", run["error"]
            missing = {
                name: calls - set(first_calls(home / "logs" / f"{name}.log", request_id))
                for name, calls in wanted.items()
            }
            missing = {name: calls for name, calls in missing.items() if calls}
            time.sleep(0.5)
        http.post(f"/runs/{run_id}/cancel", headers={"X-Request-Id": "another"})
        while not any(line["event"] == "job_stopped" for line in lines(home / "logs" / "learner.log", request_id)):
            assert time.monotonic() < deadline, "the run does not stop"
            time.sleep(0.2)
    deadline = time.monotonic() + 30

    def ours() -> list[Received]:
        return [span for span in list(receiver.spans) if span.trace_id == trace_id]

    while not {"Plan", "Sample", "StepStream", "Publish"} <= {span.name.rpartition("/")[2] for span in ours()}:
        assert time.monotonic() < deadline, ours()
        time.sleep(0.2)
    check_spans(ours(), request_id, run_id, caller)
    # One line per method, however many steps were taken, and the run beside the request.
    for name in wanted:
        calls = first_calls(home / "logs" / f"{name}.log", request_id)
        assert len(calls) == len(set(calls)), name
        told = lines(home / "logs" / f"{name}.log", request_id)
        assert {line["id" if line["event"] == "change_asked" else "run"] for line in told} == {run_id}, name
    events = [line["event"] for line in lines(home / "logs" / "learner.log", request_id)]
    assert {"run_created", "job_started", "job_stopped"} <= set(events)
    cancelled = lines(home / "logs" / "learner.log", "another")
    assert [line["event"] for line in cancelled] == ["run_cancelled", "change_asked"]
    for process in ("collector", "trainer"):
        path = home / "data" / "runs" / run_id / "logs" / f"{process}.log"
        every = [line for line in path.read_text().splitlines() if line.startswith("{")]
        assert every
        assert len(lines(path, request_id)) == len(every), process
