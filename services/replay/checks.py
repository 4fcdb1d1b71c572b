"""Checks of requests: each bad one gets one error that names the field, before anything is touched."""

from __future__ import annotations

import math

from newt.errors import InvalidInputError
from newt.wire.episodes import Episode
from newt.wire.limits import (
    EPISODE_ID,
    MAX_BATCH_BYTES,
    MAX_CAPACITY_ROWS,
    MAX_COUNT,
    MAX_ENCODER_NAME,
    MAX_HORIZON,
    MAX_IMAGE_DIM,
    MAX_RATIO,
    MAX_SHARDS,
    NAME,
    PADDED_ACTION_DIM,
    PADDED_OBS_DIM,
    batch_bytes,
)
from newt.wire.tensors import decode
from newt.wire.v1 import replay_pb2


def check_name(field: str, value: str) -> None:
    """Refuses ids of buffers, demo sets and tasks that are no plain names."""
    if not NAME.fullmatch(value):
        raise InvalidInputError(field, f"got {value[:140]!r}, expected 1-128 characters of [A-Za-z0-9._-]")


def check_config(request: replay_pb2.CreateBufferRequest) -> None:
    """Refuses a buffer's configuration that can never work."""
    check_name("buffer_id", request.buffer_id)
    if not request.tasks:
        raise InvalidInputError("tasks", "got none, expected at least one task")
    seen = set()
    for i, dims in enumerate(request.tasks):
        check_name(f"tasks[{i}].task", dims.task)
        _check_range(f"tasks[{i}].obs_dim", dims.obs_dim, 1, PADDED_OBS_DIM)
        _check_range(f"tasks[{i}].action_dim", dims.action_dim, 1, PADDED_ACTION_DIM)
        if dims.task in seen:
            raise InvalidInputError(f"tasks[{i}].task", f"got {dims.task!r} twice, expected different tasks")
        seen.add(dims.task)
    _check_range("capacity_rows", request.capacity_rows, 2, MAX_CAPACITY_ROWS)
    limiter = request.limiter
    ratio = limiter.updates_per_env_step
    if not 0 < ratio <= MAX_RATIO:  # not NaN either
        raise InvalidInputError(
            "limiter.updates_per_env_step", f"got {ratio}, expected a positive number, at most {MAX_RATIO:g}"
        )
    _check_range("limiter.start_env_steps", limiter.start_env_steps, 0, MAX_COUNT)
    _check_range("limiter.max_lead_updates", limiter.max_lead_updates, 0, MAX_COUNT)
    _check_range("limiter.all_tasks_until_env_steps", limiter.all_tasks_until_env_steps, 0, MAX_COUNT)
    for i, name in enumerate(request.demo_sets):
        check_name(f"demo_sets[{i}]", name)
    if len(set(request.demo_sets)) < len(request.demo_sets):
        raise InvalidInputError("demo_sets", "got a name twice, expected different sets")
    _check_range("image_dim", request.image_dim, 0, MAX_IMAGE_DIM)
    _check_encoder_name("image_encoder", request.image_encoder, bool(request.image_dim))
    if request.HasField("placement"):
        _check_placement(request.placement, len(request.tasks))


def _check_placement(placement: replay_pb2.Placement, tasks: int) -> None:
    _check_range("placement.shards", placement.shards, 1, MAX_SHARDS)
    _check_range("placement.shard", placement.shard, 0, placement.shards - 1)
    if len(placement.task_shards) != tasks:
        raise InvalidInputError(
            "placement.task_shards", f"got {len(placement.task_shards)}, expected one for each of {tasks} tasks"
        )
    for i, shard in enumerate(placement.task_shards):
        _check_range(f"placement.task_shards[{i}]", shard, 0, placement.shards - 1)


