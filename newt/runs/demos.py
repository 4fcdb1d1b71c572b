"""Demonstrations: sets of them, and jobs that collect them. Bodies of the REST API."""

from __future__ import annotations

import zlib
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from newt.runs.base import BrokenRecord, Record
from newt.runs.jobs import Job
from newt.runs.sections import DISTURBANCE, SET_NAME
from newt.tasks.registry import Task


class DemoTaskInfo(Record):
    """Demonstrations of one task."""

    task: str
    episodes: int
    rows: int
    mean_return: float
    mean_score: float
    mean_success: float | None
    image_dim: int = Field(0, description="Columns of image features; 0 without.")
    image_encoder: str | None = Field(None, description="What made them, if that is known.")


SetName = Annotated[str, Field(pattern=SET_NAME, description="Name of the new set.")]


class AgentDemosRequest(Record):
    """POST /runs/{id}/demos: the run's agent plays, and its good episodes become demonstrations."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: SetName
    tasks: list[str] | None = Field(None, min_length=1, description="Some of the run's tasks; null: all of them.")
    episodes: int = Field(20, ge=1, le=1000, description="Demonstrations per task; twice as many episodes are played.")
    mode: Literal["planner", "policy"] = Field(
        "planner",
        description="Who acts, without exploration; left out: planner, or policy for an agent that acts by its policy.",
    )
    checkpoint: str | None = Field(None, description="Name of a checkpoint; null: the newest.")
    seed: int = Field(0, ge=0, lt=2**63, description="Origin of the episodes' seeds.")


class ScriptedDemosRequest(Record):
    """POST /demos: scripted experts play, and their successful episodes become demonstrations."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: SetName
    tasks: list[str] = Field(min_length=1, description="Task names, globs, domains or task sets.")
    episodes: int = Field(20, ge=1, le=1000, description="Demonstrations per task.")
    disturbance: float = Field(0.0, ge=0, le=1, description=DISTURBANCE)


class FeatureDemosRequest(Record):
    """POST /demos/features: the episodes of a set are played again, and become a set with image features."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: SetName
    source: str = Field(description="The set whose episodes are played again; it stays as it is.")
    tasks: list[str] | None = Field(None, min_length=1, description="Some of its tasks; null: all of them.")
    frames: int = Field(1, ge=1, le=8, description="Frames that an agent sees at once: vision.frames of its run.")


class DemoYield(Record):
    """What a collection has brought for one task."""

    wanted: int = Field(description="Demonstrations that were asked for.")
    kept: int = Field(description="Demonstrations in the set.")
    played: int | None = Field(None, description="Episodes that an agent played; null for scripted experts.")
    accepted: int | None = Field(None, description="How many of them the accept rule would have let pass.")
    threshold: float | None = Field(None, description="Return that an accepted episode exceeds.")
    missing: str | None = Field(None, description="Why there are fewer demonstrations than wanted.")


class DemoCollection(Job):
    """How a set was, or is being, collected. The set can be used when the state is succeeded."""

    UNDER_WAY: ClassVar[str] = "collecting"

    name: str
    state: Literal["collecting", "succeeded", "failed", "cancelled"]
    source: Literal["scripted", "agent", "features"]
    request: ScriptedDemosRequest | AgentDemosRequest | FeatureDemosRequest
    tasks: list[str]
    task_facts: list[Task] = Field(
        default_factory=list,
        description="What its tasks were when it was asked for; empty in records of before it was stored.",
    )
    checkpoint: str | None = Field(None, description="Which checkpoint of the run.")
    unfinished: bool = Field(
        True, description="Replay may hold episodes of it that are part of no whole set; they are being removed."
    )
    yields: dict[str, DemoYield] = Field(default_factory=dict, description="What came out, by task.")

    @property
    def job_id(self) -> str:
        """Name of the set."""
        return self.name

    @property
    def model_id(self) -> str:
        """What the planners call the agent that plays."""
        return f"{self.run_id}@demos-{zlib.crc32(self.name.encode()):08x}"

    @property
    def open(self) -> bool:
        """Whether it is under way, or its remains are still there."""
        return self.under_way or self.unfinished


class DemoSetInfo(Record):
    """A named set of demonstrations."""

    name: str
    usable: bool = Field(description="Whether runs may name it: false until its collection has succeeded.")
    size_bytes: int
    tasks: list[DemoTaskInfo]
    collection: DemoCollection | None = Field(
        None, description="How it was collected; null for imported sets and those that runs fill by themselves."
    )


class DemoSetList(Record):
    """GET /demos."""

    demo_sets: list[DemoSetInfo]
    broken: list[BrokenRecord] = Field(
        default_factory=list, description="Records of collections that cannot be read; DELETE /demos/{id} removes them."
    )
