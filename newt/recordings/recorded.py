"""One recorded episode: what a file says, and how that becomes an episode of ours.

Letters: T transitions, O observation columns, A action columns.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from newt.errors import InvalidInputError
from newt.recordings.mapping import ActionBounds, Columns
from newt.wire.episodes import Behaviour, Episode, Floats
from newt.wire.limits import EPISODE_ID, MAX_ENCODER_NAME, MAX_IMAGE_DIM, MAX_MESSAGE_BYTES

Array = npt.NDArray[Any]

_MAX_EPISODE_BYTES = MAX_MESSAGE_BYTES * 9 // 10  # What frames an episode takes the rest of a message.
_ACTION_SLACK = 1e-5  # What rounding to float32 may add to a bound.


class TaskShape(NamedTuple):
    """What must be known of a task to read its recordings."""

    name: str
    obs_dim: int
    action_dim: int


class Facts(NamedTuple):
    """What our own exports tell of an episode beside its steps; defaults are what other recordings mean."""

    episode_id: str = ""
    success: float = math.nan
    score: float = 0.0
    behaviour: int | None = None
    weights_versions: tuple[int, int] = (0, 0)
    seed: int = 0
    image_encoder: str = ""

    @staticmethod
    def of(episode: Episode) -> Facts:
        """Those of an episode."""
        return Facts(
            episode.episode_id,
            episode.success,
            episode.score,
            int(episode.behaviour),
            episode.weights_versions,
            episode.seed,
            episode.image_encoder,
        )

    def to_json(self) -> str:
        """One line; an undefined success is null."""
        return json.dumps({**self._asdict(), "success": None if math.isnan(self.success) else self.success})

    @staticmethod
    def from_json(text: str) -> Facts:
        """Inverse of `to_json`. Raises ValueError or TypeError for a text that it has not written."""
        raw = json.loads(text)
        success = raw.pop("success")
        low, high = raw.pop("weights_versions")
        return Facts(**raw, success=math.nan if success is None else success, weights_versions=(low, high))


@dataclass(frozen=True, eq=False)
class Recorded:
    """An episode as a file has it.

    Attributes:
        where: The episode's name in messages.
        obs: [T+1 or T, ...].
        last_obs: [...], what the last action led to, where `obs` has T rows; None: the file does not tell.
        action: [T, ...].
        reward: [T].
        terminated: Whether the last step ended the task itself.
        task: The task's name in the file, if it tells.
        facts: What our own exports tell.
        image: float32[T+1, X] features.
    """

    where: str
    obs: Array
    last_obs: Array | None
    action: Array
    reward: Array
    terminated: bool
    task: str | None = None
    facts: Facts = field(default_factory=Facts)
    image: Floats | None = None


class Reader(Protocol):
    """A recording. Reading it again begins anew."""

    source: str
    bounds: ActionBounds | None
    """What the recording says of its actions."""

    def episodes(self, columns: Columns) -> Iterator[Recorded]:
        """The episodes in their order, one in memory at a time.

        Raises:
            InvalidInputError: Something is missing or makes no sense; names the file and the column.
            CorruptDataError: The file is damaged or cut off.
        """
        ...


def to_episode(
    recorded: Recorded, number: int, task: TaskShape, bounds: ActionBounds | None, source: str, remedy: str
) -> Episode:
    """Checks an episode and gives it the form that replay stores.

    Args:
        recorded: As read.
        number: Its position in the file: part of its id, if it brings none.
        task: Its task.
        bounds: What its actions lie between; None: [-1, 1].
        source: The file, for messages.
        remedy: How to name other columns.

    Returns:
        The episode. Where the file does not say what the last action led to, that transition is left out.

    Raises:
        InvalidInputError: Names the file, the episode and the column.
    """

    def wrong(name: str, message: str) -> InvalidInputError:
        return InvalidInputError(source, f"{recorded.where}: {name}: {message}")

    def finite(name: str, values: Array, width: int | None) -> Floats:
        if values.dtype.kind not in "fiub":
            raise wrong(name, f"got {values.dtype}, expected numbers; {remedy}")
        rows = values.reshape(len(values), -1) if width is not None else values
        if width is not None and rows.shape[1] != width:
            raise wrong(
                name,
                f"got {rows.shape[1]} columns, expected {width} of {task.name}; {remedy}, or another task with --task",
            )
        with np.errstate(over="ignore"):  # Becomes infinite, which is refused.
            numbers = np.ascontiguousarray(rows, np.float32)
        bad = np.argwhere(~np.isfinite(numbers))
        if len(bad):
            place = f"step {bad[0][0]}" + (f", column {bad[0][1]}" if width is not None else "")
            raise wrong(name, f"got {rows[tuple(bad[0])]} in {place}, expected finite numbers; leave the episode out")
        return numbers

    T = len(recorded.action)
    if recorded.reward.shape not in ((T,), (T, 1)):
        raise wrong("reward", f"got {_shape(recorded.reward)}, expected one number for each of {T} actions; {remedy}")
    obs, action, reward, terminated = recorded.obs, recorded.action, recorded.reward.reshape(-1), recorded.terminated
    if len(obs) == T and T > 0:
        if recorded.last_obs is not None:
            if recorded.last_obs.size * T != obs.size:
                raise wrong("next_obs", f"got {_shape(recorded.last_obs)}, expected {_shape(obs[0])} as obs has")
            obs = np.concatenate([obs, recorded.last_obs.reshape(1, *obs.shape[1:])])
        else:
            action, reward, terminated = action[:-1], reward[:-1], False
    elif len(obs) != T + 1:
        raise wrong("obs", f"got {len(obs)} rows for {T} actions, expected {T}, or {T + 1} with the last one; {remedy}")
    if not len(action):
        raise wrong("action", "got an episode without a transition, expected one at least; leave it out")
    led_by = _one_hot(action, task, wrong) if _is_choice(action, task.action_dim) else action
    actions = _rescaled(finite("action", led_by, task.action_dim), bounds, wrong)
    observations, rewards = finite("obs", obs, task.obs_dim), finite("reward", reward, None)
    image = None if recorded.image is None else finite("image", recorded.image, recorded.image.shape[-1])
    if image is not None and len(image) != len(observations):
        raise wrong("image", f"got {len(image)} rows of features, expected {len(observations)}")
    if image is not None and not 1 <= image.shape[1] <= MAX_IMAGE_DIM:
        raise wrong("image", f"got {image.shape[1]} features, expected 1 to {MAX_IMAGE_DIM}")
    facts = recorded.facts
    for name, problem in problems_of_facts(facts, image is not None):
        raise wrong(name, problem)
    size = 4 * (observations.size + actions.size + rewards.size + (0 if image is None else image.size))
    if size > _MAX_EPISODE_BYTES:
        raise wrong("obs", f"got an episode of {size:,} bytes, expected at most {_MAX_EPISODE_BYTES:,}; cut it in two")
    digest = hashlib.sha256(observations.tobytes() + actions.tobytes() + rewards.tobytes()).hexdigest()
    return Episode(
        episode_id=facts.episode_id or f"recorded/{task.name[:80]}/{number}-{digest[:16]}",
        task=task.name,
        obs=observations,
        action=actions,
        reward=rewards,
        terminated=terminated,
        success=facts.success,
        score=facts.score,
        behaviour=Behaviour.UNSPECIFIED if facts.behaviour is None else facts.behaviour,
        weights_versions=facts.weights_versions,
        seed=facts.seed,
        image=image,
        image_encoder=facts.image_encoder,
    )


def problems_of_facts(facts: Facts, with_images: bool) -> Iterator[tuple[str, str]]:
    """What replay would refuse of an export that somebody has changed: names and reasons."""
    if facts.episode_id and not EPISODE_ID.fullmatch(facts.episode_id):
        yield "episode_id", f"got {facts.episode_id[:140]!r}, expected 1-128 characters of [A-Za-z0-9._:/-]"
    if math.isinf(facts.success):
        yield "success", f"got {facts.success}, expected 0, 1 or NaN"
    if not math.isfinite(facts.score):
        yield "score", f"got {facts.score}, expected a finite number"
    if facts.behaviour is not None and facts.behaviour not in set(Behaviour):
        yield "behaviour", f"got {facts.behaviour}, expected one of {', '.join(f'{b:d} ({b.name})' for b in Behaviour)}"
    low, high = facts.weights_versions
    if not 0 <= low <= high < 2**64:
        yield "weights_versions", f"got {low} and {high}, expected the lowest and the highest"
    if not 0 <= facts.seed < 2**64:
        yield "seed", f"got {facts.seed}, expected 0 to 2^64-1"
    if len(facts.image_encoder.encode()) > MAX_ENCODER_NAME or (facts.image_encoder and not with_images):
        yield (
            "image_encoder",
            f"got {facts.image_encoder[:140]!r}, expected at most {MAX_ENCODER_NAME} bytes, with features",
        )


def _is_choice(action: Array, columns: int) -> bool:
    """Whether the actions are numbers of choices, for a task that takes the largest of its columns."""
    return action.dtype.kind in "iu" and action.size == len(action) and columns > 1


def _one_hot(action: Array, task: TaskShape, wrong: Any) -> Array:
    chosen = action.reshape(-1)
    outside = chosen[(chosen < 0) | (chosen >= task.action_dim)]
    if len(outside):
        raise wrong("action", f"got choice {outside[0]}, expected 0 to {task.action_dim - 1} of {task.name}")
    return np.where(chosen[:, None] == np.arange(task.action_dim), np.float32(1), np.float32(-1))


def _rescaled(action: Floats, bounds: ActionBounds | None, wrong: Any) -> Floats:
    if bounds is not None:
        low, high = (np.asarray(side, np.float64) for side in (bounds.low, bounds.high))
        if low.size not in (1, action.shape[1]) or high.size not in (1, action.shape[1]):
            raise wrong("action", f"got bounds of {low.size} and {high.size} columns, expected 1 or {action.shape[1]}")
        if (low != -1).any() or (high != 1).any():
            action = ((action - low) / (high - low) * 2 - 1).astype(np.float32)
    over = np.argwhere(np.abs(action) > 1 + _ACTION_SLACK)
    if len(over):
        step, column = over[0]
        within = "their bounds" if bounds is not None else "[-1, 1]"
        raise wrong(
            "action",
            f"got {action[step, column]:g} in step {step}, column {column}, expected all within {within}; give "
            "the bounds that they were recorded with as low and high under [actions] of the file for --columns",
        )
    return np.clip(action, -1, 1) if np.abs(action).max(initial=0) > 1 else action


def _shape(values: Array) -> str:
    return f"{values.dtype}{list(values.shape)}"


def one_width(episodes: Iterable[Episode]) -> Iterator[Episode]:
    """The episodes, as long as all have the widths of the first one.

    Raises:
        InvalidInputError: One has others; says which.
    """
    widths: tuple[int, ...] | None = None
    for episode in episodes:
        here = (episode.obs.shape[1], episode.action.shape[1], episode.image_dim)
        if widths not in (None, here):
            raise InvalidInputError(
                "--task",
                f"the set has episodes of different widths (observations, actions, image features): {widths} and "
                f"{here} of {episode.task}; export one task to a file",
            )
        widths = here
        yield episode


def text_of(value: Any) -> str:
    """A text as arrays and HDF5 attributes hold them."""
    if isinstance(value, np.ndarray):
        value = value.item() if value.size == 1 else value.tolist()
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def names_told(names: Sequence[str], most: int = 12) -> str:
    """Names for a message, cut where there are many."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def facts_told(by_name: Mapping[str, Any]) -> Facts:
    """Facts from arrays of one element each; those that are missing mean what others' recordings mean."""
    known = {name: by_name[name] for name in Facts._fields if name in by_name}
    for name in ("episode_id", "image_encoder"):
        if name in known:
            known[name] = text_of(known[name])
    for name, kind in (("success", float), ("score", float), ("behaviour", int), ("seed", int)):
        if name in known:
            known[name] = kind(known[name])
    if "weights_versions" in known:
        low, high = known["weights_versions"]
        known["weights_versions"] = (int(low), int(high))
    return Facts(**known)
