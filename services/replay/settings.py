"""Settings of the replay service: environment variables NEWT_REPLAY_*."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from newt.settings import GrpcServiceSettings


class ReplaySettings(GrpcServiceSettings):
    """What the replay service can be told."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="NEWT_REPLAY_", hide_input_in_errors=True)

    port: int = Field(50061, ge=0, le=65535, description="Port of the service; 0 picks a free one.")
    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="Address of Redis: redis://, or rediss:// for TLS, with user and password if it has them.",
    )
    redis_timeout_s: float = Field(2.0, gt=0, description="How long one Redis command may take before it is retried.")
    redis_check_s: float = Field(1.0, gt=0, description="Time between two checks of Redis.")
    appendfsync: Literal["keep", "everysec", "always"] = Field(
        "keep", description="Set Redis' appendfsync when connecting; keep leaves it as it is configured."
    )
    remembered_ids: int = Field(
        1_000_000, ge=0, description="Evicted episodes of each buffer whose ids are still known as duplicates."
    )
    max_threads: int = Field(128, ge=8, description="Calls answered at once, streams apart; others wait.")
    max_streams: int = Field(
        128, ge=1, description="Streams (Sample, ReadEpisodes) open at once; surplus ones are refused."
    )
    stop_grace_s: float = Field(1.0, ge=0, description="Time for running calls at shutdown; then they are cancelled.")
