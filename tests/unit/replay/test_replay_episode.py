"""The stored form of an episode."""

import dataclasses
import math

import numpy as np
import pytest
from numbered_episodes import numbered

from newt.errors import CorruptDataError, InvalidInputError
from newt.wire.episodes import Episode
from services.replay.checks import check_episode
from services.replay.episode import pack, unpack


@pytest.mark.parametrize("image_dim", [0, 3])
@pytest.mark.parametrize("transitions", [1, 7])
def test_round_trip(transitions: int, image_dim: int) -> None:
    episode = dataclasses.replace(
        numbered(3, transitions, terminated=True, image_dim=image_dim),
        success=1.0,
        seed=2**64 - 1,
        task="walker-walk",
        image_encoder="dinov2-768@0123456789ab" if image_dim else "",
    )
    packed = pack(episode)
    back = unpack(packed)
    for field in dataclasses.fields(Episode):
        np.testing.assert_array_equal(getattr(back, field.name), getattr(episode, field.name), err_msg=field.name)
    assert pack(check_episode(back.to_proto(), 2, 2, image_dim)) == packed


def test_undefined_success_stays_undefined() -> None:
    assert math.isnan(unpack(pack(numbered(0, 2))).success)


@pytest.mark.parametrize("damage", [lambda b: b[:-4], lambda b: b + b"\0", lambda b: b"XXXX" + b[4:], lambda b: b""])
def test_damaged_bytes_are_refused(damage) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(CorruptDataError):
        unpack(damage(pack(numbered(0, 5))))


def test_a_flipped_bit_is_noticed() -> None:
    data = bytearray(pack(numbered(0, 5)))
    data[100] ^= 1
    with pytest.raises(CorruptDataError, match="checksum"):
        unpack(bytes(data))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"episode_id": ""}, "episode.episode_id"),
        ({"episode_id": "a b"}, "episode.episode_id"),
        ({"episode_id": "x" * 129}, "episode.episode_id"),
        ({"task": "two words"}, "episode.task"),
        ({"score": math.nan}, "episode.score"),
        ({"success": math.inf}, "episode.success"),
        ({"weights_versions": (5, 4)}, "episode.min_weights_version"),
        ({"reward": np.zeros(0, np.float32), "action": np.zeros((0, 2), np.float32)}, "episode.reward"),
        ({"reward": np.full(5, np.nan, np.float32)}, "episode.reward"),
        ({"obs": np.full((6, 2), np.inf, np.float32)}, "episode.obs"),
        ({"obs": np.zeros((5, 2), np.float32)}, "episode.obs"),
        ({"obs": np.zeros((6, 3), np.float32)}, "episode.obs"),
        ({"action": np.zeros((6, 2), np.float32)}, "episode.action"),
        ({"action": np.zeros((5, 1), np.float32)}, "episode.action"),
        ({"image": np.zeros((6, 4), np.float32)}, "episode.image"),
    ],
)
def test_bad_episodes_name_the_field(change: dict[str, object], field: str) -> None:
    message = dataclasses.replace(numbered(0, 5), **change).to_proto()  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError) as caught:
        check_episode(message, 2, 2, 0)
    assert caught.value.field == field


def test_wrong_dtype_and_missing_tensors_are_refused() -> None:
    message = numbered(0, 5).to_proto()
    message.obs.dtype = 2
    with pytest.raises(InvalidInputError, match="dtype"):
        check_episode(message, 2, 2, 0)
    message = numbered(0, 5).to_proto()
    message.ClearField("action")
    with pytest.raises(InvalidInputError, match="missing"):
        check_episode(message, 2, 2, 0)
    message = numbered(0, 5).to_proto()
    message.behaviour = 99
    with pytest.raises(InvalidInputError, match="Behaviour"):
        check_episode(message, 2, 2, 0)
    with pytest.raises(InvalidInputError, match=r"float32\[6, 8\]"):
        check_episode(numbered(0, 5).to_proto(), 2, 2, 8)
