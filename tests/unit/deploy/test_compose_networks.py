"""Who shares a network with whom under compose: Redis, which asks for no password by default, with few."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
FILES = (
    "compose.yaml",
    "compose.shards.yaml",
    "compose.on-demand.yaml",
    "compose.secure.yaml",
    "compose.secure-shards.yaml",
)


def networks(*files: str) -> dict[str, set[str]]:
    """Networks of each service, as compose merges them: the lists of all files together."""
    found: dict[str, set[str]] = {}
    for file in files:
        services: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / file).read_text())["services"]
        for name, service in services.items():
            found.setdefault(name, set()).update(service.get("networks", []))
    return {name: own or {"default"} for name, own in found.items()}


@pytest.mark.parametrize("files", [FILES[:1], FILES])
def test_nobody_but_those_who_use_it_reaches_redis(files: tuple[str, ...]) -> None:
    every = networks(*files)
    stores = {name for name in every if name.split("-")[0] == "redis"}
    users = {name for name in every if name.split("-")[0] in ("replay", "learner", "backup")}
    assert stores
    for store in stores:
        assert {name for name, own in every.items() if own & every[store]} == stores | users


def test_the_engine_is_reached_by_the_learner_alone() -> None:
    every = networks(*FILES)
    assert {name for name, own in every.items() if own & every["docker-proxy"]} == {"docker-proxy", "learner"}
