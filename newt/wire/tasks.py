"""Facts of tasks on the wire: SimTask of protos/newt/v1/sim.proto."""

from __future__ import annotations

from typing import cast

from newt.errors import InvalidInputError
from newt.own.declaration import MAX_EPISODE_LENGTH, MAX_TEXT, NAME
from newt.tasks import discounts
from newt.tasks.pace import MAX_STEPS_PER_S, MIN_STEPS_PER_S
from newt.tasks.registry import Split, Task
from newt.wire.limits import PADDED_ACTION_DIM, PADDED_OBS_DIM
from newt.wire.v1 import sim_pb2

_COPIED = ("name", "domain", "obs_dim", "action_dim", "episode_length", "action_repeat", "has_success", "has_expert")
_SAID = ("embodiment", "goal", "discount", "split", "score_rule", "digest")


def to_message(task: Task) -> sim_pb2.SimTask:
    """A task as a simulator describes it."""
    told = {name: getattr(task, name) for name in (*_COPIED, *_SAID)}
    return sim_pb2.SimTask(**told, steps_per_s=task.steps_per_s or 0.0)


def from_message(message: sim_pb2.SimTask) -> Task:
    """A task that a simulator describes; `problem` says whether it can be used.

    A server of before 0.2 describes neither text nor discount: the name and the length stand in.
    """
    copied = {name: getattr(message, name) for name in _COPIED}
    length = max(1, message.episode_length)
    return Task(
        **copied,
        discount=message.discount or discounts.discount(length),
        embodiment=message.embodiment,
        goal=message.goal or message.name,
        split=cast(Split, message.split or "train"),
        score_rule=message.score_rule,
        digest=message.digest,
        steps_per_s=message.steps_per_s or None,
    )


def problem(task: Task) -> str | None:
    """What is wrong with the facts of a task, naming the field; None if nothing is."""
    try:
        check(task)
    except InvalidInputError as error:
        return str(error)
    return None


def check(task: Task) -> None:
    """Refuses facts that nobody could train on.

    Raises:
        InvalidInputError: Names the field.
    """
    if not NAME.fullmatch(task.name):
        raise InvalidInputError("name", f"got {task.name[:80]!r}, expected 1 to 64 of A-Z a-z 0-9 . _ -")
    _within("obs_dim", task.obs_dim, PADDED_OBS_DIM)
    _within("action_dim", task.action_dim, PADDED_ACTION_DIM)
    _within("episode_length", task.episode_length, MAX_EPISODE_LENGTH)
    if not 0 < task.discount <= 1:
        raise InvalidInputError("discount", f"got {task.discount}, expected a number in (0, 1]")
    if not task.instruction:
        raise InvalidInputError("goal", "got a blank text, expected what the agent is to do")
    if len(task.instruction) > MAX_TEXT + 1:  # a space between the two
        raise InvalidInputError("goal", f"{len(task.instruction)} characters with the embodiment; at most {MAX_TEXT}")
    if task.steps_per_s is not None and not MIN_STEPS_PER_S <= task.steps_per_s <= MAX_STEPS_PER_S:
        raise InvalidInputError(
            "steps_per_s",
            f"got {task.steps_per_s}, expected {MIN_STEPS_PER_S:g} to {MAX_STEPS_PER_S:g}, or 0 if unknown",
        )
    if task.split not in ("train", "test", "extra"):
        raise InvalidInputError("split", f"got {task.split[:80]!r}, expected train, test or extra")


def _within(field: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise InvalidInputError(field, f"got {value}, expected 1 to {most}")
