"""Plays: an agent, an expert or a person acts in one simulator while somebody watches. Bodies of the REST API."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from newt.runs.base import OWNER, Record
from newt.runs.evaluations import MAX_PLAN_STEPS
from newt.tasks.pace import real_time
from newt.tasks.registry import Task

PlayActor = Literal["planner", "policy", "random", "expert", "keys"]
MIN_IMAGINED = 3
MAX_INSTRUCTION = 1_000
MIN_STEPS_PER_S, MAX_STEPS_PER_S = 1.0, 60.0
_ACTORS = (
    "planner and policy: the model; random; expert: the scripted one; keys: whoever sends actions, such as a person."
)


def actors_of(task: Task, plans: bool | None) -> list[PlayActor]:
    """Who can act in a task.

    Args:
        task: The task.
        plans: Whether the model has a world model to plan with; None without a model.
    """
    actors: list[PlayActor] = ["random", "keys"]
    if task.has_expert:
        actors.insert(0, "expert")
    if plans is not None:
        actors.insert(0, "policy")
    return ["planner", *actors] if plans else actors


def pace_of(task: Task) -> float:
    """Env steps per second that a play begins with: real time, as far as a play goes."""
    return min(max(real_time([task]), MIN_STEPS_PER_S), MAX_STEPS_PER_S)


class PlayRequest(Record):
    """POST /plays."""

    model_config = ConfigDict(extra="forbid", strict=True)

    task: str = Field(max_length=200, description="Name of a task, trained on or not.")
    checkpoint: str | None = Field(
        None, max_length=200, description="RUN (its newest), RUN/NAME, RUN/best, or imported/NAME; null: no model."
    )
    actor: PlayActor | None = Field(
        None, description=f"{_ACTORS} null: as the model was trained, else the expert if there is one, else random."
    )
    instruction: str | None = Field(
        None, max_length=MAX_INSTRUCTION, description="What the model is told; null: the task's instruction."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the episode.")
    paused: bool = Field(False, description="Wait before the first step.")


class PlayChanges(Record):
    """PATCH /plays/{id}; what is left out stays."""

    model_config = ConfigDict(extra="forbid", strict=True)

    actor: PlayActor | None = Field(None, description=_ACTORS)
    paused: bool | None = None
    instruction: str | None = Field(
        None, max_length=MAX_INSTRUCTION, description="What the model is told from now on; empty: the task's own."
    )
    action: list[float] | None = Field(
        None,
        min_length=1,
        max_length=64,
        description="What keys stands for until the next one: a number in [-1, 1] for each of the task's columns.",
    )
    steps_per_s: float | None = Field(
        None, ge=MIN_STEPS_PER_S, le=MAX_STEPS_PER_S, description="Most env steps per second."
    )


class PlayReset(Record):
    """POST /plays/{id}/reset."""

    model_config = ConfigDict(extra="forbid", strict=True)

    seed: int | None = Field(None, ge=0, lt=2**63, description="Seed of the new episode; null: the same again.")


class PlayImagine(Record):
    """POST /plays/{id}/imagine."""

    model_config = ConfigDict(extra="forbid", strict=True)

    steps: int = Field(12, ge=MIN_IMAGINED, le=MAX_PLAN_STEPS, description="Steps to unroll, and then to take.")
    actor: Literal["planner", "policy"] | None = Field(
        None, description="Whose actions: one plan of so many steps, or the policy in imagination; null: who acts now."
    )


class Play(Record):
    """A play that is under way."""

    id: str
    owner: str | None = Field(None, description=OWNER)
    task: str
    checkpoint: str | None = Field(description="In full, RUN/NAME or imported/NAME; null: no model.")
    actors: list[PlayActor] = Field(description="Who can act in it.")
    instruction: str = Field(description="What the task's own instruction is.")
    action_dim: int
    episode_length: int
    steps_per_s: float = Field(description="Most env steps per second that it begins with: the task in real time.")
    keys: dict[str, list[float]] | None = Field(
        description="By name of a key, what it stands for; keys held together add up. null: too many columns."
    )
    idle: list[float] = Field(description="The action while no key is held.")
    lease_s: float = Field(description="Without a viewer, that is a client of its events, it ends after so long.")
    idle_s: float = Field(description="Without a command it ends after so long.")
