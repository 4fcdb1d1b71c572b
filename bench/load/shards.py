"""What one replay service bears, and what several do: `python -m bench.load.shards --shards 1 3`.

Real services with a Redis each, real gRPC; episodes of the published 200 tasks come in, and batches go out at the run's
ratio, through the client that runs use. Speed says little where all share two cores; what counts is each service's
processor time per env step of the whole run: the busiest one, with a core of its own elsewhere, bears its inverse.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench import agents, machine, processes
from bench.load.meters import cpu_seconds, gauge
from bench.load.traffic import HORIZON, RUN
from newt import logs
from newt.client.batches import Batches
from newt.client.buffers import BufferConfig
from newt.client.read_ahead import BatchOrder
from newt.client.replay import ReplayClient
from newt.client.shard_batches import ShardBatches
from newt.client.shards import Replay, replay_client
from newt.local import ports, redis_server
from newt.tasks.registry import Task, get_task, select_tasks
from newt.wire.episodes import Episode

_MEASURED = "bench/results/shards.json"
_SEQUENCES = r'newt_replay_sampled_sequences_total\{origin="online"\}'
_TRANSITIONS = r'newt_replay_appended_transitions_total\{kind="buffer"\}'


def episodes(tasks: list[Task]) -> Iterator[Episode]:
    """Noise in the true shapes, one episode of each task after the other, without end."""
    rng, number = np.random.default_rng(0), 0
    while True:
        for task in tasks:
            steps, number = task.episode_length, number + 1
            yield Episode(
                f"{task.name}-{number}",
                task.name,
                rng.standard_normal((steps + 1, task.obs_dim), np.float32),
                rng.uniform(-1, 1, (steps, task.action_dim)).astype(np.float32),
                rng.uniform(0, 1, steps).astype(np.float32),
            )


@dataclass(frozen=True)
class _Shards:
    """Services and what they have used so far.

    Attributes:
        services: Replay services.
        redises: The Redis of each.
        metrics: Port of the metrics of each.
    """

    services: list[processes.RunningService]
    redises: list[redis_server.RedisServer]
    metrics: list[int]

    def read(self) -> dict[str, np.ndarray[Any, Any]]:
        """Meters by shard."""
        return {
            "replay": np.array([cpu_seconds(service.pid) for service in self.services]),
            "redis": np.array([cpu_seconds(redis.process.pid) for redis in self.redises]),
            "sequences": np.array([gauge(port, _SEQUENCES) for port in self.metrics]),
            "transitions": np.array([gauge(port, _TRANSITIONS) for port in self.metrics]),
        }


@contextmanager
def _running(shards: int, arguments: argparse.Namespace, home: Path) -> Iterator[tuple[_Shards, Replay]]:
    """So many services that hold some episodes of every task, and their client."""
    tasks = select_tasks([agents.TASK_SET])
    with ExitStack() as stack:
        running = _Shards([], [], [])
        for number in range(shards):
            redis = redis_server.start(home / f"redis-{number}")
            stack.callback(redis.stop)
            running.redises.append(redis)
            running.metrics.append(ports.free_port())
            env = {"REDIS_URL": redis.url, "METRICS_PORT": str(running.metrics[-1])}
            service = processes.running("services.replay", "newt.v1.ReplayService", env)
            running.services.append(stack.enter_context(service))
        replay: Replay = replay_client(",".join(service.address for service in running.services))
        stack.callback(replay.close)
        replay.create_buffer(
            RUN,
            BufferConfig(
                {task.name: (task.obs_dim, task.action_dim) for task in tasks},
                capacity_rows=10_000_000,
                updates_per_env_step=arguments.updates_per_env_step,
            ),
        )
        coming = episodes(tasks)
        for _ in range(arguments.episodes_first * len(tasks)):
            replay.append(next(coming), buffer_id=RUN, timeout_s=60)
        yield running, replay


def measure(arguments: argparse.Namespace, home: Path) -> list[dict[str, Any]]:
    """Costs of several numbers of shards: all shards at work at once, and one shard at a time.

    The latter in turns of all numbers, so that what else the machine does falls on each, and as medians.
    """
    measured = []
    with ExitStack() as stack:
        fleets = []
        for shards in arguments.shards:
            running, replay = stack.enter_context(_running(shards, arguments, home / str(shards)))
            fleets.append(running)
            measured.append({"shards": shards, "together": _together(replay, running, arguments)})
        turns: list[list[list[float]]] = [[[] for _ in running.services] for running in fleets]
        for turn in range(arguments.turns):
            for running, found in zip(fleets, turns, strict=True):
                for service, costs in zip(running.services, found, strict=True):
                    costs.append(_alone(service, turn, len(found), arguments))
        for one, found in zip(measured, turns, strict=True):
            costs = [round(statistics.median(of_service), 1) for of_service in found]
            one["one_at_a_time"] = {
                "replay_cpu_microseconds_per_env_step": costs,
                "bearable_env_steps_per_second": round(1e6 / max(costs)),
            }
    return measured


def _together(replay: Replay, running: _Shards, arguments: argparse.Namespace) -> dict[str, Any]:
    """A run's traffic, all shards at work at once."""
    # What was stored before has earned updates; they are not made.
    first = int(replay.get_buffer(RUN).env_steps * arguments.updates_per_env_step)
    coming = (replace(one, episode_id=f"more-{one.episode_id}") for one in episodes(select_tasks([agents.TASK_SET])))
    before = running.read()
    batches = _run(replay, coming, first, arguments)
    after = running.read()
    spent = {name: after[name] - before[name] for name in after}
    steps = float(spent["transitions"].sum())
    return {
        "env_steps": int(steps),
        "batches": batches,
        "batches_per_env_step": batches / steps,
        "replay_cpu_microseconds_per_env_step": [round(1e6 * cost, 1) for cost in spent["replay"] / steps],
        "redis_cpu_microseconds_per_env_step": [round(1e6 * cost, 1) for cost in spent["redis"] / steps],
        "share_of_sequences": [round(share, 4) for share in spent["sequences"] / spent["sequences"].sum()],
        "share_of_env_steps": [round(share, 4) for share in spent["transitions"] / steps],
        "bearable_env_steps_per_second": round(steps / spent["replay"].max()),
    }


