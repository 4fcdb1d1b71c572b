"""Composes of several replay services: further ones are as the first, but for their Redis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from newt.wire.addresses import split_addresses
from services.learner.settings import LearnerSettings

ROOT = Path(__file__).resolve().parents[3]
NUMBERS = (1, 2)


def compose(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return content


def test_further_services_are_as_the_first() -> None:
    plain, shards = compose("compose.yaml")["services"], compose("compose.shards.yaml")
    for number in NUMBERS:
        redis, replay = (dict(shards["services"][f"{name}-{number}"]) for name in ("redis", "replay"))
        assert redis.pop("volumes") == [f"redis-{number}:/data"]
        assert f"redis-{number}" in shards["volumes"]
        assert redis == {key: value for key, value in plain["redis"].items() if key != "volumes"}
        assert replay.pop("environment") == {
            **plain["replay"]["environment"],
            "NEWT_REPLAY_REDIS_URL": f"redis://redis-{number}:6379/0",
        }
        waits = {f"redis-{number}": {"condition": "service_healthy"}, "replay": {"condition": "service_started"}}
        assert replay.pop("depends_on") == waits  # the first one's build makes the image
        assert replay == {k: v for k, v in plain["replay"].items() if k not in ("environment", "depends_on", "build")}


def test_backups_have_the_redis_of_each() -> None:
    backup = compose("compose.shards.yaml")["services"]["backup"]
    names = [f"redis-{number}" for number in NUMBERS]
    assert backup["environment"]["NEWT_BACKUP_SHARDS"].split(",") == [f"redis://{name}:6379/0" for name in names]
    assert backup["depends_on"] == {name: {"condition": "service_healthy"} for name in names}


def test_the_learner_and_prometheus_know_all_of_them() -> None:
    learner = compose("compose.shards.yaml")["services"]["learner"]
    names = ["replay", *(f"replay-{number}" for number in NUMBERS)]
    assert split_addresses(learner["environment"]["NEWT_LEARNER_REPLAY"]) == [f"{name}:50061" for name in names]
    assert set(learner["depends_on"]) == set(names[1:])
    default = learner["environment"]["NEWT_LEARNER_REPLAY_AWAY"].removeprefix("${NEWT_COMPOSE_REPLAY_AWAY:-")[:-1]
    assert default == LearnerSettings.model_fields["replay_away"].default
    jobs = {job["job_name"]: job for job in compose("deploy/prometheus/prometheus.yml")["scrape_configs"]}
    assert jobs["replay"]["dns_sd_configs"][0]["names"] == names[1:]


def test_further_services_are_secured_as_the_first() -> None:
    secure, shards = compose("compose.secure.yaml"), compose("compose.secure-shards.yaml")
    expected: dict[str, Any] = {}
    for number in NUMBERS:
        expected[f"redis-{number}"] = secure["services"]["redis"]
        replay = secure["services"]["replay"]
        address = replay["environment"]["NEWT_REPLAY_REDIS_URL"].replace("@redis:", f"@redis-{number}:")
        expected[f"replay-{number}"] = {
            **replay,
            "environment": {**replay["environment"], "NEWT_REPLAY_REDIS_URL": address},
        }
    addresses = compose("compose.shards.yaml")["services"]["backup"]["environment"]["NEWT_BACKUP_SHARDS"]
    expected["backup"] = {"environment": {"NEWT_BACKUP_SHARDS": addresses.replace("://", "://newt@")}}
    assert shards["services"] == expected
    assert "secrets" not in shards  # those of compose.secure.yaml
