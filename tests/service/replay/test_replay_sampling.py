"""Training batches through the service."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from replay_episodes import TASKS, check, make_buffer, numbered, numbers_of, take

from newt.client.batches import Batches, batch_of
from newt.client.buffers import BufferConfig
from newt.client.read_ahead import Sampler, batch_seed
from newt.client.replay import ReplayClient
from newt.errors import InvalidInputError, NotFoundError
from newt.wire.episodes import Episode
from newt.wire.v1 import replay_pb2


def test_batches_are_padded_windows_of_single_episodes(client: ReplayClient) -> None:
    make_buffer(client)
    for number in range(20):
        task = "walk" if number % 2 else "reach"
        client.append(numbered(number, 3 + number, task), buffer_id="run", timeout_s=10)
    for sampler in get_args(Sampler):
        for horizon in (1, 3, 10):
            [batch] = take(client, horizon=horizon, batch_size=200, sampler=sampler)
            assert batch.obs.shape == (horizon + 1, 200, 128)
            assert batch.action.shape == (horizon, 200, 16)
            assert batch.reward.shape == batch.terminated.shape == (horizon, 200)
            assert batch.obs.dtype == batch.action.dtype == batch.reward.dtype == np.float32
            assert batch.task.dtype == np.int32
            assert batch.image is None
            assert not batch.terminated.any()
            assert not batch.demo.any()
            assert set(batch.task) == {0, 1}
            assert batch.env_steps == sum(3 + n for n in range(20))
            np.testing.assert_array_equal(batch.task, batch.obs[0, :, 0] % 2)
            check(batch)


def test_clients_that_know_no_packed_replies_get_the_same_batch_in_groups(client: ReplayClient) -> None:
    for number in range(4):
        client.append(numbered(number, 9, "walk" if number % 2 else "reach"), demo_set="d", timeout_s=10)
    make_buffer(client, demo_sets=["d"])
    for number in range(4, 9):
        client.append(numbered(number, 9, terminated=True), buffer_id="run", timeout_s=10)
    request = replay_pb2.SampleRequest(buffer_id="run", batch_size=64, horizon=3, demo_fraction=0.5, seed=3)
    packed = replay_pb2.SampleRequest(packed=True)
    packed.MergeFrom(request)
    of_before, of_today = client.stub.Sample(iter([request, packed]), timeout=10)
    assert of_before.groups
    assert not of_before.HasField("packed")
    assert of_today.HasField("packed")
    assert not of_today.groups
    one, other = (batch_of([response], request, 0, response) for response in (of_before, of_today))
    check(one)
    assert one.demo.sum() == 32
    assert one.terminated.any()
    for name in ("obs", "action", "reward", "terminated", "task", "demo"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_episodes_shorter_than_a_window_are_left_out(client: ReplayClient) -> None:
    make_buffer(client)
    for number, transitions in enumerate([1, 2, 3, 64]):
        client.append(numbered(number, transitions), buffer_id="run", timeout_s=10)
    assert numbers_of(take(client, batch_size=500, horizon=3)[0]) == {2, 3}
    assert numbers_of(take(client, batch_size=500, horizon=1)[0]) == {0, 1, 2, 3}
    [longest] = take(client, batch_size=5, horizon=64)  # A window that is the whole episode.
    check(longest)
    assert numbers_of(longest) == {3}


def test_what_was_just_evicted_is_never_sampled(client: ReplayClient) -> None:
    """Wraps the ring many times with episodes of changing length."""
    make_buffer(client, capacity_rows=100)
    lengths = np.random.default_rng(0).integers(3, 40, 60)
    for number, transitions in enumerate(lengths.tolist()):
        client.append(numbered(number, transitions), buffer_id="run", timeout_s=10)
        kept = [n for n in range(number + 1) if sum(lengths[n : number + 1] + 1) <= 100]
        [batch] = take(client, batch_size=300)
        check(batch)
        assert numbers_of(batch) == set(kept)


def test_draws_repeat_with_the_seed(client: ReplayClient) -> None:
    make_buffer(client)
    for number in range(5):
        client.append(numbered(number, 30), buffer_id="run", timeout_s=10)
    one, two = take(client, 4, seed=3), take(client, 4, seed=3)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.obs, b.obs)
    assert not np.array_equal(one[0].obs, one[1].obs)
    assert not np.array_equal(one[0].obs, take(client, 1, seed=4)[0].obs)
    np.testing.assert_array_equal(take(client, 1, seed=3, first_index=2)[0].obs, one[2].obs)
    assert batch_seed(1, 2) != batch_seed(2, 1)


def test_half_demos_half_online(client: ReplayClient) -> None:
    for number in range(3):
        client.append(numbered(number, 9), demo_set="d", timeout_s=10)
    make_buffer(client, demo_sets=["d"])
    for number in range(100, 103):
        client.append(numbered(number, 9, "walk" if number == 102 else "reach"), buffer_id="run", timeout_s=10)
    for fraction, demos in ((0.0, 0), (0.25, 16), (0.5, 32), (1.0, 64)):
        [batch] = take(client, demo_fraction=fraction)
        check(batch)
        assert batch.demo.sum() == demos
        np.testing.assert_array_equal(batch.demo, batch.obs[0, :, 0] < 100)


def test_a_part_with_nothing_leaves_its_share_to_the_other(client: ReplayClient) -> None:
    client.append(numbered(0, 9), demo_set="d", timeout_s=10)
    make_buffer(client, "demos-only", demo_sets=["d"])
    [batch] = take(client, name="demos-only", demo_fraction=0.5)
    assert batch.demo.all()
    make_buffer(client, "online-only")
    client.append(numbered(1, 9), buffer_id="online-only", timeout_s=10)
    [batch] = take(client, name="online-only", demo_fraction=0.5)
    assert not batch.demo.any()


def test_demos_leave_the_online_part_as_online_data_replace_them(client: ReplayClient) -> None:
    """Capacity of 100 rows, 4 demos of 10 rows: the oldest demo goes first, and none ever comes back."""
    for number in range(4):
        client.append(numbered(number, 9, "walk" if number == 1 else "reach"), demo_set="d", timeout_s=10)
    make_buffer(client, demo_sets=["d"], demos_in_online=True, capacity_rows=100)

    def present() -> set[int]:
        return numbers_of(take(client, batch_size=600, demo_fraction=0.0)[0])

    assert present() == {0, 1, 2, 3}
    online: set[int] = set()
    for count in range(1, 13):
        number = 100 + count
        client.append(numbered(number, 9), buffer_id="run", timeout_s=10)
        online.add(number)
        demos = {n for n in range(4) if 10 * (4 - n) + 10 * count <= 100}
        assert present() == demos | {n for n in online if n > 100 + count - 10}
    client.append(numbered(200, 4), buffer_id="run", timeout_s=10)  # Leaves five rows free.
    client.append(numbered(201, 3), buffer_id="run", timeout_s=10)
    assert min(present()) > 100
    assert numbers_of(take(client, batch_size=600, demo_fraction=1.0)[0]) == {0, 1, 2, 3}


def test_a_demo_appended_later_is_seen(client: ReplayClient) -> None:
    client.append(numbered(0, 9), demo_set="d", timeout_s=10)
    make_buffer(client, demo_sets=["d"], demos_in_online=True)
    client.append(numbered(1, 9, "walk"), demo_set="d", timeout_s=10)
    assert numbers_of(take(client, demo_fraction=1.0)[0]) == {0, 1}


def test_terminated_flags(client: ReplayClient) -> None:
    make_buffer(client)
    client.append(numbered(0, 5, terminated=True), buffer_id="run", timeout_s=10)
    client.append(numbered(1, 5), buffer_id="run", timeout_s=10)
    [batch] = take(client, batch_size=400)
    at_end = (batch.obs[0, :, 0] == 0) & (batch.obs[0, :, 1] == 2)
    np.testing.assert_array_equal(batch.terminated, np.stack([np.zeros(400, bool)] * 2 + [at_end]))
    assert at_end.any()


def test_images_travel_with_their_rows(client: ReplayClient) -> None:
    def pictured(number: int, transitions: int, dim: int = 6) -> Episode:
        rows = np.arange(transitions + 1, dtype=np.float32)[:, None] + np.zeros((1, dim), np.float32)
        return numbered(number, transitions, image=rows)

    client.append(pictured(0, 9), demo_set="d", timeout_s=10)
    client.append(numbered(5, 9, "walk"), demo_set="d", timeout_s=10)  # Without features: of no use to the run.
    make_buffer(client, demo_sets=["d"], image_dim=6)
    client.append(pictured(1, 12), buffer_id="run", timeout_s=10)
    [batch] = take(client, demo_fraction=0.5)
    check(batch)
    assert numbers_of(batch) == {0, 1}
    assert batch.image is not None
    np.testing.assert_array_equal(batch.image, np.repeat(batch.obs[:, :, 1:2], 6, axis=2))
    with pytest.raises(InvalidInputError, match="image"):
        client.append(numbered(2, 9), buffer_id="run", timeout_s=10)
    with pytest.raises(InvalidInputError, match="image"):
        client.append(pictured(3, 9, dim=5), buffer_id="run", timeout_s=10)
    make_buffer(client, "state", demo_sets=["d"])
    [batch] = take(client, name="state", demo_fraction=1.0)
    assert batch.image is None
    assert numbers_of(batch) == {0, 5}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 10**8}, "batch_size"),
        ({"horizon": 0}, "horizon"),
        ({"horizon": 65}, "horizon"),
        ({"demo_fraction": 1.5}, "demo_fraction"),
        ({"demo_fraction": float("nan")}, "demo_fraction"),
        ({"sampler": 17}, "sampler"),
    ],
)
def test_bad_requests_name_the_field(client: ReplayClient, change: dict[str, object], field: str) -> None:
    make_buffer(client)
    with pytest.raises(InvalidInputError) as caught:
        take(client, **change)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"buffer_id": "a/b"}, "buffer_id"),
        ({"tasks": {}}, "tasks"),
        ({"tasks": {"t": (0, 1)}}, "tasks[0].obs_dim"),
        ({"tasks": {"t": (129, 1)}}, "tasks[0].obs_dim"),
        ({"tasks": {"s": (3, 1), "t": (3, 17)}}, "tasks[1].action_dim"),
        ({"capacity_rows": 1}, "capacity_rows"),
        ({"updates_per_env_step": 0.0}, "limiter.updates_per_env_step"),
        ({"updates_per_env_step": float("nan")}, "limiter.updates_per_env_step"),
        ({"updates_per_env_step": 1e300}, "limiter.updates_per_env_step"),
        ({"capacity_rows": 2**64 - 1}, "capacity_rows"),
        ({"start_env_steps": 2**64 - 1}, "limiter.start_env_steps"),
        ({"max_lead_updates": 2**63}, "limiter.max_lead_updates"),
        ({"demo_sets": ["d", "d"]}, "demo_sets"),
    ],
)
def test_bad_buffers_name_the_field(client: ReplayClient, change: dict[str, object], field: str) -> None:
    values: dict[str, object] = {
        "buffer_id": "run",
        "tasks": TASKS,
        "capacity_rows": 100,
        "updates_per_env_step": 1.0,
        "start_env_steps": 0,
        "max_lead_updates": 0,
        **change,
    }
    with pytest.raises(InvalidInputError) as caught:
        client.create_buffer(str(values.pop("buffer_id")), BufferConfig(**values))  # type: ignore[arg-type]
    assert caught.value.field == field


def test_unknown_names(client: ReplayClient) -> None:
    make_buffer(client)
    for call in (
        lambda: client.get_buffer("nobody"),
        lambda: client.append(numbered(0, 5), buffer_id="nobody", timeout_s=5),
        lambda: client.await_insert("nobody", timeout_s=5),
        lambda: take(client, name="nobody"),
        lambda: list(client.read_episodes(buffer_id="nobody")),
        lambda: list(client.read_episodes(demo_set="nobody")),
        lambda: client.delete_demo_set("nobody"),
    ):
        with pytest.raises(NotFoundError, match="nobody"):
            call()
    odd = numbered(0, 5)
    with pytest.raises(InvalidInputError, match="reach, walk"):
        client.append(Episode("x", "fly", odd.obs, odd.action, odd.reward), buffer_id="run", timeout_s=5)


def test_an_iterator_closes_cleanly_at_any_time(client: ReplayClient) -> None:
    make_buffer(client)
    client.append(numbered(0, 50), buffer_id="run", timeout_s=10)

    def batches() -> Batches:
        return client.batches("run", batch_size=8, horizon=3, seed=1, demo_fraction=0.0, limited=False)

    batches().close()
    with batches() as some:
        next(some)
    with pytest.raises(StopIteration):
        next(some)
    assert [b.index for b in take(client, 7, first_index=3)] == list(range(3, 10))
