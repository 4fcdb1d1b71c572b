"""Who may call what, between real servers and clients with certificates of the project's own script."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from certificate_folders import make_certificates
from grpc_health.v1 import health_pb2, health_pb2_grpc

from newt.client.weights import publish
from newt.errors import ForbiddenError
from newt.wire import callers
from newt.wire.channels import connect
from newt.wire.server import LIVENESS, Server
from newt.wire.v1 import (
    planner_pb2,
    planner_pb2_grpc,
    replay_pb2,
    replay_pb2_grpc,
    sim_pb2,
    sim_pb2_grpc,
    weights_pb2,
    weights_pb2_grpc,
)

SERVICES = {
    "newt.v1.WeightsService": (weights_pb2, weights_pb2_grpc),
    "newt.v1.ReplayService": (replay_pb2, replay_pb2_grpc),
    "newt.v1.PlannerService": (planner_pb2, planner_pb2_grpc),
    "newt.v1.SimService": (sim_pb2, sim_pb2_grpc),
}
COMPONENTS = ("learner", "planner", "replay", "sim", "client")
MAY = {
    ("WeightsService", "Publish"): {"learner"},
    ("WeightsService", "Retire"): {"learner"},
    ("WeightsService", "Subscribe"): {"learner", "planner"},
    ("ReplayService", "Append"): {"learner"},
    ("ReplayService", "Sample"): {"learner"},
    ("ReplayService", "DeleteBuffer"): {"learner"},
    ("PlannerService", "Plan"): {"learner", "client"},
    ("SimService", "Open"): {"learner", "client"},
    ("SimService", "StepStream"): {"learner", "client"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@contextmanager
def tls(folder: Path, **settings: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"NEWT_TLS_DIR": str(folder), **settings}.items():
            patch.setenv(name, value)
        yield


def methods(service: str) -> dict[str, Any]:
    return SERVICES[service][0].DESCRIPTOR.services_by_name[service.rpartition(".")[2]].methods_by_name


@contextmanager
def serving(service: str, folder: Path, **settings: str) -> Iterator[str]:
    """A server of the service, whose every method only says that it was reached; its address."""

    def reached(request: Any, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.OUT_OF_RANGE, "reached")

    with tls(folder, **settings):
        server = Server(service, "127.0.0.1", 0, max_threads=4)
    stubs, name = SERVICES[service][1], service.rpartition(".")[2]
    servicer = getattr(stubs, f"{name}Servicer")()
    for method in methods(service):
        setattr(servicer, method, reached)
    getattr(stubs, f"add_{name}Servicer_to_server")(servicer, server.grpc)
    server.start()
    yield server.address
    server.stop(grace_s=0)


def answer(address: str, folder: Path, service: str, method: str) -> grpc.StatusCode:
    """How a call with the certificate of a folder ends."""
    described = methods(service)[method]
    request = getattr(SERVICES[service][0], described.input_type.name)()
    with tls(folder), connect(address) as channel:
        stub = getattr(SERVICES[service][1], f"{service.rpartition('.')[2]}Stub")(channel)
        try:
            reply = getattr(stub, method)(iter([request]) if described.client_streaming else request, timeout=10)
            if described.server_streaming:
                next(reply)
        except grpc.RpcError as error:
            return error.code()  # type: ignore[attr-defined,no-any-return]
    return grpc.StatusCode.OK


def test_the_table_has_every_method() -> None:
    assert {service: set(table) for service, table in callers.CALLERS.items()} == {
        service: set(methods(service)) for service in SERVICES
    }
    for (service, method), names in MAY.items():
        assert callers.CALLERS[f"newt.v1.{service}"][method] == names
    assert callers.allowed("/newt.v1.WeightsService/New") == (), "what is not in it is for nobody"
    assert callers.allowed("/grpc.health.v1.Health/Check") is None


@pytest.mark.parametrize("service", SERVICES)
def test_each_component_may_do_what_it_does(folder: Path, service: str) -> None:
    with serving(service, folder) as address:
        for method in methods(service):
            for component in COMPONENTS:
                may = component in callers.CALLERS[service][method]
                expected = grpc.StatusCode.OUT_OF_RANGE if may else grpc.StatusCode.PERMISSION_DENIED
                assert answer(address, folder / component, service, method) is expected, (method, component)
            # The one certificate for everything, as it always was.
            assert answer(address, folder, service, method) is grpc.StatusCode.OUT_OF_RANGE, method


def test_a_simulator_publishes_no_weights(folder: Path) -> None:
    got: list[weights_pb2.PublishRequest] = []

    class Hub(weights_pb2_grpc.WeightsServiceServicer):
        def Publish(  # noqa: N802
            self, request_iterator: Iterator[weights_pb2.PublishRequest], context: grpc.ServicerContext
        ) -> weights_pb2.PublishResponse:
            got.extend(request_iterator)
            return weights_pb2.PublishResponse()

    with tls(folder / "learner"):
        server = Server("newt.v1.WeightsService", "127.0.0.1", 0, max_threads=4)
    weights_pb2_grpc.add_WeightsServiceServicer_to_server(Hub(), server.grpc)
    server.start()

    def send(component: str) -> None:
        with tls(folder / component):
            publish(server.address, "model", 1, b"weights", "{}", timeout_s=10)

    try:
        with structlog.testing.capture_logs() as logs:
            for _ in range(3):
                with pytest.raises(ForbiddenError, match=r"Publish is for .* the name learner; .*sim-atari"):
                    send("sim")
        assert [line["method"] for line in logs if line["event"] == "caller_refused"] == [
            "newt.v1.WeightsService/Publish"
        ]
        assert not got
        send("learner")
        assert got
    finally:
        server.stop(grace_s=0)


def test_whoever_has_a_certificate_may_ask_for_health(folder: Path) -> None:
    request = health_pb2.HealthCheckRequest(service=LIVENESS)
    with (
        serving("newt.v1.ReplayService", folder / "replay") as address,
        tls(folder / "sim"),
        connect(address) as channel,
    ):
        reply = health_pb2_grpc.HealthStub(channel).Check(request, timeout=10)
    assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_the_check_can_be_turned_off(folder: Path) -> None:
    with serving("newt.v1.ReplayService", folder, NEWT_TLS_CALLERS="any") as address:
        assert answer(address, folder / "sim", "newt.v1.ReplayService", "Append") is grpc.StatusCode.OUT_OF_RANGE
