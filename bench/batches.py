"""What a batch costs the replay service's process and the trainer's, by number of tasks; plain: one message per task.

Processor time, which other work on the machine changes little. Of the parts in one process first, then of the whole
way through a real service, gRPC and the kernel's work for it included.

All of it in a process of its own, which keeps freed memory as services and trainers do. Else glibc gives the megabytes
of a batch back to the system and fetches them anew for the next, or not, depending on their size to the byte and on
what ran before: for some sizes that takes longer than everything that is to be measured.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from bench import agents, processes
from bench.baselines.padded_groups import padded
from bench.episodes import noise
from bench.figures import Figure, Spread, Value
from bench.load.meters import cpu_seconds
from bench.measure import Candidate, Effort, duration_ratio, interleaved
from newt.client.batches import batch_of
from newt.client.buffers import BufferConfig
from newt.client.packed import read
from newt.client.replay import ReplayClient
from newt.local import redis_server
from newt.memory import return_large_blocks
from newt.tasks.registry import Task, select_tasks
from newt.wire.episodes import Episode
from newt.wire.v1 import replay_pb2
from services.replay.batch import Sequences, gather
from services.replay.blocks import Blocks
from services.replay.sampler import Pool, Source
from services.replay.task_episodes import TaskEpisodes

ENCODE_GOAL_MS, DECODE_GOAL_MS = 1.0, 0.3
HORIZON = 3
_ROWS = 150_000
_BATCHES = 20  # per repetition
_IN_FLIGHT = 4
_RUN = "bench"
_SAMPLER = replay_pb2.SAMPLER_EPISODE_UNIFORM


def run(effort: Effort) -> Iterator[Figure]:
    """All 200 tasks, and as many as a domain has."""
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=return_large_blocks) as one:
        yield from one.submit(_measure, effort).result()


def _measure(effort: Effort) -> list[Figure]:
    figures: list[Figure] = []
    every = select_tasks([agents.TASK_SET])
    sequences = effort.pick(full=1024, quick=1024, tiny=16)
    for count in effort.pick(full=(200, 16), quick=(200, 16), tiny=(2,)):
        tasks = every[:: len(every) // count][:count]
        rows = effort.pick(full=_ROWS, quick=_ROWS, tiny=100)
        episodes = list(_episodes(tasks, rows))
        figures += _in_process(f"batches.t{count}", tasks, episodes, sequences, effort)
        figures += _through_the_service(f"batches.t{count}", tasks, episodes, sequences, effort)
    return figures


def _episodes(tasks: list[Task], rows: int) -> Iterator[Episode]:
    """Noise in the true shapes, two episodes or more of each task."""
    rng = np.random.default_rng(0)
    for number in range(max(2, rows // sum(task.episode_length for task in tasks))):
        for task in tasks:
            yield noise(task, number, rng)


def _in_process(
    key: str, tasks: list[Task], episodes: list[Episode], sequences: int, effort: Effort
) -> Iterator[Figure]:
    pool, nothing, rng = _pool(tasks, episodes), Pool([]), np.random.default_rng(1)
    request = replay_pb2.SampleRequest(batch_size=sequences, horizon=HORIZON)

    def drawn() -> Sequences:
        return gather([(nothing, nothing.draw(rng, _SAMPLER, 0)), (pool, pool.draw(rng, _SAMPLER, sequences))], HORIZON)

    def packed() -> bytes:
        response = replay_pb2.SampleResponse()
        drawn().pack(response.packed)
        return response.SerializeToString()

    def grouped() -> bytes:
        return replay_pb2.SampleResponse(groups=drawn().groups()).SerializeToString()

    sent, sent_in_groups = packed(), grouped()

    def decode() -> None:
        response = replay_pb2.SampleResponse.FromString(sent)
        batch_of([response], request, 0, response)

    def decode_groups() -> None:
        padded(replay_pb2.SampleResponse.FromString(sent_in_groups), HORIZON, sequences)

    rows = read([replay_pb2.SampleResponse.FromString(sent)], HORIZON).rows
    seconds = interleaved(
        {
            "encode": Candidate(partial(_repeat, packed)),
            "encode_groups": Candidate(partial(_repeat, grouped)),
            "decode": Candidate(partial(_repeat, decode)),
            "decode_groups": Candidate(partial(_repeat, decode_groups)),
            "pad": Candidate(partial(_repeat, lambda: (rows.obs(), rows.action(), rows.reward()))),
        },
        effort.repetitions,
        clock=time.thread_time,
    )
    per_batch = {name: [s / _BATCHES for s in values] for name, values in seconds.items()}
    what = f"{sequences} sequences of {len(tasks)} tasks"
    for name, does, goal in (
        ("encode", "drawing and encoding", ENCODE_GOAL_MS),
        ("decode", "decoding, without padding,", DECODE_GOAL_MS),
    ):
        ours = per_batch[name]
        yield duration_ratio(f"{key}.{name}", f"{does} {what}; plain: in groups", ours, per_batch[f"{name}_groups"])
        yield Value(f"{key}.{name}_time", f"{does} {what}", "ms", Spread.of([1000 * s for s in ours]), at_most=goal)
    yield Value(
        f"{key}.pad",
        f"padding {what}, where the device is a CPU",
        "ms",
        Spread.of([1000 * s for s in per_batch["pad"]]),
    )


def _pool(tasks: list[Task], episodes: list[Episode]) -> Pool:
    blocks = Blocks()
    held = {task.name: TaskEpisodes(blocks, task.obs_dim, task.action_dim, 0) for task in tasks}
    for episode in episodes:
        held[episode.task].append(episode)
    return Pool([Source(i, one.windows(HORIZON), 0, demo=False) for i, one in enumerate(held.values())])


def _through_the_service(
    key: str, tasks: list[Task], episodes: list[Episode], sequences: int, effort: Effort
) -> Iterator[Figure]:
    """Processor time of both processes per batch, a few always on their way."""
    with tempfile.TemporaryDirectory() as folder:
        redis = redis_server.start(Path(folder))
        try:
            with (
                processes.running("services.replay", "newt.v1.ReplayService", {"REDIS_URL": redis.url}) as service,
                ReplayClient(service.address) as client,
            ):
                dims = {task.name: (task.obs_dim, task.action_dim) for task in tasks}
                client.create_buffer(_RUN, BufferConfig(dims, capacity_rows=2 * _ROWS, updates_per_env_step=1.0))
                for episode in episodes:
                    client.append(episode, buffer_id=_RUN, timeout_s=60)
                costs: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
                for repetition in range(effort.repetitions):
                    for packed in (True, False) if repetition % 2 else (False, True):
                        costs[packed].append(_stream(client, service.pid, sequences, packed=packed))
        finally:
            redis.stop()
    what = f"{sequences} sequences of {len(tasks)} tasks"
    for i, (name, whose) in enumerate((("service", "the replay service's"), ("trainer", "the trainer's"))):
        ours, plain = ([cost[i] for cost in costs[packed]] for packed in (True, False))
        yield duration_ratio(
            f"{key}.{name}", f"all that a batch of {what} costs {whose} process; plain: in groups", ours, plain
        )


def _stream(client: ReplayClient, pid: int, sequences: int, *, packed: bool) -> tuple[float, float]:
    """Processor seconds per batch of the service and of this process."""
    count = 10 * _BATCHES
    room = threading.Semaphore(_IN_FLIGHT)

    def requests() -> Iterator[replay_pb2.SampleRequest]:
        for seed in range(count):
            room.acquire()
            yield replay_pb2.SampleRequest(
                buffer_id=_RUN, batch_size=sequences, horizon=HORIZON, sampler=_SAMPLER, seed=seed, packed=packed
            )

    request = replay_pb2.SampleRequest(batch_size=sequences, horizon=HORIZON)
    before = cpu_seconds(pid), time.process_time()
    for index, response in enumerate(client.stub.Sample(requests(), timeout=600)):
        if packed:
            batch_of([response], request, index, response)
        else:
            padded(response, HORIZON, sequences)
        room.release()
    return (cpu_seconds(pid) - before[0]) / count, (time.process_time() - before[1]) / count


def _repeat(work: Callable[[], object]) -> None:
    for _ in range(_BATCHES):
        work()