def check_episode(
    message: replay_pb2.Episode, obs_dim: int | None, action_dim: int | None, image_dim: int | None
) -> Episode:
    """Reads an episode from the wire.

    Args:
        message: As received.
        obs_dim: Required valid columns; None accepts any that the conventions allow.
        action_dim: The same.
        image_dim: The same; 0 for no images.

    Returns:
        The episode; its arrays are views of the message.

    Raises:
        InvalidInputError: Names the field.
    """
    if not EPISODE_ID.fullmatch(message.episode_id):
        raise InvalidInputError(
            "episode.episode_id", f"got {message.episode_id[:140]!r}, expected 1-128 characters of [A-Za-z0-9._:/-]"
        )
    check_name("episode.task", message.task)
    reward = decode(message.reward, "episode.reward", dtype="f4", shape=[None], finite=True)
    T = len(reward)
    if T < 1:
        raise InvalidInputError("episode.reward", "got 0 transitions, expected at least 1")
    obs = decode(message.obs, "episode.obs", dtype="f4", shape=[T + 1, obs_dim], finite=True)
    action = decode(message.action, "episode.action", dtype="f4", shape=[T, action_dim], finite=True)
    _check_range("episode.obs columns", obs.shape[1], 1, PADDED_OBS_DIM)
    _check_range("episode.action columns", action.shape[1], 1, PADDED_ACTION_DIM)
    image = None
    if message.HasField("image"):
        if image_dim == 0:
            raise InvalidInputError("episode.image", "got image features, expected none: the target is state-only")
        image = decode(message.image, "episode.image", dtype="f4", shape=[T + 1, image_dim], finite=True)
        _check_range("episode.image columns", image.shape[1], 1, MAX_IMAGE_DIM)
    elif image_dim:
        raise InvalidInputError("episode.image", f"got none, expected float32[{T + 1}, {image_dim}]")
    _check_encoder_name("episode.image_encoder", message.image_encoder, image is not None)
    if not math.isfinite(message.score):
        raise InvalidInputError("episode.score", f"got {message.score}, expected a finite number")
    if math.isinf(message.success):
        raise InvalidInputError("episode.success", f"got {message.success}, expected a number, or NaN if undefined")
    if message.behaviour not in replay_pb2.Behaviour.values():
        raise InvalidInputError("episode.behaviour", f"got {message.behaviour}, expected a value of Behaviour")
    if message.min_weights_version > message.max_weights_version:
        raise InvalidInputError(
            "episode.min_weights_version",
            f"got {message.min_weights_version}, expected at most max_weights_version {message.max_weights_version}",
        )
    return Episode(
        episode_id=message.episode_id,
        task=message.task,
        obs=obs,
        action=action,
        reward=reward,
        image=image,
        terminated=message.terminated,
        success=message.success,
        score=message.score,
        behaviour=message.behaviour,
        weights_versions=(message.min_weights_version, message.max_weights_version),
        seed=message.seed,
        image_encoder=message.image_encoder,
    )


def encoders_differ(one: str, other: str) -> bool:
    """Whether features of two encoders must not meet; an unknown one is taken on trust."""
    return bool(one and other) and one != other


def check_sample(request: replay_pb2.SampleRequest, config: replay_pb2.CreateBufferRequest) -> None:
    """Refuses a sample request that can never be answered."""
    _check_range("horizon", request.horizon, 1, MAX_HORIZON)
    columns = max(dims.obs_dim + dims.action_dim for dims in config.tasks) + config.image_dim
    most = MAX_BATCH_BYTES // batch_bytes(1, request.horizon, columns)
    part = request.HasField("part")
    if not part and config.placement.shards > 1:
        raise InvalidInputError(
            "part",
            f"got none, expected one: the buffer is spread over {config.placement.shards} replay services; name all",
        )
    _check_range("batch_size", request.batch_size, 0 if part else 1, most)
    if part and request.part.demos + request.part.online != request.batch_size:
        raise InvalidInputError(
            "part",
            f"got {request.part.demos} and {request.part.online} sequences, expected batch_size {request.batch_size}",
        )
    if not 0 <= request.demo_fraction <= 1:
        raise InvalidInputError("demo_fraction", f"got {request.demo_fraction}, expected a number in [0, 1]")
    _check_update(request)


def check_await_sample(request: replay_pb2.AwaitSampleRequest) -> None:
    """Refuses a request that can never be answered."""
    _check_range("horizon", request.horizon, 1, MAX_HORIZON)
    _check_update(request)


def _check_update(request: replay_pb2.SampleRequest | replay_pb2.AwaitSampleRequest) -> None:
    if request.HasField("online_update"):
        _check_range("online_update", request.online_update, 0, MAX_COUNT)
    check_count("env_steps_elsewhere", request.env_steps_elsewhere)
    if request.sampler not in replay_pb2.Sampler.values():
        raise InvalidInputError("sampler", f"got {request.sampler}, expected a value of Sampler")


def _check_encoder_name(field: str, name: str, with_images: bool) -> None:
    if len(name.encode()) > MAX_ENCODER_NAME:
        raise InvalidInputError(field, f"got {len(name.encode())} bytes, expected at most {MAX_ENCODER_NAME}")
    if name and not with_images:
        raise InvalidInputError(field, f"got {name!r}, but there are no image features; leave it empty")


def _check_range(field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidInputError(field, f"got {value}, expected {low} to {high}")


def check_count(field: str, value: int) -> None:
    """Refuses a counter that doubles cannot hold."""
    _check_range(field, value, 0, MAX_COUNT)
