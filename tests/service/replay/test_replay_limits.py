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
from newt.wire import lanes
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


def test_steps_count_when_they_are_taken(client: ReplayClient) -> None:
    """A collector in the middle of its episodes earns the trainer updates, and must wait for them."""
    make_buffer(client, updates_per_env_step=0.5, max_lead_updates=5)
    client.append(numbered(0, 20), buffer_id="run", timeout_s=10)  # Earns updates 0 to 9.
    first = client.await_insert("run", timeout_s=0.5, env_steps_taken=20)
    assert (first.granted, first.permitted_env_steps) == (False, None)
    with client.batches("run", batch_size=8, horizon=3, seed=1, in_flight=1, demo_fraction=0.0) as batches:
        assert [next(batches).index for _ in range(10)] == list(range(10))
        wait_for_side(client, SAMPLE)
        # Update 10 was asked for, so 11 are; 20 + 4 steps earn 12. The bound: 0.5 c - 11 <= 5, c = 32.
        permit = client.await_insert("run", timeout_s=5, env_steps_taken=24, acting_weights_version=7)
        assert (permit.granted, permit.lead_updates, permit.permitted_env_steps) == (True, 1, 32)
        batch = next(batches)
        assert (batch.index, batch.env_steps, batch.env_steps_taken, batch.acting_weights_version) == (10, 20, 24, 7)
        assert client.get_buffer("run").env_steps_taken == 24


def test_a_collector_that_starts_again_is_counted_once(client: ReplayClient) -> None:
    """Its unfinished episodes are gone; what is stored was taken in any case."""
    make_buffer(client, updates_per_env_step=1.0)
    client.append(numbered(0, 10), buffer_id="run", timeout_s=10)
    client.await_insert("run", timeout_s=5, env_steps_taken=17)
    assert client.get_buffer("run").env_steps_taken == 17
    client.await_insert("run", timeout_s=5, env_steps_taken=10)
    assert client.get_buffer("run").env_steps_taken == 10
    client.append(numbered(1, 7), buffer_id="run", timeout_s=10)  # Before the report of these steps.
    assert client.get_buffer("run").env_steps_taken == 17
    client.await_insert("run", timeout_s=5)  # Nothing new.
    assert client.get_buffer("run").env_steps_taken == 17


def test_a_restarted_service_learns_of_unfinished_episodes_again(redis: RedisServer) -> None:
    with serving(redis) as service, ReplayClient(service.server.address) as client:
        make_buffer(client)
        client.append(numbered(0, 10), buffer_id="run", timeout_s=10)
        client.await_insert("run", timeout_s=5, env_steps_taken=15)
    with serving(redis) as service, ReplayClient(service.server.address) as client:
        assert client.get_buffer("run").env_steps_taken == 10
        with client.batches("run", batch_size=8, horizon=3, seed=1, first_index=14, demo_fraction=0.0) as batches:
            wait_for_side(client, SAMPLE)
            client.await_insert("run", timeout_s=5, env_steps_taken=15)
            assert next(batches).index == 14


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
        permit = client.await_insert("run", timeout_s=5, env_steps_taken=9)
        assert (permit.granted, permit.permitted_env_steps) == (True, 9)  # Far beyond the bound, step by step.
        client.append(numbered(2, 5), buffer_id="run", timeout_s=10)
        assert next(batches).blocked_seconds > 0


def test_updates_begin_with_all_tasks(client: ReplayClient) -> None:
    """The collector goes on while one task has nothing, and waits while the updates catch up."""
    make_buffer(client, max_lead_updates=1, all_tasks_until_env_steps=100)
    client.append(numbered(0, 20), buffer_id="run", timeout_s=10)
    assert not client.await_insert("run", timeout_s=0.5, env_steps_taken=30).granted  # The trainer is not there yet.
    with client.batches("run", batch_size=8, horizon=3, seed=1, in_flight=1, demo_fraction=0.0) as batches:
        wait_for_side(client, SAMPLE)
        assert client.await_insert("run", timeout_s=5, env_steps_taken=40).granted
        assert batches.take(0.2) is None
        client.append(numbered(1, 20, task="walk"), buffer_id="run", timeout_s=10)
        assert next(batches).index == 0
    assert not client.await_insert("run", timeout_s=0.5, env_steps_taken=41).granted


def test_updates_do_not_wait_for_a_task_for_ever(client: ReplayClient) -> None:
    make_buffer(client, all_tasks_until_env_steps=100)
    client.append(numbered(0, 20), buffer_id="run", timeout_s=10)
    with client.batches("run", batch_size=8, horizon=3, seed=1, in_flight=1, demo_fraction=0.0) as batches:
        wait_for_side(client, SAMPLE)
        assert client.await_insert("run", timeout_s=5, env_steps_taken=99).granted
        assert batches.take(0.2) is None
        assert client.await_insert("run", timeout_s=5, env_steps_taken=100).granted
        assert next(batches).index == 0


def test_demonstrations_of_a_task_are_enough_to_begin(client: ReplayClient) -> None:
    client.append(numbered(0, 9, task="walk"), demo_set="d", timeout_s=10)
    make_buffer(client, demo_sets=["d"], all_tasks_until_env_steps=100)
    client.append(numbered(1, 9), buffer_id="run", timeout_s=10)
    assert take(client, 1, limited=True, demo_fraction=0.5)[0].index == 0


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


def test_idle_trainers_take_turns_where_streams_are_few(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that asks for nothing loses its place to one that does, and its iterator goes on all the same."""
    monkeypatch.setattr(lanes, "IDLE_S", 0.2)
    with serving(redis, max_streams=1) as service, ReplayClient(service.server.address) as client:
        make_buffer(client)
        client.append(numbered(0, 50), buffer_id="run", timeout_s=10)
        values = {"batch_size": 8, "horizon": 3, "seed": 1, "limited": False, "in_flight": 1}
        with contextlib.ExitStack() as open_:
            first = open_.enter_context(client.batches("run", **values))
            indices = [next(first).index]
            time.sleep(0.5)
            second = open_.enter_context(client.batches("run", **values))
            for _ in range(2):
                for batches in (second, first):
                    indices.append(next(batches).index)
                    time.sleep(0.5)
        assert indices == [0, 0, 1, 1, 2]


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
