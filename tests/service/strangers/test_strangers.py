"""What strangers do to services: streams that say nothing, bytes that are no message, requests that are almost right.

The requests come from fixed seeds; `make fuzz` takes longer. The last test ends the services, which must not hang.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import pytest
from fuzz_rigs import PATIENT_S, RIGS
from google.protobuf import descriptor_pool
from house import GRACE_S, NAMES, House, open_house
from proto_mutations import mutated

from newt.wire.channels import connect

SECONDS = float(os.environ.get("NEWT_FUZZ_SECONDS", "8"))
SEED = int(os.environ.get("NEWT_FUZZ_SEED", "1"))
# After the first part of the time, which fills pools and caches.
MAX_GROWTH_MB = 40.0
MAX_MORE_DESCRIPTORS = 24
SOON_S = 0.2
# May wait for data, for the limiter or for changes until its deadline.
WAITING = {"AwaitInsert", "AwaitSample", "Sample", "Subscribe", "ReadEpisodes", "StepStream", "Publish"}
FINE = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}


STREAMS = {
    "sim": ["StepStream"],
    "replay": ["Sample"],
    "learner": ["Publish", "Subscribe"],
    "planner": [],
}
SURPLUS = 300


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with open_house(tmp_path_factory.mktemp("house")) as house:
        yield house


def call(channel: grpc.Channel, path: str, raws: Sequence[bytes], timeout_s: float) -> tuple[grpc.StatusCode, str]:
    """One call of any kind, as bytes; reads what comes."""
    stream: Any = channel.stream_stream(path, None, None)(iter(raws), timeout=timeout_s)
    try:
        for count, _ in enumerate(stream):
            if count > 50:
                stream.cancel()
                return grpc.StatusCode.OK, ""
    except grpc.RpcError as error:
        return error.code(), error.details() or ""  # type: ignore[attr-defined]
    return grpc.StatusCode.OK, ""


def methods(service: str) -> list[str]:
    return [method.name for method in descriptor_pool.Default().FindServiceByName(NAMES[service]).methods]


@contextmanager
def idle_streams(channel: grpc.Channel, path: str, count: int) -> Iterator[list[Any]]:
    over = threading.Event()

    def nothing() -> Iterator[bytes]:
        over.wait()
        yield from ()

    calls: list[Any] = [channel.stream_stream(path, None, None)(nothing(), timeout=60) for _ in range(count)]
    yield calls
    for call in calls:
        call.cancel()
    over.set()


@pytest.mark.parametrize("service", NAMES)
def test_idle_streams_do_not_hold_up_a_service(house: House, service: str) -> None:
    paths = [f"/{NAMES[service]}/{method}" for method in STREAMS[service]]
    paths += ["/grpc.health.v1.Health/Watch", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"]
    with connect(house.addresses[service], one_replica=True) as channel, ExitStack() as held:
        calls = [held.enter_context(idle_streams(channel, path, SURPLUS)) for path in paths]
        deadline = time.monotonic() + 20
        for few in calls:  # Watch and Subscribe wait for their one request in a thread of their lane as well.
            while sum(call.done() for call in few) < SURPLUS - 128:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert {call.code() for call in few if call.done()} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        for _ in range(3):
            assert house.healthy(service)
        RIGS[service](house, channel).works(streams=False)
    with connect(house.addresses[service], one_replica=True) as channel:
        RIGS[service](house, channel).works()


@pytest.mark.parametrize("service", NAMES)
def test_bytes_that_are_no_message_are_refused(house: House, service: str) -> None:
    with connect(house.addresses[service], one_replica=True) as channel:
        for method in methods(service):
            code, details = call(channel, f"/{NAMES[service]}/{method}", [b"\xff\xff"], PATIENT_S)
            assert code is grpc.StatusCode.INVALID_ARGUMENT, (method, code, details)
            assert details.startswith("request: got 2 bytes")
        assert house.healthy(service)


@pytest.mark.parametrize("service", NAMES)
def test_nothing_that_can_be_sent_harms_a_service(house: House, service: str) -> None:
    draw = random.Random(f"{SEED} {service}")
    codes: Counter[str] = Counter()
    names = list(methods(service))
    begin = time.monotonic()
    before: tuple[float, int, int] | None = None
    with connect(house.addresses[service], one_replica=True) as channel:
        rig = RIGS[service](house, channel)
        count = 0
        while (spent := time.monotonic() - begin) < SECONDS:
            if before is None and spent > 0.4 * SECONDS:
                rig.clear()
                before = house.settled(service)
            count += 1
            method = names[count % len(names)]
            messages = rig.requests(method)
            raws = [message.SerializeToString() for message in messages]
            wrong = draw.randrange(len(raws))
            raws[wrong] = mutated(messages[wrong], draw)
            if draw.random() < 0.1:
                raws = draw.choice(([], raws * 2, raws[::-1]))
            code, details = call(
                channel, f"/{NAMES[service]}/{method}", raws, SOON_S if method in WAITING else PATIENT_S
            )
            codes[f"{method} {code.name}"] += 1
            fine = code in FINE or (method in WAITING and code is grpc.StatusCode.DEADLINE_EXCEEDED)
            # A method of one request says so itself when there is none, or two.
            fine = fine or (code is grpc.StatusCode.UNIMPLEMENTED and len(raws) != 1)
            assert fine, f"{method}: {code.name} {details!r} for {raws!r:.2000}\n{house.log(service)[-3000:]}"
        assert house.healthy(service)
        rig.works()
        rig.clear()
    print(f"{service}: {count} calls; {dict(sorted(codes.items()))}")
    assert sum(calls for name, calls in codes.items() if name.endswith(" OK")), codes
    assert sum(calls for name, calls in codes.items() if name.endswith(" INVALID_ARGUMENT")), codes
    assert before is not None
    after = house.settled(service, before[0] + MAX_GROWTH_MB)
    assert after[0] - before[0] < MAX_GROWTH_MB, (before, after)
    assert after[1] - before[1] < MAX_MORE_DESCRIPTORS, (before, after)
    for name, process in house.processes.items():
        assert process.poll() is None, f"{name} died: {house.log(name)[-3000:]}"


@pytest.mark.parametrize("service", ["planner", "sim", "replay", "learner"])
def test_services_end_within_their_grace_after_all_this(house: House, service: str) -> None:
    with connect(house.addresses[service], one_replica=True) as channel, ExitStack() as held:
        for method in STREAMS[service]:
            held.enter_context(idle_streams(channel, f"/{NAMES[service]}/{method}", 4))
        time.sleep(0.2)
        assert house.stop(service) < GRACE_S + 8
