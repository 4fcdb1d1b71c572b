"""The component replay-shards: each replay service has a Redis of its own, and the learner knows all of them."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import pytest
from manifests import Manifest, base, of_kind, overlay, workloads

from newt.wire.addresses import split_addresses


@pytest.fixture(scope="module")
def spread() -> list[Manifest]:
    return overlay("replay-shards")


def pod(manifests: list[Manifest]) -> dict[str, Any]:
    spec: dict[str, Any] = workloads(manifests)["replay"]["spec"]["template"]["spec"]
    return spec


def test_the_services_are_as_the_one_of_the_base(spread: list[Manifest]) -> None:
    (several,), (one,) = pod(spread)["containers"], pod(base())["containers"]
    own = {key: several[key] for key in ("command", "args")}
    assert several == {**one, **own}
    assert {**pod(spread), "containers": [one]} == pod(base())
    new, old = workloads(spread)["replay"], workloads(base())["replay"]
    assert new["spec"]["template"]["metadata"] == old["spec"]["template"]["metadata"]
    assert new["spec"]["selector"] == old["spec"]["selector"]
    assert new["spec"]["serviceName"] in of_kind(spread, "Service")


def test_there_is_a_redis_for_each_and_the_learner_keeps_the_first(spread: list[Manifest]) -> None:
    count = workloads(spread)["replay"]["spec"]["replicas"]
    assert workloads(spread)["redis"]["spec"]["replicas"] == count == 3
    config = of_kind(spread, "ConfigMap")["learner"]["data"]
    assert split_addresses(config["NEWT_LEARNER_REPLAY"]) == [f"dns:///replay-{n}.replay:50061" for n in range(count)]
    # Run records stay where they were: the name without a number would stand for any.
    assert config["NEWT_LEARNER_REDIS_URL"] == "redis://redis-0.redis:6379/0"


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("redis://redis:6379/0", "redis://redis-2.redis:6379/0"),
        ("redis://newt:p%40ss$w*rd@redis:6379/0", "redis://newt:p%40ss$w*rd@redis-2.redis:6379/0"),
        ("rediss://newt:secret@redis-0.redis:6379/0", "rediss://newt:secret@redis-2.redis:6379/0"),
    ],
)
def test_each_finds_its_own_redis(spread: list[Manifest], given: str, used: str) -> None:
    (container,) = pod(spread)["containers"]
    assert container["command"] == ["tini", "--", "sh", "-c"]
    (script,) = container["args"]
    assert "$(" not in script  # which Kubernetes would take for a variable of its own
    assert "exec python -m services.replay" in script
    shown = script.replace("exec python -m services.replay", "printenv NEWT_REPLAY_REDIS_URL")
    env = {"PATH": os.environ["PATH"], "HOSTNAME": "replay-2", "NEWT_REPLAY_REDIS_URL": given}
    ran = subprocess.run(["sh", "-c", shown], env=env, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == used
