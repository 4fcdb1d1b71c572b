"""Published demonstration files, `{task}.pt`: a pickled tensordict with the rows of all episodes.

| Key | Type | |
|---|---|---|
| `obs` | float32[R, 128] | zero-padded |
| `action` | float32[R, 16] | that *led to* the row; NaN in an episode's first row; zero-padded otherwise |
| `reward` | float32[R] | as the action |
| `terminated` | bool[R] | as the action |
| `episode` | int64[R] | 0, 0, ..., 1, 1, ...: T+1 rows each |
| `feat` | float32[R, 768] | optional image features |

Other keys (`value`, `feat-stacked`) are ignored. Success and score are not part of the format: success is read
as NaN, the score as 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from newt.errors import InvalidInputError
from newt.official import pickled
from newt.official.layout import IMAGE_DIM
from newt.official.pickled import PickledTensorDict
from newt.tasks.registry import Task
from newt.wire.episodes import Behaviour, Episode
from newt.wire.limits import PADDED_ACTION_DIM, PADDED_OBS_DIM

MANISKILL_EPISODES = 20  # the published runs use no more of a ManiSkill task's demonstrations

_REQUIRED: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
    "obs": (torch.float32, (PADDED_OBS_DIM,)),
    "action": (torch.float32, (PADDED_ACTION_DIM,)),
    "reward": (torch.float32, ()),
    "terminated": (torch.bool, ()),
    "episode": (torch.int64, ()),
}
_IMAGE = "feat"

Array = npt.NDArray[Any]


def read_demos(
    path: Path | str, task: Task, *, images: bool = True, maniskill_limit: int | None = MANISKILL_EPISODES
) -> list[Episode]:
    """Reads a task's published demonstrations.

    Args:
        path: The file.
        task: Task of the episodes; the file does not say.
        images: Keep image features, if the file has them.
        maniskill_limit: Most episodes to take of a ManiSkill task; None for all.

    Returns:
        The episodes in the file's order, valid dimensions only. Reading the same file again gives the same episode
        ids, so that importing it twice stores nothing twice.

    Raises:
        NotFoundError: No such file.
        CorruptDataError: The file is damaged.
        InvalidInputError: Not a demonstration file, or one of another task; says what was expected and found.
    """
    source = str(path)
    columns = _columns(pickled.load(path, tensordict=True), images, source)
    obs, action, reward, terminated = (columns[name] for name in ("obs", "action", "reward", "terminated"))
    starts, ends = _bounds(columns["episode"], source)
    first = np.zeros(len(obs), np.bool_)
    first[starts] = True
    if not (np.isnan(action[first]).all() and np.isnan(reward[first]).all()):
        raise InvalidInputError(source, "expected NaN as action and reward in the first row of every episode")
    led_by = np.where(first[:, None], 0, action)
    for name, rows, valid in (("obs", obs, task.obs_dim), ("action", led_by, task.action_dim)):
        _check_rows(name, rows, valid, task.name, source)
    for name, rows in (("reward", reward[~first]), *((n, columns[n]) for n in columns if n == _IMAGE)):
        if not np.isfinite(rows).all():
            raise InvalidInputError(source, f"{name}: expected finite numbers, got NaN or infinity")
    if terminated[np.setdiff1d(np.arange(len(obs)), ends - 1)].any():
        raise InvalidInputError(source, "terminated: expected true in the last row of an episode at most")
    image = columns.get(_IMAGE)
    episodes: list[Episode] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if maniskill_limit is not None and task.domain == "maniskill" and len(episodes) == maniskill_limit:
            break
        parts = (obs[start:end, : task.obs_dim], action[start + 1 : end, : task.action_dim], reward[start + 1 : end])
        own_obs, own_action, own_reward = (np.ascontiguousarray(part) for part in parts)
        digest = hashlib.sha256(own_obs.tobytes() + own_action.tobytes() + own_reward.tobytes()).hexdigest()
        episodes.append(
            Episode(
                episode_id=f"official/{task.name}/{len(episodes)}-{digest[:16]}",
                task=task.name,
                obs=own_obs,
                action=own_action,
                reward=own_reward,
                terminated=bool(terminated[end - 1]),
                behaviour=Behaviour.EXPERT,
                image=None if image is None else np.ascontiguousarray(image[start:end]),
            )
        )
    return episodes


def write_demos(path: Path | str, episodes: Sequence[Episode]) -> None:
    """Writes episodes of one task as a published demonstration file, all of it or nothing.

    Args:
        path: File to create or replace.
        episodes: The episodes, at least one; all with image features or none.

    Raises:
        InvalidInputError: No episodes, several tasks, different widths, or numbers that are not finite.
        OSError: The file cannot be written.
    """
    widths = {
        (e.task, e.obs.shape[1], e.action.shape[1], None if e.image is None else e.image.shape[1]) for e in episodes
    }
    if len(widths) != 1:
        raise InvalidInputError(
            "episodes",
            "expected at least one, all of one task and equal widths (obs, action, image); "
            f"got {len(episodes)} of {sorted(widths, key=str)[:3]}",
        )
    _, obs_dim, action_dim, image_dim = widths.pop()
    if obs_dim > PADDED_OBS_DIM or action_dim > PADDED_ACTION_DIM or image_dim not in (None, IMAGE_DIM):
        raise InvalidInputError(
            "episodes",
            f"expected at most {PADDED_OBS_DIM} obs and {PADDED_ACTION_DIM} action entries and {IMAGE_DIM} image "
            f"features or none, got {obs_dim}, {action_dim} and {image_dim}",
        )
    lengths = [len(episode.reward) for episode in episodes]
    rows = sum(lengths) + len(lengths)
    columns: dict[str, Array] = {
        "obs": np.zeros((rows, PADDED_OBS_DIM), np.float32),
        "action": np.zeros((rows, PADDED_ACTION_DIM), np.float32),
        "reward": np.empty(rows, np.float32),
        "terminated": np.zeros(rows, np.bool_),
        "episode": np.empty(rows, np.int64),
    }
    if image_dim:
        columns[_IMAGE] = np.empty((rows, image_dim), np.float32)
    start = 0
    for number, (episode, T) in enumerate(zip(episodes, lengths, strict=True)):
        _check_episode(episode, T)
        end = start + T + 1
        columns["obs"][start:end, :obs_dim] = episode.obs
        columns["action"][start] = columns["reward"][start] = np.nan
        columns["action"][start + 1 : end, :action_dim] = episode.action
        columns["reward"][start + 1 : end] = episode.reward
        columns["terminated"][end - 1] = episode.terminated
        columns["episode"][start:end] = number
        if episode.image is not None:
            columns[_IMAGE][start:end] = episode.image
        start = end
    state = {
        "_has_mps_val": False,
        "_device": torch.device("cpu"),
        "_tensordict": {name: torch.from_numpy(column) for name, column in columns.items()},
        "_batch_size": torch.Size([rows]),
        "_td_dim_names": None,
    }
    pickled.save(path, PickledTensorDict(state))


def _columns(content: Any, images: bool, source: str) -> dict[str, Array]:
    """Checks the file's outer form and the columns' types; returns those that are needed."""
    if not isinstance(content, PickledTensorDict):
        raise InvalidInputError(
            source, f"expected a demonstration file (a pickled tensordict), got a {type(content).__name__}"
        )
    tensors = content.state.get("_tensordict")
    rows = tuple(content.state.get("_batch_size") or ())
    if not isinstance(tensors, Mapping) or len(rows) != 1 or rows[0] < 2:
        raise InvalidInputError(source, f"expected a tensordict of one batch axis and at least 2 rows, got {rows}")
    expected = dict(_REQUIRED)
    if images and _IMAGE in tensors:
        expected[_IMAGE] = (torch.float32, (IMAGE_DIM,))
    columns = {}
    for name, (dtype, width) in expected.items():
        tensor = tensors.get(name)
        shape = (rows[0], *width)
        if not isinstance(tensor, Tensor) or tensor.dtype != dtype or tuple(tensor.shape) != shape:
            got = f"{tensor.dtype}{list(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
            raise InvalidInputError(
                source,
                f"{name}: expected {dtype}{list(shape)}, got {'nothing' if tensor is None else got}; "
                f"the file has {', '.join(map(str, tensors))}",
            )
        columns[name] = tensor.numpy()
    return columns


def _bounds(ids: Array, source: str) -> tuple[Array, Array]:
    """Returns first rows of the episodes, and the rows behind their last."""
    steps = np.diff(ids)
    starts = np.concatenate([[0], np.flatnonzero(steps) + 1])
    ends = np.append(starts[1:], len(ids))
    if ids[0] != 0 or not np.isin(steps, (0, 1)).all() or (ends - starts).min() < 2:
        raise InvalidInputError(
            source, "episode: expected ids 0, 1, 2, ... in this order, each on at least 2 consecutive rows"
        )
    return starts, ends


def _check_rows(name: str, rows: Array, valid: int, task: str, source: str) -> None:
    if not np.isfinite(rows).all():
        raise InvalidInputError(source, f"{name}: expected finite numbers, got NaN or infinity")
    used = np.flatnonzero(rows.any(0))
    if len(used) and used[-1] >= valid:
        raise InvalidInputError(
            source,
            f"{name}: expected zeros behind the {valid} entries of {task}, got numbers up to entry {used[-1] + 1}: "
            "is this another task's file?",
        )


def _check_episode(episode: Episode, T: int) -> None:
    image = episode.image
    shapes = episode.obs.shape[0], episode.action.shape[0], T + 1 if image is None else image.shape[0]
    arrays = [array for array in (episode.obs, episode.action, episode.reward, image) if array is not None]
    if T < 1 or shapes != (T + 1, T, T + 1) or not all(np.isfinite(array).all() for array in arrays):
        raise InvalidInputError(
            f"episode {episode.episode_id}",
            f"expected T+1 observations, T actions and rewards, T >= 1, all finite; got {shapes[0]}, {shapes[1]}, {T}",
        )
