"""A deployment to back up: a Redis with something of everything, and the data folder of a learner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import redis

from newt.backup import making, manifest, places, restoring
from newt.local.redis_server import RedisServer
from newt.runs.record import EpisodeStats, Evaluation
from newt.runs.spec import RunSpec
from newt.wire.episodes import Episode
from services.learner.records import keys
from services.learner.records.store import Records
from services.learner.records.writer import RunWriter
from services.replay.episode import pack
from services.replay.store import Kind, SpaceKey, Store

PASSWORD = "of-a-test"
BUFFER, DEMOS = SpaceKey(Kind.BUFFER, "run-1"), SpaceKey(Kind.DEMOS, "some")
ROWS = 11


@dataclass
class Deployment:
    """Redis and the data folder of a learner."""

    server: RedisServer
    data: Path

    def contents(self) -> dict[str, Any]:
        """Every key of Newt with its value, whatever Redis packs it into."""
        client: Any = redis.Redis.from_url(self.server.url)
        read: dict[bytes, Callable[[bytes], Any]] = {
            b"string": client.get,
            b"hash": client.hgetall,
            b"list": lambda key: client.lrange(key, 0, -1),
            b"set": client.smembers,
            b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
            b"stream": client.xrange,
        }
        found = {key.decode(): read[client.type(key)](key) for key in client.scan_iter(match="newt:*")}
        found.pop(keys.CHANGES, None)  # tells those who wait; nobody does
        return found

    def files(self) -> dict[str, bytes]:
        """All files of the data folder but its lock."""
        found = {str(path.relative_to(self.data)): path for path in self.data.rglob("*") if path.is_file()}
        return {name: path.read_bytes() for name, path in found.items() if name != "learner.lock"}

    def restore(self, folder: str | Path) -> manifest.Manifest:
        return restoring.restore(folder, [self.server.url], self.data)

    def back_up(self, folder: str | Path) -> manifest.Manifest:
        return making.make(folder, [self.server.url], self.data)


def episode(number: int) -> Episode:
    obs, action = np.full((ROWS, 3), number, np.float32), np.zeros((ROWS - 1, 1), np.float32)
    return Episode(f"e{number}", "walk", obs, action, np.zeros(ROWS - 1, np.float32))


def append(store: Store, key: SpaceKey, number: int) -> None:
    meta = store.meta(key)
    assert meta is not None
    stored = store.append(key, meta.incarnation, number, f"e{number}", pack(episode(number)), ROWS - 1, "walk")
    assert stored.status == "stored"


def run_of(records: Records, run_id: str, data: Path) -> RunWriter:
    """A run that is training, with something of everything."""
    records.runs.create(run_id, RunSpec.model_validate({"tasks": ["mw-reach"]}), data / "runs" / run_id)
    attempt = records.runs.begin(run_id)
    assert attempt is not None
    writer = RunWriter(records, run_id, attempt)
    writer.metrics("trainer", 1, 1, {"total_loss": 1.0})
    writer.metrics("trainer", 2, 2, {"total_loss": 0.5})
    stats = EpisodeStats(score=0.5, return_=3, success=None, length=10, episodes=1)
    evaluation = {"kind": "random", "mode": "random", "env_steps": 1, "tasks": {"mw-reach": stats}}
    writer.evaluation(Evaluation.model_validate(evaluation))
    return writer


def whole(backup: str | Path) -> manifest.Manifest:
    """The manifest of a backup that can be restored."""
    found = manifest.read(places.at(backup))
    restoring.verify(places.at(backup), found)
    return found
