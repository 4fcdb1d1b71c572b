"""The weights hub over real gRPC: what it accepts, what subscribers get."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from planner_rig import Hub, until

from newt.client.weights import copy, publish, retire
from newt.errors import InvalidInputError, PreconditionError, UnavailableError
from newt.wire.channels import Channels, connect
from newt.wire.chunks import CHUNK_BYTES, Assembler, Weights, split
from newt.wire.server import Server
from newt.wire.v1 import weights_pb2, weights_pb2_grpc
from services.learner.weights.hub import WeightsHub


def payload(letter: str, size: int = 10) -> bytes:
    return letter.encode() * size


class Listener:
    """A subscriber that reads when it is told to."""

    def __init__(self, hub: Hub) -> None:
        self._channel = connect(hub.address)
        self.call = weights_pb2_grpc.WeightsServiceStub(self._channel).Subscribe(
            weights_pb2.SubscribeRequest(subscriber="test"), timeout=30
        )
        self._assembler = Assembler()
        self.live: list[str] | None = None  # what the hub named as living, if it did

    def next(self) -> tuple[str, int]:
        """The next complete model as (id, version), or (id, 0) for one that was retired."""
        for event in self.call:
            if event.WhichOneof("event") == "live":
                self.live = list(event.live.model_ids)
                continue
            if event.WhichOneof("event") == "retired_model_id":
                return event.retired_model_id, 0
            weights = self._assembler.add(event.chunk)
            if weights is not None:
                return weights.model_id, weights.weights_version
        raise AssertionError("the stream ended")

    def close(self) -> None:
        self.call.cancel()
        self._channel.close()


@pytest.fixture
def listener(hub: Hub) -> Iterator[Listener]:
    listener = Listener(hub)
    listener.call.initial_metadata()
    yield listener
    listener.close()


def send(hub: Hub, chunks: list[weights_pb2.WeightsChunk]) -> grpc.StatusCode:
    with connect(hub.address) as channel:
        try:
            weights_pb2_grpc.WeightsServiceStub(channel).Publish(
                iter([weights_pb2.PublishRequest(chunk=chunk) for chunk in chunks]), timeout=10
            )
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def test_what_is_published_reaches_a_subscriber(hub: Hub, listener: Listener) -> None:
    assert publish(hub.address, "a", 1, payload("x", 3 * CHUNK_BYTES + 5), "{}", timeout_s=10) == 1
    assert listener.next() == ("a", 1)
    assert publish(hub.address, "a", 2, payload("y"), "{}", timeout_s=10) == 1
    assert listener.next() == ("a", 2)


def test_a_late_subscriber_gets_the_newest_of_every_model(hub: Hub) -> None:
    for model_id, version in (("a", 1), ("b", 7), ("a", 2)):
        assert publish(hub.address, model_id, version, payload(str(version)), "{}", timeout_s=10) == 0
    listener = Listener(hub)
    assert {listener.next(), listener.next()} == {("a", 2), ("b", 7)}
    publish(hub.address, "c", 1, payload("z"), "{}", timeout_s=10)
    assert listener.next() == ("c", 1)
    listener.close()


def test_a_slow_subscriber_skips_versions_and_ends_with_the_newest(hub: Hub, listener: Listener) -> None:
    # Large enough that the first one cannot leave before somebody reads.
    for version in range(1, 31):
        publish(hub.address, "a", version, payload(chr(64 + version), 4 * CHUNK_BYTES), "{}", timeout_s=10)
    seen = [listener.next()[1]]
    while seen[-1] != 30:
        seen.append(listener.next()[1])
    assert seen == sorted(seen)
    assert len(seen) < 5


def test_a_retired_model_is_announced(hub: Hub, listener: Listener) -> None:
    publish(hub.address, "a", 5, payload("x"), "{}", timeout_s=10)
    assert listener.next() == ("a", 5)
    retire(hub.address, "a", timeout_s=10)
    assert listener.next() == ("a", 0)
    retire(hub.address, "never-was", timeout_s=10)
    # A new life of the id may start from version 1.
    publish(hub.address, "a", 1, payload("y"), "{}", timeout_s=10)
    assert listener.next() == ("a", 1)


def test_a_copy_stays_while_its_model_goes_on(hub: Hub, listener: Listener) -> None:
    with pytest.raises(UnavailableError, match="holds no version of model 'a' yet"):
        copy(hub.address, "a", "a@still", timeout_s=0.3)
    publish(hub.address, "a", 7, payload("x"), '{"horizon": 5}', timeout_s=10)
    assert listener.next() == ("a", 7)
    assert copy(hub.address, "a", "a@still", timeout_s=10) == 7
    assert listener.next() == ("a@still", 7)
    publish(hub.address, "a", 8, payload("y"), "{}", timeout_s=10)
    assert listener.next() == ("a", 8)
    late = Listener(hub)
    assert {late.next(), late.next()} == {("a", 8), ("a@still", 7)}
    late.close()
    assert copy(hub.address, "a", "a@still", timeout_s=10) == 8  # made anew
    assert listener.next() == ("a@still", 8)
    retire(hub.address, "a@still", timeout_s=10)
    assert listener.next() == ("a@still", 0)
    copy(hub.address, "a", "a@again", timeout_s=10)
    assert listener.next() == ("a@again", 8)
    retire(hub.address, "a", timeout_s=10)  # and so its copy, whoever it was made for
    assert {listener.next(), listener.next()} == {("a", 0), ("a@again", 0)}
    publish(hub.address, "a", 9, payload("z"), "{}", timeout_s=10)
    for copy_id in ("a", "no id", ""):
        with pytest.raises(InvalidInputError):
            copy(hub.address, "a", copy_id, timeout_s=10)


def test_a_subscriber_is_first_told_what_lives() -> None:
    hub = Hub(expected=("early",)).start()
    publish(hub.address, "a", 1, payload("x"), "{}", timeout_s=10)
    listener = Listener(hub)
    assert listener.next() == ("a", 1)
    assert listener.live == ["a", "early"]
    hub.hub.retire("early")  # nobody published it before it ended
    assert listener.next() == ("early", 0)
    listener.close()
    again = Listener(hub)
    assert again.next() == ("a", 1)
    assert again.live == ["a"]
    again.close()
    hub.stop()


def test_a_hub_that_does_not_know_what_lives_says_nothing() -> None:
    hub = Hub(expected=None).start()
    publish(hub.address, "a", 1, payload("x"), "{}", timeout_s=10)
    listener = Listener(hub)
    assert listener.next() == ("a", 1)
    assert listener.live is None
    listener.close()
    hub.stop()


def test_an_older_version_and_other_weights_under_a_version_are_refused(hub: Hub) -> None:
    publish(hub.address, "a", 5, payload("x"), "{}", timeout_s=10)
    for version, letter in ((4, "x"), (5, "y")):
        with pytest.raises(PreconditionError, match="the hub holds version 5"):
            publish(hub.address, "a", version, payload(letter), "{}", timeout_s=10)
    publish(hub.address, "a", 5, payload("x"), "{}", timeout_s=10)
    assert hub.hub.models() == {"a": 5}


def corrupt_byte(chunks: list[weights_pb2.WeightsChunk]) -> None:
    chunks[1].data = b"?" + chunks[1].data[1:]


def lose_one(chunks: list[weights_pb2.WeightsChunk]) -> None:
    del chunks[1]


def lose_the_end(chunks: list[weights_pb2.WeightsChunk]) -> None:
    del chunks[-1]


def lose_all(chunks: list[weights_pb2.WeightsChunk]) -> None:
    chunks.clear()


def one_too_many(chunks: list[weights_pb2.WeightsChunk]) -> None:
    chunks.append(weights_pb2.WeightsChunk(offset=10, data=b"?"))


@pytest.mark.parametrize("harm", [corrupt_byte, lose_one, lose_the_end, lose_all, one_too_many])
def test_a_damaged_upload_leaves_the_old_version(hub: Hub, harm: object) -> None:
    publish(hub.address, "a", 1, payload("x"), "{}", timeout_s=10)
    chunks = list(split(Weights("a", 2, payload("y"), "{}"), 4))
    harm(chunks)
    assert send(hub, chunks) is grpc.StatusCode.DATA_LOSS
    assert hub.hub.models() == {"a": 1}
    assert send(hub, list(split(Weights("a", 2, payload("y"), "{}"), 4))) is grpc.StatusCode.OK
    assert hub.hub.models() == {"a": 2}


def test_an_impossible_model_is_refused_by_name(hub: Hub) -> None:
    with pytest.raises(InvalidInputError, match="model_id"):
        publish(hub.address, "no/slash", 1, payload("x"), "{}", timeout_s=10)
    (chunk,) = split(Weights("a", 1, payload("x"), "{}"))
    chunk.header.size_bytes = 1 << 60
    assert send(hub, [chunk]) is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(InvalidInputError, match="model_id"):
        retire(hub.address, "no/slash", timeout_s=10)


def test_a_subscriber_that_goes_frees_its_place(hub: Hub) -> None:
    listeners = [Listener(hub) for _ in range(3)]
    for listener in listeners:
        listener.call.initial_metadata()
    assert publish(hub.address, "a", 1, payload("x"), "{}", timeout_s=10) == 3
    for listener in listeners:
        listener.close()
    until(lambda: publish(hub.address, "a", 1, payload("x"), "{}", timeout_s=10) == 0)


def test_subscriptions_are_limited(hub: Hub) -> None:
    small = WeightsHub(max_subscribers=1)
    server = Server("newt.v1.WeightsService", "127.0.0.1", 0)
    weights_pb2_grpc.add_WeightsServiceServicer_to_server(small, server.grpc)
    server.start()
    with connect(server.address) as channel:
        stub = weights_pb2_grpc.WeightsServiceStub(channel)
        first = stub.Subscribe(weights_pb2.SubscribeRequest(), timeout=10)
        first.initial_metadata()
        with pytest.raises(grpc.RpcError) as caught:
            next(stub.Subscribe(weights_pb2.SubscribeRequest(), timeout=10))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    small.close()
    server.stop(1)


def test_closing_ends_subscriptions_so_that_the_server_stops_at_once(hub: Hub, listener: Listener) -> None:
    publish(hub.address, "a", 1, payload("x"), "{}", timeout_s=10)
    assert listener.next() == ("a", 1)
    ended = threading.Event()

    def close() -> None:
        hub.hub.close()
        hub.server.stop(grace_s=60)
        ended.set()

    threading.Thread(target=close, daemon=True).start()
    with pytest.raises(grpc.RpcError) as caught:
        listener.next()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert ended.wait(20)


def test_publishing_waits_for_a_hub_that_is_starting() -> None:
    hub = Hub().start()
    hub.stop()

    def start_later() -> None:
        time.sleep(0.3)
        hub.start()

    thread = threading.Thread(target=start_later, daemon=True)
    thread.start()
    publish(hub.address, "a", 1, payload("x"), "{}", timeout_s=20)
    thread.join(10)
    assert hub.hub.models() == {"a": 1}
    hub.stop()
    with pytest.raises(UnavailableError, match=r"weights hub at .* (cannot be reached|did not answer within 0\.2 s)"):
        publish(hub.address, "a", 2, payload("y"), "{}", timeout_s=0.2)


def test_a_publisher_has_one_connection_which_outlives_a_restart_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    channels, hub = Channels(), Hub().start()
    kept = channels.to(hub.address)
    monkeypatch.setattr("newt.client.weights.connect", lambda target: pytest.fail("opened another"))
    for version in (1, 2):
        publish(hub.address, "a", version, payload(str(version)), "{}", timeout_s=10, channels=channels)
    hub.kill()
    again = Hub(port=hub.port).start()
    try:
        publish(hub.address, "a", 3, payload("3"), "{}", timeout_s=20, channels=channels)
        assert channels.to(hub.address) is kept
    finally:
        again.stop()
