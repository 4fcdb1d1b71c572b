"""A fifth kind of work, made up here: a record, a small class and what its process does give it the whole life."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from learner_stack import wait_until

from newt.errors import ExhaustedError
from newt.local import redis_server
from newt.local.redis_server import RedisServer
from newt.runs.base import now
from newt.runs.jobs import Job
from services.learner.processes import jobs
from services.learner.processes.stored_jobs import StoredJobKeeper
from services.learner.records.jobs import JobStore, SupersededError
from services.learner.records.store import Records
from services.learner.records.writer import JobWriter
from services.learner.settings import LearnerSettings
from services.learner.worker.main import JobContext, job_child
from services.learner.worker.reporter import every

pytestmark = pytest.mark.timeout(180)

KEY = "newt:learner:counts"


# ---- all that a kind of work needs


class Count(Job):
    """The record."""

    name: str
    state: Literal["running", "succeeded", "failed", "cancelled"]
    upto: int
    counted: int = 0

    @property
    def job_id(self) -> str:
        return self.name


def counts(records: Records) -> JobStore[Count]:
    return JobStore(records.client, KEY, "count", Count, records.broken)


class CountKeeper(StoredJobKeeper[Count]):
    """In the parent."""

    module = "test_job_keeper"
    starts: int = 2
    settled: ClassVar[list[str]] = []

    def log_path(self, job_id: str, role: str) -> Path:
        return self._settings.data_dir / "counts" / f"{job_id}.log"

    def settle(self, job_id: str) -> None:
        self.settled.append(job_id)


def work(context: JobContext[Count]) -> dict[str, Any]:
    """In the child."""
    done = 0
    with every(0.05, lambda: context.writer.report(done / context.job.upto, None), context.stop):
        while done < context.job.upto:
            context.stop.sleep(0.02)
            done += 1
            if context.job.name == "clumsy":
                raise RuntimeError("it stumbles")
    return {"counted": done}


if __name__ == "__main__":
    sys.exit(job_child("counter", work, counts, lambda folder, name: folder.root / f"{name}.lock"))


# ---- what it gets for it


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = redis_server.start(tmp_path / "redis")
    yield server
    server.stop()


@pytest.fixture
def settings(redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LearnerSettings:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    return LearnerSettings(redis_url=redis.url, data_dir=tmp_path)


@pytest.fixture
def store(redis: RedisServer) -> JobStore[Count]:
    return counts(Records.connect(redis.url))


def keeper_of(settings: LearnerSettings, store: JobStore[Count]) -> CountKeeper:
    keeper = CountKeeper(settings, store, limit=2, grace_s=5.0)
    keeper.start()
    return keeper


@pytest.fixture
def no_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is seen then was told."""
    monkeypatch.setattr(jobs, "TICK_S", 3600.0)


@pytest.fixture
def keeper(settings: LearnerSettings, store: JobStore[Count]) -> Iterator[CountKeeper]:
    keeper = keeper_of(settings, store)
    yield keeper
    keeper.stop()


def count(name: str, upto: int) -> Count:
    return Count(name=name, state="running", upto=upto, created_at=now())


@pytest.mark.usefixtures("no_ticks")
def test_the_life_of_a_job(keeper: CountKeeper, store: JobStore[Count]) -> None:
    # Start and report.
    keeper.add(count("long", 1_000_000))
    keeper.add(count("short", 60))
    with pytest.raises(ExhaustedError, match="2 of kind count are under way"):
        keeper.add(count("many", 1))
    wait_until(lambda: 0 < store.get("short").progress < 1, "progress is told")
    wait_until(lambda: store.get("short").state == "succeeded", "the result")
    assert (store.get("short").counted, store.get("short").progress) == (60, 1.0)
    # Cancel: the end of the process wakes the keeper, which clears up.
    (pid,) = keeper.pids("long").values()
    assert keeper.end("long", "cancelled")
    assert keeper.await_end("long", 60.0)
    assert not Path(f"/proc/{pid}").exists()
    assert store.get("long").state == "cancelled"
    wait_until(lambda: {"long", "short"} <= set(keeper.settled), "both are cleared up after")
    assert not keeper.end("long", "failed")  # it has ended
    # Crash: with the cause, told by the process itself.
    keeper.add(count("clumsy", 5))
    wait_until(lambda: store.get("clumsy").state == "failed", "the crash is recorded")
    assert "exited with status 1" in (store.get("clumsy").error or "")
    assert "it stumbles" in (store.get("clumsy").error or "")
    keeper.add(count("killed", 1_000_000))
    wait_until(lambda: store.get("killed").progress > 0, "it works")
    os.kill(keeper.pids("killed")["count"], signal.SIGKILL)
    wait_until(lambda: store.get("killed").state == "failed", "the kill is recorded")
    assert "was killed by SIGKILL" in (store.get("killed").error or "")


def test_the_next_learner_goes_on_as_often_as_the_kind_allows(
    settings: LearnerSettings, store: JobStore[Count]
) -> None:
    first = keeper_of(settings, store)
    first.add(count("left", 1_000_000))
    wait_until(lambda: store.get("left").progress > 0, "it works")
    first.stop()
    late = JobWriter(store, "left", 1)
    late.get()
    assert store.get("left").state == "running"
    second = keeper_of(settings, store)
    wait_until(lambda: store.get("left").attempt == 2 and store.get("left").progress > 0, "it is started again")
    with pytest.raises(SupersededError):
        late.succeed(counted=7)
    second.stop()
    third = keeper_of(settings, store)
    wait_until(lambda: store.get("left").state == "failed", "it is given up")
    assert "restarted 2 times" in (store.get("left").error or "")
    third.stop()


def test_a_job_waits_for_a_disk_and_redis_for_neither(
    keeper: CountKeeper, redis: RedisServer, settings: LearnerSettings, store: JobStore[Count]
) -> None:
    """A folder that cannot be made, then Redis away while a process starts, works, and ends."""
    (settings.data_dir / "counts").write_text("a file where its folder should be")
    keeper.add(count("patient", 100))
    wait_until(lambda: "cannot go on" in (store.get("patient").waiting_on or ""), "the reason is told")
    (settings.data_dir / "counts").unlink()
    wait_until(lambda: bool(keeper.pids("patient")), "it is started")
    redis.stop()
    time.sleep(3.0)
    server = redis_server.start(redis.directory, redis.port)
    try:
        wait_until(lambda: store.get("patient").state == "succeeded", "the result is recorded")
        assert store.get("patient").waiting_on is None
    finally:
        keeper.stop()
        server.stop()
