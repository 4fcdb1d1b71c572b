"""Versions of a model on their way to the hub, and how old they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest

from newt.wire.server import Server
from newt.wire.v1 import weights_pb2_grpc
from services.learner.records.writer import RunWriter
from services.learner.weights.hub import WeightsHub
from services.learner.weights.publisher import Payload, Publisher


class _Versions:
    """What a publisher needs of a run's record: it counts."""

    run_id = "run"

    def __init__(self) -> None:
        self.issued, self.newest = 0, 0

    def next_weights_version(self) -> int:
        self.issued += 1
        return self.issued

    def published(self, version: int) -> None:
        self.newest = version


@pytest.fixture
def hub() -> Iterator[tuple[WeightsHub, str]]:
    hub = WeightsHub()
    server = Server("newt.v1.WeightsService", "127.0.0.1", 0)
    weights_pb2_grpc.add_WeightsServiceServicer_to_server(hub, server.grpc)
    server.start()
    yield hub, f"127.0.0.1:{server.port}"
    hub.close()
    server.stop(grace_s=1)


def test_the_age_of_weights_is_counted_from_their_copy(hub: tuple[WeightsHub, str]) -> None:
    versions = _Versions()
    with Publisher(hub[1], cast(RunWriter, versions), "{}", every_s=1e-9) as publisher:
        assert publisher.publish(100, lambda: b"first") == 1
        publisher.maybe_publish(130, lambda: lambda: b"second")
        assert publisher.publish(150, lambda: b"third") == 3
        assert hub[0].models() == {"run": 3}
        ages = [publisher.age(version, updates=170) for version in (1, 2, 3)]
        assert [age and age.updates for age in ages] == [70, 40, 20]
        first, _, third = ages
        assert first is not None
        assert third is not None
        assert first.seconds >= third.seconds >= 0
        assert publisher.age(1, 170) is None  # Planners never go back.
        assert publisher.age(4, 170) is None  # Of an earlier trainer, for example.


def test_packing_is_not_done_by_the_updates_thread(hub: tuple[WeightsHub, str]) -> None:
    """The copy is taken at once, and packed whenever the upload comes to it."""
    weights, versions = [1], _Versions()

    def copied() -> Payload:
        copy = list(weights)
        return lambda: bytes(copy)

    with Publisher(hub[1], cast(RunWriter, versions), "{}", every_s=1e-9) as publisher:
        publisher.maybe_publish(1, copied)
        weights[0] = 2
    assert versions.newest == 1
    assert hub[0]._models["run"].payload == b"\x01"
