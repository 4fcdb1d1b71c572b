"""Base of every service's settings: environment variables, validated when built, unknown ones refused."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from newt.errors import InvalidInputError
from newt.wire.addresses import check_address, split_addresses


def _checked(address: str) -> str:
    try:
        return check_address(address, "address")
    except InvalidInputError as error:
        raise ValueError(str(error)) from error


def _all_checked(addresses: str) -> str:
    try:
        return ",".join(split_addresses(addresses))
    except InvalidInputError as error:
        raise ValueError(str(error)) from error


Address = Annotated[str, AfterValidator(_checked)]
"""host:port of a service, or any gRPC target; an IPv6 host stands in brackets."""

Addresses = Annotated[str, AfterValidator(_all_checked)]
"""One address, or several with commas between them."""


class ServiceSettings(BaseSettings):
    """What every service can be told. Subclasses set their prefix: NEWT_SIM_PORT, NEWT_LEARNER_PORT, ...

    Each field has a one-line description; docs/settings.md is generated from them.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="NEWT_")

    host: str = Field("127.0.0.1", description="Address that the service binds.")
    port: int = Field(0, ge=0, le=65535, description="Port of the service; 0 picks a free one.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least severe log line.")
    metrics_host: str = Field("127.0.0.1", description="Address of the Prometheus endpoint.")
    metrics_port: int = Field(0, ge=0, le=65535, description="Port of the Prometheus endpoint; 0 picks one.")

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        prefix = str(self.model_config["env_prefix"])
        nested = self.model_config.get("env_nested_delimiter") or "="  # which no variable's name has
        known = {f"{prefix}{name}".upper() for name in type(self).model_fields}
        unknown = sorted(
            name for name in os.environ if name.startswith(prefix) and name.partition(nested)[0] not in known
        )
        if unknown:
            raise ValueError(f"unknown setting {', '.join(unknown)}; known are {', '.join(sorted(known))}")


class GrpcServiceSettings(ServiceSettings):
    """What a service that speaks gRPC alone can be told: how long its calls may take to end."""

    stop_grace_s: float = Field(5.0, ge=0, description="Time for running calls at shutdown; then they are cancelled.")
