"""Image features of two encoders never meet in one buffer."""

import numpy as np
import pytest
from replay_episodes import make_buffer, numbered, take
from replay_stack import serving

from newt.client.replay import ReplayClient
from newt.errors import InvalidInputError, PreconditionError
from newt.local.redis_server import RedisServer

IMAGE = np.ones((9, 4), np.float32)


def test_encoders_do_not_mix(client: ReplayClient) -> None:
    client.append(numbered(1, 8, image=IMAGE, image_encoder="dino@1"), demo_set="d", timeout_s=5)
    with pytest.raises(InvalidInputError, match=r"dino@2.*expected 'dino@1'"):
        client.append(numbered(2, 8, image=IMAGE, image_encoder="dino@2"), demo_set="d", timeout_s=5)
    with pytest.raises(PreconditionError, match=r"features of 'dino@1'.*of 'dino@2'"):
        make_buffer(client, demo_sets=["d"], image_dim=4, image_encoder="dino@2")
    make_buffer(client, demo_sets=["d"], image_dim=4, image_encoder="dino@1")
    with pytest.raises(InvalidInputError, match="dino@2"):
        client.append(numbered(3, 8, image=IMAGE, image_encoder="dino@2"), buffer_id="run", timeout_s=5)
    with pytest.raises(PreconditionError, match="image_encoder"):
        make_buffer(client, demo_sets=["d"], image_dim=4, image_encoder="dino@3")
    assert client.get_buffer("run").config.image_encoder == "dino@1"
    (batch,) = take(client, demo_fraction=1.0)
    assert batch.image is not None


def test_features_of_unknown_origin_are_taken_on_trust(client: ReplayClient) -> None:
    client.append(numbered(1, 8, image=IMAGE), demo_set="d", timeout_s=5)
    make_buffer(client, demo_sets=["d"], image_dim=4, image_encoder="dino@1")
    assert client.get_buffer("run").demo_rows == 9


def test_a_name_needs_features(client: ReplayClient) -> None:
    with pytest.raises(InvalidInputError, match="no image features"):
        client.append(numbered(1, 8, image_encoder="dino@1"), demo_set="d", timeout_s=5)
    with pytest.raises(InvalidInputError, match="at most 128"):
        client.append(numbered(1, 8, image=IMAGE, image_encoder="x" * 129), demo_set="d", timeout_s=5)
    with pytest.raises(InvalidInputError, match="no image features"):
        make_buffer(client, image_encoder="dino@1")


def test_the_encoder_survives_a_restart(redis: RedisServer) -> None:
    with serving(redis) as service, ReplayClient(service.server.address) as client:
        client.append(numbered(1, 8, image=IMAGE, image_encoder="dino@1"), demo_set="d", timeout_s=5)
    with serving(redis) as service, ReplayClient(service.server.address) as client:
        (held,) = client.list_demo_sets("d")
        assert [(task.image_dim, task.image_encoder) for task in held.tasks] == [(4, "dino@1")]
        (episode,) = client.read_episodes(demo_set="d")
        assert episode.image_encoder == "dino@1"
        np.testing.assert_array_equal(episode.image, IMAGE)
