"""People: what each may do at a learner whose tokens have names. Bodies of the REST API."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from newt.runs.base import Record


class Role(StrEnum):
    """What somebody may do.

    reader: looks, and changes nothing. user: makes runs, evaluations, demonstrations and plays, and changes their own.
    operator: everything.
    """

    READER = "reader"
    USER = "user"
    OPERATOR = "operator"


class Quotas(Record):
    """How much somebody may have at once; null: as much as there is."""

    runs: int | None = Field(None, strict=True, ge=0, description="Runs that have not ended, waiting ones included.")
    sim_instances: int | None = Field(
        None, strict=True, ge=0, description="Simulator instances of these runs: tasks times collect.envs_per_task."
    )
    replay_rows: int | None = Field(
        None,
        strict=True,
        ge=0,
        description="Rows of online episodes in replay: those that ended runs have left there, and for each run that "
        "has not ended the smaller of replay.capacity_rows and schedule.total_env_steps.",
    )
    jobs: int | None = Field(
        None, strict=True, ge=0, description="Evaluations and collections of demonstrations under way."
    )


class Caller(Record):
    """GET /whoami."""

    name: str | None = Field(description="Whose token was sent; null where tokens have no names.")
    role: Role
    quotas: Quotas