def _run(replay: Replay, coming: Iterator[Episode], first: int, arguments: argparse.Namespace) -> int:
    """Appends for a while, and takes all batches that this earns; returns how many."""
    stop, taken = threading.Event(), 0

    def append() -> None:
        earned = 0.0
        while not stop.is_set():
            episode = next(coming)
            replay.append(episode, buffer_id=RUN, timeout_s=60)
            earned += episode.transitions * arguments.updates_per_env_step
            # Collection is a little ahead of the batches, as in a run, whichever is the slower side.
            while not stop.is_set() and earned - taken > 100:
                time.sleep(0.01)

    thread = threading.Thread(target=append, name="append")
    with replay.batches(
        RUN, batch_size=arguments.batch_size, horizon=HORIZON, seed=1, demo_fraction=0.0, first_index=first
    ) as batches:
        thread.start()
        deadline = time.monotonic() + arguments.seconds
        while time.monotonic() < deadline:
            taken += batches.take(1.0) is not None
        stop.set()
        thread.join()
    return taken


def _alone(service: processes.RunningService, turn: int, shards: int, arguments: argparse.Namespace) -> float:
    """Processor microseconds of one shard per env step of the whole run: its share of the episodes and of each batch.

    The others rest meanwhile: with a core for each they would not push each other out of the caches.
    """
    with ReplayClient(service.address) as client:
        held = client.get_buffer(RUN)
        share = sum(task.held_episodes > 0 for task in held.tasks) / len(held.tasks)
        coming = episodes([get_task(task.task) for task in held.tasks if task.held_episodes])
        order = BatchOrder.of(
            RUN,
            batch_size=round(arguments.batch_size * share),
            horizon=HORIZON,
            seed=1,
            demo_fraction=0.0,
            limited=False,
        )
        # The requests of a client of several; of one service those of its own.
        ahead = (
            Batches(client.peer, client.stub, order)
            if shards == 1
            else ShardBatches(lambda: [(client, held.env_steps)], order, leave_out=False)
        )
        with ahead as batches:
            for _ in range(20):
                next(batches)
            episode, due, count = next(coming), 0.0, 0
            before, deadline = cpu_seconds(service.pid), time.monotonic() + arguments.seconds / 3
            while time.monotonic() < deadline:
                next(batches)
                count += 1
                due += share / arguments.updates_per_env_step
                while due >= episode.transitions:
                    client.append(replace(episode, episode_id=f"{turn}-{episode.episode_id}"), buffer_id=RUN)
                    due -= episode.transitions
                    episode = next(coming)
            spent = cpu_seconds(service.pid) - before
    updates_per_env_step: float = arguments.updates_per_env_step
    return 1e6 * spent * updates_per_env_step / count


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.load.shards", description=__doc__)
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 3], help="numbers of shards (default: 1 3)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each number, together (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=7, help="of each shard, a third as long (default: %(default)s)")
    parser.add_argument("--episodes-first", type=int, default=2, help="of each task, before (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=1024, help="sequences of a batch (default: %(default)s)")
    parser.add_argument("--updates-per-env-step", type=float, default=0.075, help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path(_MEASURED), help="(default: %(default)s)")
    arguments = parser.parse_args()
    logs.configure("load", "ERROR")
    with tempfile.TemporaryDirectory() as home:
        measured = measure(arguments, Path(home))
    setting = {key: value for key, value in vars(arguments).items() if key != "output"}
    capacity = {
        way: [one[way]["bearable_env_steps_per_second"] for one in measured] for way in ("together", "one_at_a_time")
    }
    text = json.dumps(
        {
            "machine": machine.describe(),
            "setting": setting,
            "measured": measured,
            "times_the_first": {way: [round(c / found[0], 2) for c in found] for way, found in capacity.items()},
        },
        indent=1,
    )
    arguments.output.write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
