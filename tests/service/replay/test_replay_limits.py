"""Who waits for whom, for how long, and what ends the wait."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
import structlog
from prometheus_client import REGISTRY
from replay_episodes import make_buffer, numbered, take
from replay_stack import serving

from newt.client.replay import ReplayClient
from newt.errors import NotFoundError, UnavailableError
from newt.local.redis_server import RedisServer
from newt.wire.v1 import replay_pb2
from services.replay import waiting
from services.replay.service import ReplayService

SAMPLE, INSERT = replay_pb2.LIMITER_SIDE_SAMPLE, replay_pb2.LIMITER_SIDE_INSERT


def blocked_seconds(side: str) -> float:
    return REGISTRY.get_sample_value("newt_replay_blocked_seconds_total", {"side": side}) or 0.0


def wait_for_side(client: ReplayClient, side: int) -> None:
    deadline = time.monotonic() + 20
    while client.get_buffer("run").blocked_side != side:
        assert time.monotonic() < deadline, f"side {side} never came"
        time.sleep(0.01)


def test_the_trainer_waits_for_environment_steps(client: ReplayClient) -> None:
    """With 0.5 updates per step from step 10 on, 20 steps allow updates 0 to 4."""
    make_buffer(client, updates_per_env_step=0.5, start_env_steps=10)
    client.append(numbered(0, 10), buffer_id="run", timeout_s=10)
    before = blocked_seconds("sample")
    with client.batches("run", batch_size=8, horizon=3, seed=1, in_flight=1, demo_fraction=0.0) as batches:
        wait_for_side(client, SAMPLE)
        client.append(numbered(1, 10), buffer_id="run", timeout_s=10)
        first = next(batches)
        assert first.blocked_seconds > 0
        assert [next(batches).index for _ in range(4)] == [1, 2, 3, 4]
        wait_for_side(client, SAMPLE)
        assert client.get_buffer("run").updates == 6  # Update 5 was asked for.
        client.append(numbered(2, 2), buffer_id="run", timeout_s=10)
        assert next(batches).index == 5
    assert blocked_seconds("sample") > before


def test_the_collector_waits_for_updates(client: ReplayClient) -> None:
    make_buffer(client, updates_per_env_step=1.0, max_lead_updates=10)
    reply = client.await_insert("run", timeout_s=5)
    assert (reply.granted, reply.blocked_side, reply.lead_updates) == (True, 0, 0)
    client.append(numbered(0, 12), buffer_id="run", timeout_s=10)
    reply = client.await_insert("run", timeout_s=0.6)
    assert (reply.granted, reply.blocked_side, reply.lead_updates) == (False, INSERT, 12)
    assert 0 < reply.blocked_seconds < 0.6
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(client.await_insert("run", timeout_s=30)))
    waiting.start()
    wait_for_side(client, INSERT)
    take(client, 1, limited=True, in_flight=1)
    wait_for_side(client, INSERT)  # One update brings the lead to 11: still too much.
    take(client, 1, limited=True, first_index=1, in_flight=1)
    waiting.join(20)
    assert answers[0].granted
    assert answers[0].lead_updates == 10
    assert blocked_seconds("insert") > 0


def test_the_limiter_needs_no_memory(redis: RedisServer) -> None:
    """After a restart both sides go on from the index that the trainer names."""
    with serving(redis) as service, ReplayClient(service.server.address) as client:
        make_buffer(client, max_lead_updates=10)
        for number in range(5):
            client.append(numbered(number, 10), buffer_id="run", timeout_s=10)
        assert [b.index for b in take(client, 45, limited=True)] == list(range(45))
        assert client.await_insert("run", timeout_s=5).granted
    with serving(redis) as service, ReplayClient(service.server.address) as client:
        assert [b.index for b in take(client, 5, limited=True, first_index=45)] == list(range(45, 50))
        assert client.await_insert("run", timeout_s=5).lead_updates == 0
        with client.batches("run", batch_size=8, horizon=3, seed=1, first_index=50) as batches:
            wait_for_side(client, SAMPLE)
            client.append(numbered(5, 10), buffer_id="run", timeout_s=10)
            assert next(batches).index == 50


def test_nothing_to_sample_waits_and_lets_the_collector_go_on(client: ReplayClient) -> None:
    make_buffer(client, max_lead_updates=1)
    client.append(numbered(0, 2), buffer_id="run", timeout_s=10)  # Shorter than a window.
    client.append(numbered(1, 2), buffer_id="run", timeout_s=10)
    assert not client.await_insert("run", timeout_s=0.5).granted
    with client.batches("run", batch_size=8, horizon=3, seed=1, in_flight=1) as batches:
        wait_for_side(client, SAMPLE)
        assert client.await_insert("run", timeout_s=5).granted
        client.append(numbered(2, 5), buffer_id="run", timeout_s=10)
        assert next(batches).blocked_seconds > 0


def test_pretraining_waits_for_the_first_demo(client: ReplayClient) -> None:
    client.append(numbered(0, 2), demo_set="d", timeout_s=10)
    make_buffer(client, demo_sets=["d"])
    with client.batches("run", batch_size=8, horizon=3, seed=1, demo_fraction=1.0, limited=False) as batches:
        wait_for_side(client, SAMPLE)
        client.append(numbered(1, 9), demo_set="d", timeout_s=10)
        assert next(batches).demo.all()


def test_a_change_of_the_limiter_takes_effect_on_waiting_calls(client: ReplayClient) -> None:
    make_buffer(client, start_env_steps=1000)
    client.append(numbered(0, 50), buffer_id="run", timeout_s=10)
    with client.batches("run", batch_size=8, horizon=3, seed=1) as batches:
        wait_for_side(client, SAMPLE)
        make_buffer(client, start_env_steps=0)
        assert next(batches).index == 0


def test_deleting_the_buffer_ends_waiting_calls(client: ReplayClient) -> None:
    make_buffer(client)
    with client.batches("run", batch_size=8, horizon=3, seed=1) as batches:
        wait_for_side(client, SAMPLE)
        client.delete_buffer("run")
        with pytest.raises(NotFoundError, match="deleted"):
            next(batches)


def test_clients_that_vanish_free_their_threads(redis: RedisServer) -> None:
    """Eight threads serve forty waiting streams and calls whose clients go away."""
    with serving(redis, max_threads=8) as service, ReplayClient(service.server.address) as client:
        make_buffer(client, max_lead_updates=1)
        for _ in range(5):
            with ReplayClient(service.server.address) as gone:
                streams = [gone.batches("run", batch_size=8, horizon=3, seed=1) for _ in range(6)]
                wait_for_side(client, SAMPLE)
            for stream in streams:
                stream.close()
        wait_for_side(client, 0)
        assert not client.append(numbered(0, 9), buffer_id="run", timeout_s=10).duplicate


def test_stopping_the_service_ends_waiting_streams(redis: RedisServer) -> None:
    with contextlib.ExitStack() as running:
        service = running.enter_context(serving(redis))
        with ReplayClient(service.server.address) as client:
            make_buffer(client)
            with client.batches("run", batch_size=8, horizon=3, seed=1, patience_s=0.3) as batches:
                wait_for_side(client, SAMPLE)
                running.close()
                with pytest.raises(UnavailableError):
                    next(batches)


def test_an_iterator_ends_when_its_client_closes(client: ReplayClient, service: ReplayService) -> None:
    make_buffer(client)
    with ReplayClient(service.server.address) as other:
        batches = other.batches("run", batch_size=8, horizon=3, seed=1)
        wait_for_side(client, SAMPLE)
    assert list(batches) == []
    batches.close()


def test_the_ratio_holds_while_both_sides_run(client: ReplayClient, service: ReplayService) -> None:
    """A collector and a trainer at full speed: at no batch is the trainer ahead, nor the collector too far."""
    ratio, start, lead, steps = 0.5, 40, 20, 10
    make_buffer(client, updates_per_env_step=ratio, start_env_steps=start, max_lead_updates=lead)
    updates = 300
    stop = threading.Event()
    leads: list[float] = []

    def collect() -> None:
        number = 0
        while not stop.is_set():
            reply = client.await_insert("run", timeout_s=5)
            if reply.granted:
                leads.append(reply.lead_updates)
                client.append(numbered(number, steps), buffer_id="run", timeout_s=10)
                number += 1

    collector = threading.Thread(target=collect)
    collector.start()
    try:
        with client.batches("run", batch_size=16, horizon=3, seed=1, count=updates, demo_fraction=0.0) as batches:
            for index, batch in enumerate(batches):
                assert batch.index == index
                assert index < ratio * (batch.env_steps - start)
    finally:
        stop.set()
        collector.join(20)
    assert index == updates - 1
    assert max(leads) <= lead
    final = client.get_buffer("run")
    assert ratio * (final.env_steps - start) - final.updates <= lead + ratio * steps
    assert final.updates == updates


def test_long_waits_say_on_whom(client: ReplayClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LOG_AFTER_SECONDS", 0.05)
    make_buffer(client, updates_per_env_step=0.5, start_env_steps=10, max_lead_updates=3)
    with structlog.testing.capture_logs() as lines:
        client.append(numbered(0, 10), buffer_id="run", timeout_s=10)
        with client.batches("run", batch_size=8, horizon=3, seed=1, in_flight=1) as batches:
            assert not client.await_insert("run", timeout_s=1).blocked_seconds
            wait_for_side(client, SAMPLE)
            stop = time.monotonic() + 20
            while not any(line["event"] == "replay_blocked" for line in lines):
                assert time.monotonic() < stop
                time.sleep(0.01)
            client.append(numbered(1, 20), buffer_id="run", timeout_s=10)
            next(batches)
        assert not client.await_insert("run", timeout_s=1).granted
    told = {line["side"]: line["why"] for line in lines if line["event"] == "replay_blocked"}
    assert "update 0 needs more than 0 allowed updates" in told["sample"]
    assert "max_lead_updates is 3" in told["insert"]
