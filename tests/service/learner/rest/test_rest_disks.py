"""A disk or a Redis that takes nothing more: the reply says so and where, nothing is left behind."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from learner_stack import LearnerStack
from tiny_agents import write_agent

RUN = {"tasks": ["mujoco-reacher"]}


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("agent") / "agent"
    write_agent(path, ["mujoco-reacher"], latent_dim=128, encoder_dim=128, mlp_dim=128)
    return path.read_bytes()


@pytest.fixture
def small_files(alone: LearnerStack) -> Iterator[int]:
    """The learner's process may not write files beyond this size, which the disk answers as if it were full."""
    limit, pid = 200_000, alone.processes["learner"].pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    yield limit
    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def test_an_upload_to_a_full_disk(alone: LearnerStack, agent: bytes, small_files: int) -> None:
    folder = alone.home / "data"
    assert len(agent) > 2 * small_files
    before = sorted(folder.rglob("*"))
    reply = alone.http.put("/checkpoints/mine", content=agent)
    assert (reply.status_code, reply.json()["error"]) == (507, "DiskFull")
    assert str(folder) in reply.json()["message"]
    assert set(folder.rglob("*")) - set(before) <= {folder / "checkpoints"}
    assert alone.get("/checkpoints") == {"checkpoints": []}


def test_a_folder_that_cannot_be_written(alone: LearnerStack, agent: bytes) -> None:
    folder = alone.home / "data" / "checkpoints"
    if folder.exists():
        folder.rmdir()
    folder.touch()  # as root, no mode of a folder would keep the learner out
    try:
        reply = alone.http.put("/checkpoints/mine", content=agent)
        assert reply.status_code == 503
        assert str(folder.parent) in reply.json()["message"]
        assert alone.get("/checkpoints") == {"checkpoints": []}
    finally:
        folder.unlink()
    assert alone.http.put("/checkpoints/mine", content=agent).status_code == 201
    assert alone.http.delete("/checkpoints/mine").status_code == 204
    assert list(Path(folder).iterdir()) == []


def test_redis_is_full_for_a_while(alone: LearnerStack) -> None:
    client = redis.Redis.from_url(alone.redis.url)
    first = alone.submit(RUN)
    client.config_set("maxmemory", 1)
    try:
        for path, body in (("/runs", RUN), (f"/runs/{first}/cancel", None)):
            reply = alone.http.post(path, json=body)
            assert reply.status_code == 503, reply.text
            assert "is full (maxmemory)" in reply.json()["message"]
        assert alone.get(f"/runs/{first}")["id"] == first
    finally:
        client.config_set("maxmemory", 0)
    assert alone.http.post(f"/runs/{first}/cancel").status_code in (200, 409)  # it may have failed by itself
    assert alone.submit(RUN)
