"""Restarts, full queues, callers that go away, shutdown, health."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from planner_rig import (
    PLAN_JSON,
    Hub,
    Request,
    in_threads,
    running_planner,
    stop,
    tiny_model,
    until,
    version_served,
    weights_to_bytes,
)

from newt.client.planner import Plan, PlannerClient
from newt.client.weights import publish
from newt.errors import ExhaustedError, InvalidInputError, NewtError, UnavailableError
from newt.wire.channels import connect
from newt.wire.tensors import encode
from newt.wire.v1 import planner_pb2, planner_pb2_grpc
from services.planner.service import SERVICE, PlannerService

ROOT = Path(__file__).parents[3]


def put(hub: Hub, version: int) -> None:
    publish(hub.address, "run", version, weights_to_bytes(tiny_model(version)), PLAN_JSON, timeout_s=10)


def ask(client: PlannerClient, rows: int = 2, **options: object) -> Plan:
    return client.plan("run", *Request.draw(rows), explore=False, **{"timeout_s": 20, **options})


def raw(rows: int = 2) -> planner_pb2.PlanRequest:
    request = Request.draw(rows)
    return planner_pb2.PlanRequest(
        model_id="run", obs=encode(request.obs), task=encode(request.task), seed=encode(request.seed)
    )


def serving(target: str, service: str = SERVICE) -> bool:
    with connect(target) as channel:
        reply = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=service), timeout=5, wait_for_ready=True
        )
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


@contextlib.contextmanager
def waiting_planner(hub: Hub, **settings: object) -> Iterator[tuple[PlannerService, PlannerClient]]:
    """A planner whose requests wait in the queue for ever, unless 100 rows come together."""
    put(hub, 1)
    settings = {"max_wait_ms": 1e9, "max_rows": 100, "max_queued_rows": 100, **settings}
    with running_planner(hub, **settings) as service, PlannerClient(service.server.address) as client:
        until(lambda: version_served(client, "run") == 1)
        yield service, client


def queued(service: PlannerService) -> int:
    return service._queue.queued_rows


def test_the_planner_outlives_the_hub(hub: Hub, planner: PlannerService, client: PlannerClient) -> None:
    put(hub, 1)
    ask(client)
    hub.kill()
    assert ask(client).weights_version == 1
    until(lambda: not planner._subscriber.connected)
    assert serving(planner.server.address)
    hub.start()
    put(hub, 2)
    assert ask(client, min_weights_version=2).weights_version == 2
    # The hub is the truth: after a restart it may offer an older checkpoint than the planner has.
    hub.kill()
    hub.start()
    put(hub, 1)
    until(lambda: version_served(client, "run") == 1)


def test_a_retirement_that_a_planner_missed_reaches_it_later(
    hub: Hub, planner: PlannerService, client: PlannerClient
) -> None:
    for model_id in ("run", "ended"):
        publish(hub.address, model_id, 1, weights_to_bytes(tiny_model(1)), PLAN_JSON, timeout_s=10)
    until(lambda: {model.model_id for model in client.models(timeout_s=5)} == {"run", "ended"})
    hub.kill()
    hub.expected = ("run",)  # it restarts with nothing, and "ended" was retired meanwhile
    hub.start()
    until(lambda: {model.model_id for model in client.models(timeout_s=5)} == {"run"})
    assert ask(client).weights_version == 1  # it serves on until its trainer publishes again
    hub.hub.retire("run")
    until(lambda: client.models(timeout_s=5) == [])


def test_a_planner_that_starts_before_the_hub_finds_it() -> None:
    hub = Hub().start()
    hub.stop()
    with running_planner(hub) as service, PlannerClient(service.server.address) as client:
        assert not serving(service.server.address)
        assert serving(service.server.address, "liveness")
        hub.start()
        until(lambda: serving(service.server.address))
        put(hub, 1)
        assert ask(client).weights_version == 1
    hub.stop()


def test_a_caller_does_not_notice_that_the_planner_was_restarted(hub: Hub) -> None:
    put(hub, 1)
    with running_planner(hub) as service:
        port = service.server.port
        client = PlannerClient(service.server.address)
        before = ask(client)
    restarted: list[PlannerService] = []

    def restart() -> None:
        time.sleep(0.3)
        restarted.append(stack.enter_context(running_planner(hub, port=port)))

    with contextlib.ExitStack() as stack:
        after, _ = in_threads(lambda: ask(client, prev_mean=before.next_mean * 0), restart)
    np.testing.assert_array_equal(after.action, before.action)
    client.close()


def test_a_full_queue_refuses_and_keeps_what_waits(hub: Hub) -> None:
    with waiting_planner(hub) as (service, client):
        waiting: list[Plan] = []
        thread = threading.Thread(target=lambda: waiting.append(ask(client, 60)), daemon=True)
        thread.start()
        until(lambda: queued(service) == 60)
        with pytest.raises(ExhaustedError, match="max_queued_rows: 60 of 100"):
            ask(client, 41)
        with pytest.raises(InvalidInputError, match="got 101 rows, expected 1 to 100"):
            ask(client, 101)
        assert ask(client, 40).batch_rows == 100
        thread.join(10)
        assert waiting[0].batch_rows == 100


def test_a_deadline_that_passes_frees_the_queue(hub: Hub) -> None:
    with waiting_planner(hub) as (service, client):
        with pytest.raises(UnavailableError, match=r"did not answer within 0\.3 s"):
            ask(client, 90, timeout_s=0.3)
        until(lambda: queued(service) == 0)
        assert ask(client, 100).batch_rows == 100


def test_a_cancelled_call_frees_the_queue(hub: Hub) -> None:
    with waiting_planner(hub) as (service, _), connect(service.server.address) as channel:
        call = planner_pb2_grpc.PlannerServiceStub(channel).Plan.future(raw(90), timeout=30)
        until(lambda: queued(service) == 90)
        call.cancel()
        until(lambda: queued(service) == 0)


def test_shutdown_fails_what_waits_at_once(hub: Hub) -> None:
    with waiting_planner(hub) as (service, _), connect(service.server.address) as channel:
        calls = [planner_pb2_grpc.PlannerServiceStub(channel).Plan.future(raw(), timeout=60) for _ in range(3)]
        until(lambda: queued(service) == 6)
        stop(service)
        for call in calls:
            assert call.exception(timeout=10).code() is grpc.StatusCode.UNAVAILABLE


def test_a_request_without_a_deadline_is_planned_too(hub: Hub, client: PlannerClient, planner: PlannerService) -> None:
    put(hub, 1)
    ask(client)
    with grpc.insecure_channel(planner.server.address) as channel:  # Ours refuse to open such a call.
        reply = planner_pb2_grpc.PlannerServiceStub(channel).Plan(raw())
    assert reply.weights_version == 1


def test_the_runner_survives_a_batch_that_fails(
    hub: Hub, client: PlannerClient, planner: PlannerService, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(hub, 1)
    ask(client)
    agents_planner = planner._store.get("run").planner
    with monkeypatch.context() as patch:
        # Stands for what no test can cause on purpose: the device runs out of memory.
        patch.setattr(type(agents_planner), "plan", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("secret")))
        with pytest.raises(NewtError, match="INTERNAL: internal error") as caught:
            ask(client)
    assert "secret" not in str(caught.value)
    assert ask(client).weights_version == 1


def test_the_service_starts_as_a_process_and_ends_on_a_signal(hub: Hub) -> None:
    put(hub, 1)
    with free_port() as port:
        env = {
            **os.environ,
            "NEWT_PLANNER_HUB": hub.address,
            "NEWT_PLANNER_PORT": str(port),
            "NEWT_PLANNER_DEVICE": "cpu",
            "NEWT_PLANNER_TORCH_THREADS": "1",
        }
    process = subprocess.Popen(
        [sys.executable, "-m", "services.planner"], env=env, cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        with PlannerClient(f"127.0.0.1:{port}") as client:
            assert ask(client, timeout_s=60).weights_version == 1
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert '"event": "server_stopped"' in errors


def test_a_device_that_does_not_exist_is_named(hub: Hub) -> None:
    for device in ("cuda:99", "abacus", "meta"):
        with pytest.raises(ValueError, match=f"NEWT_PLANNER_DEVICE={device}"), running_planner(hub, device=device):
            pass


@contextlib.contextmanager
def free_port() -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield probe.getsockname()[1]
