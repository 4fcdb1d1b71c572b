"""Settings of the simulator service: NEWT_SIM_* environment variables."""

from __future__ import annotations

import os
import tempfile
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from newt.settings import GrpcServiceSettings
from newt.tasks.domains import installed_domains


def _cores() -> int:
    return len(os.sched_getaffinity(0))


class SimSettings(GrpcServiceSettings):
    """What the simulator service can be told."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="NEWT_SIM_")

    port: int = Field(50051, ge=0, le=65535, description="Port of the service; 0 picks a free one.")
    domains: Annotated[tuple[str, ...], NoDecode] = Field(
        default_factory=lambda: tuple(installed_domains()),
        description="Domains to host, separated by commas; by default all that are installed.",
    )
    sources: tuple[str, ...] = Field(
        (),
        description='Where tasks of your own come from, as JSON: ["/home/me/my_reacher", "my_pkg.tasks:TASK", '
        '"gym:Pendulum-v1"]; their domain is `own` (docs/your-own-task.md).',
    )
    workers: int = Field(default_factory=_cores, ge=1, le=512, description="Worker processes; by default one per core.")
    light_rows: int = Field(
        16,
        ge=1,
        description="A session of light tasks without frames (MiniArcade: a step takes microseconds) gets another "
        "worker for each of so many instances; other sessions spread over all workers.",
    )
    max_instances: int = Field(512, ge=1, description="Limit of simulator instances over all sessions.")
    max_streams: int = Field(
        64, ge=1, le=1024, description="Limit of StepStream calls at once; surplus ones are refused."
    )
    default_lease_s: float = Field(60.0, gt=0, description="Lease of a session that asks for none, seconds.")
    max_lease_s: float = Field(3600.0, gt=0, description="Longest lease granted, seconds.")
    drain_s: float = Field(
        0.0,
        ge=0,
        description="When it is told to stop, the service refuses new sessions and waits so long, at most, until those "
        "that are stepped have been given back, which collectors do when their episodes have ended. 0: it stops at "
        "once, and running episodes are lost.",
    )
    session_age_s: float = Field(
        0.0,
        ge=0,
        description="After so many seconds who steps a session is told to go on in another one when its episodes have "
        "ended, so that replicas that came later get work. 0: sessions last as long as their clients want.",
    )
    step_timeout_s: float = Field(
        60.0, gt=0, description="A worker that spends longer on one piece of work of one instance is killed, seconds."
    )
    start_timeout_s: float = Field(60.0, gt=0, description="Time for a worker process to come up, seconds.")
    max_restarts_per_minute: int = Field(
        10, ge=1, description="Worker deaths per minute beyond which the service stops replacing them for a while."
    )
    max_worker_mb: int = Field(
        0,
        ge=0,
        description="Resident megabytes beyond which a worker is ended and replaced, so that an environment that leaks "
        "costs its own episodes alone. 0: for tasks of your own half of the memory, shared by the workers, at least "
        "2048; for ours no limit.",
    )
    crash_dir: str = Field(
        default_factory=lambda: os.path.join(tempfile.gettempdir(), "newt-crashes"),
        description="Folder for what led to crashes: seed, actions and last observations of the episode, the newest 20 "
        "(`newt env replay FILE` steps one again).",
    )
    render_backend: Literal["auto", "egl", "osmesa"] = Field(
        "auto", description="How frames are drawn; auto takes EGL if there is a GPU, OSMesa otherwise."
    )

    @field_validator("domains", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value
