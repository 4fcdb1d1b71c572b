"""How fast a replay service stores, and how it starts from a full Redis: `python -m bench.load.start`.

A buffer of the published 200 tasks, as many rows of each, is filled over gRPC, and batches of 1,024 are taken
meanwhile. Then the service ends, and another one mirrors what Redis holds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import redis as redis_client

from bench import agents, machine, memory, processes
from bench.episodes import noise
from bench.load.meters import cpu_seconds, gauge
from bench.load.traffic import HORIZON, RUN
from newt import logs
from newt.client.buffers import BufferConfig
from newt.client.replay import ReplayClient
from newt.local import ports, redis_server
from newt.tasks.registry import select_tasks
from newt.wire.episodes import Episode

_MEASURED = "bench/results/replay_start.json"
_WRITERS = 4
_SEQUENCES = 1024


def episodes(rows: int) -> Iterator[Episode]:
    """Noise in the true shapes until every task has its share of the rows."""
    rng, tasks = np.random.default_rng(0), select_tasks([agents.TASK_SET])
    left = {task.name: rows // len(tasks) // (task.episode_length + 1) for task in tasks}
    while any(left.values()):
        for task in tasks:
            if left[task.name]:
                left[task.name] -= 1
                yield noise(task, left[task.name], rng)


def measure(rows: int, home: Path) -> dict[str, Any]:
    """Fills, ends the service and starts another."""
    redis = redis_server.start(home)
    metrics = ports.free_port()
    env = {"REDIS_URL": redis.url, "METRICS_PORT": str(metrics), "REDIS_TIMEOUT_S": "30"}
    try:
        with processes.running("services.replay", "newt.v1.ReplayService", env) as service:
            filled = _fill(service, rows)
        start = time.perf_counter()
        with processes.running("services.replay", "newt.v1.ReplayService", env) as service:
            ready_s = time.perf_counter() - start
            with redis_client.Redis.from_url(redis.url) as client:
                info: Any = client.info("memory")
            with ReplayClient(service.address) as replay:
                held = replay.get_buffer(RUN).rows
            return {
                "rows": held,
                "filling": filled,
                "start": {
                    "ready_seconds": ready_s,
                    "mirror_seconds": gauge(metrics, "newt_replay_rebuild_seconds"),
                    "cpu_seconds": cpu_seconds(service.pid),
                },
                "memory_gb": {
                    "redis": info["used_memory"] / 1e9,
                    "redis_resident": info["used_memory_rss"] / 1e9,
                    "replay_resident": memory.resident_mb(service.pid) / 1e3,
                },
            }
    finally:
        redis.stop()


def _fill(service: processes.RunningService, rows: int) -> dict[str, float]:
    """Speed of acknowledged appends, with batches beside them as fast as they come."""
    tasks = select_tasks([agents.TASK_SET])
    dims = {task.name: (task.obs_dim, task.action_dim) for task in tasks}
    taken, over = 0, threading.Event()
    with ReplayClient(service.address) as client:
        client.create_buffer(RUN, BufferConfig(dims, capacity_rows=2 * rows, updates_per_env_step=1.0))
        batches = client.batches(RUN, batch_size=_SEQUENCES, horizon=HORIZON, seed=1, demo_fraction=0.0, limited=False)

        def sample() -> None:
            nonlocal taken
            while not over.is_set():
                taken += batches.take(0.2) is not None

        def append(episode: Episode) -> int:
            client.append(episode, buffer_id=RUN, timeout_s=60)
            return episode.transitions + 1

        sampler = threading.Thread(target=sample, name="sampler")
        with batches, ThreadPoolExecutor(_WRITERS) as writers:
            sampler.start()
            running: list[Future[int]] = []
            start, before, stored = time.perf_counter(), cpu_seconds(service.pid), 0
            for episode in episodes(rows):
                running.append(writers.submit(append, episode))
                if len(running) == 4 * _WRITERS:  # Episodes not made yet cost no memory.
                    stored += running.pop(0).result()
            stored += sum(future.result() for future in running)
            seconds = time.perf_counter() - start
            over.set()
            sampler.join()
            return {
                "rows_per_second": stored / seconds,
                "batches_per_second": taken / seconds,
                "replay_cores": (cpu_seconds(service.pid) - before) / seconds,
            }


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.load.start", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="in the buffer (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path(_MEASURED), help="(default: %(default)s)")
    arguments = parser.parse_args()
    logs.configure("load", "ERROR")
    with tempfile.TemporaryDirectory() as home:
        measured = measure(arguments.rows, Path(home))
    text = json.dumps({"machine": machine.describe(), "load_average": machine.load(), **measured}, indent=1)
    arguments.output.write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
