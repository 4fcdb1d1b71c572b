"""Batches without padding: the same numbers, to the bit, as one group per task padded by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from newt.client.batches import batch_of
from newt.client.packed import read
from newt.client.read_ahead import Batch
from newt.errors import InvalidInputError
from newt.wire.episodes import Episode
from newt.wire.tensors import decode, encode
from newt.wire.v1 import replay_pb2
from services.learner.training.sending import padded_there, update_batch
from services.replay.batch import Sequences, gather
from services.replay.blocks import Blocks
from services.replay.sampler import Pool, Source
from services.replay.task_episodes import TaskEpisodes

# Observation and action columns by task: the narrowest, the widest, and what lies between.
DIMS = [(1, 1), (128, 16), (24, 6), (39, 4), (24, 6), (128, 1), (1, 16)]
B = 300
FIELDS = ("obs", "action", "reward", "terminated", "task", "demo", "image")


def source(task: int, seed: int, *, demo: bool, image_dim: int = 0) -> Source:
    """Two episodes of noise; negative zeros among them, since padding must not lose a sign."""
    rng, (obs_dim, action_dim) = np.random.default_rng((task, seed)), DIMS[task]
    held = TaskEpisodes(Blocks(), obs_dim, action_dim, image_dim)
    for number, steps in enumerate((9, 70)):
        obs = rng.standard_normal((steps + 1, obs_dim), np.float32)
        obs[::3] = -0.0
        held.append(
            Episode(
                f"e{number}",
                f"t{task}",
                obs,
                rng.uniform(-1, 1, (steps, action_dim)).astype(np.float32),
                -rng.random(steps, np.float32),
                image=rng.random((steps + 1, image_dim), np.float32) if image_dim else None,
                terminated=task % 2 == 0,
            )
        )
    return Source(task, held.windows(HORIZON), 0, demo)


HORIZON = 3


def drawn(tasks: list[int], count: int = B, *, image_dim: int = 0, seed: int = 0) -> Sequences:
    """A third of them demos."""
    demos = Pool([source(task, 1, demo=True, image_dim=image_dim) for task in tasks])
    online = Pool([source(task, 2, demo=False, image_dim=image_dim) for task in tasks])
    rng = np.random.default_rng(seed)
    parts = [(demos, demos.draw(rng, 1, count // 3)), (online, online.draw(rng, 1, count - count // 3))]
    return gather(parts, HORIZON, image_dim)


def packed(sequences: Sequences) -> replay_pb2.SampleResponse:
    response = replay_pb2.SampleResponse()
    sequences.pack(response.packed)
    return replay_pb2.SampleResponse.FromString(response.SerializeToString())


def grouped(sequences: Sequences) -> replay_pb2.SampleResponse:
    return replay_pb2.SampleResponse(groups=sequences.groups())


def batch(*responses: replay_pb2.SampleResponse, count: int = B) -> Batch:
    request = replay_pb2.SampleRequest(batch_size=count, horizon=HORIZON)
    return batch_of(responses, request, 0, replay_pb2.SampleResponse())


def by_hand(response: replay_pb2.SampleResponse, image_dim: int = 0) -> dict[str, np.ndarray]:
    """What the groups of a reply say, one group after the other."""
    found = {
        "obs": np.zeros((HORIZON + 1, B, 128), np.float32),
        "action": np.zeros((HORIZON, B, 16), np.float32),
        "reward": np.zeros((HORIZON, B), np.float32),
        "terminated": np.zeros((HORIZON, B), np.bool_),
        "task": np.zeros(B, np.int32),
        "demo": np.zeros(B, np.bool_),
        "image": np.zeros((HORIZON + 1, B, image_dim), np.float32),
    }
    low = 0
    for group in response.groups:
        n = group.reward.shape[0]
        for name in ("obs", "action", "image"):
            if group.HasField(name):
                value = decode(getattr(group, name), name, dtype="f4", shape=[n, None, None])
                found[name][:, low : low + n, : value.shape[2]] = value.swapaxes(0, 1)
        found["reward"][:, low : low + n] = decode(group.reward, "reward", dtype="f4", shape=[n, HORIZON]).T
        if group.HasField("terminated"):
            found["terminated"][:, low : low + n] = decode(group.terminated, "", dtype="?", shape=[n, HORIZON]).T
        found["task"][low : low + n] = group.task_index
        found["demo"][low : low + group.demo_count] = True
        low += n
    return found


def same_bits(got: np.ndarray | None, want: np.ndarray) -> None:
    assert got is not None
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize("image_dim", [0, 5])
def test_packed_and_grouped_replies_are_what_the_groups_say(image_dim: int) -> None:
    sequences = drawn(list(range(len(DIMS))), image_dim=image_dim)
    want = by_hand(grouped(sequences), image_dim)
    assert want["terminated"].any()
    assert want["demo"].sum() == B // 3
    assert (np.signbit(want["obs"]) & (want["obs"] == 0)).any()
    for got in (batch(packed(sequences)), batch(grouped(sequences))):
        for name in FIELDS if image_dim else FIELDS[:-1]:
            same_bits(getattr(got, name), want[name])
        assert image_dim or got.image is None


@pytest.mark.parametrize("image_dim", [0, 5])
def test_a_device_pads_to_the_same_bits(image_dim: int) -> None:
    sequences = drawn(list(range(len(DIMS))), image_dim=image_dim)
    want, received, cpu = by_hand(grouped(sequences), image_dim), batch(packed(sequences)), torch.device("cpu")
    got, there = update_batch(received, cpu), padded_there(received, cpu)  # the latter is what GPUs do
    for name, value in (*zip(("obs", "action", "reward"), there, strict=True), *vars(got).items()):
        if name not in ("task", "image"):
            assert value.is_contiguous()
            same_bits(value.numpy(), want[name])
    same_bits(got.task.numpy(), want["task"].astype(np.int64))
    if image_dim:
        assert got.image is not None
        same_bits(got.image.numpy(), want["image"])


def test_parts_of_shards_are_put_together_by_task() -> None:
    """Also where one service is of a version that knows no packed replies."""
    even, odd, none = drawn([0, 2, 4, 6], 200, seed=1), drawn([1, 3, 5], 100, seed=2), drawn([], 0)
    both = replay_pb2.SampleResponse(groups=sorted([*even.groups(), *odd.groups()], key=lambda group: group.task_index))
    want = by_hand(both)
    for parts in (
        (packed(even), packed(none), packed(odd)),
        (packed(odd), packed(even)),
        (grouped(even), packed(odd), grouped(none)),
    ):
        got = batch(*parts)
        for name in FIELDS[:-1]:
            same_bits(getattr(got, name), want[name])


def test_a_batch_of_one_sequence() -> None:
    sequences = drawn([1], 1)
    got = batch(packed(sequences), count=1)
    rows = np.frombuffer(sequences.rows, np.float32)[:-128].reshape(HORIZON + 1, 145)
    same_bits(got.obs[:, 0], np.ascontiguousarray(rows[:, :128]))
    same_bits(got.action[:, 0], np.ascontiguousarray(rows[:-1, 128:144]))
    same_bits(got.reward[:, 0], np.ascontiguousarray(rows[:-1, 144]))


@pytest.mark.parametrize(
    ("column", "value", "field"),
    [(1, 301, "packed.rows"), (1, -1, "packed.tasks"), (3, 129, "packed.tasks"), (4, 17, "packed.tasks")],
)
def test_a_reply_that_contradicts_itself_is_refused(column: int, value: int, field: str) -> None:
    response = packed(drawn([2]))
    tasks = decode(response.packed.tasks, "", dtype="i4", shape=[1, 5]).copy()
    tasks[0, column] = value
    response.packed.tasks.CopyFrom(encode(tasks))
    with pytest.raises(InvalidInputError) as caught:
        read([response], HORIZON)
    assert caught.value.field == field


def test_a_batch_of_another_size_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="got 300 sequences, expected 299"):
        batch(packed(drawn([2])), count=299)
