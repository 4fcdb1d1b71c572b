"""Training batches: 1024 sequences of 4 rows out of a million stored transitions; and what they cost in Redis."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import redis
import torch

from bench import agents, processes
from bench.baselines.torchrl_buffer import slice_buffer
from bench.figures import Figure, Spread, Value
from bench.measure import Candidate, Effort, duration_ratio, interleaved
from newt.client.batches import Batches
from newt.client.buffers import BufferConfig
from newt.client.replay import ReplayClient
from newt.local import redis_server
from newt.wire.episodes import Episode
from services.learner.training.sending import update_batch

GOAL = 1.0
BYTES_GOAL = 200.0
OBS_DIM, ACTION_DIM, EPISODE_STEPS, HORIZON = 24, 6, 500, 3
_BUFFER = "bench"
_TIMEOUT_S = 60.0
_BATCHES = 20  # per repetition
_IN_FLIGHT = 4


def run(effort: Effort) -> Iterator[Figure]:
    """Fills Redis through the service, torchrl from the same arrays, and samples both."""
    transitions = effort.pick(full=1_000_000, quick=1_000_000, tiny=5_000)
    sequences = effort.pick(full=1024, quick=1024, tiny=16)
    episodes = transitions // EPISODE_STEPS
    random = np.random.default_rng(0)
    obs = random.standard_normal((episodes, EPISODE_STEPS + 1, OBS_DIM), np.float32)
    action = random.uniform(-1, 1, (episodes, EPISODE_STEPS, ACTION_DIM)).astype(np.float32)
    reward = random.random((episodes, EPISODE_STEPS), np.float32)
    # It announces every buffer on its own handler.
    logging.getLogger("torchrl").setLevel(logging.WARNING)
    content = (torch.from_numpy(obs), torch.from_numpy(action), torch.from_numpy(reward))
    plain = {
        name: slice_buffer(*content, sequences, HORIZON + 1, cached=name == "cached") for name in ("cached", "growing")
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        _redis(Path(folder)) as server,
        processes.service("services.replay", "newt.v1.ReplayService", {"REDIS_URL": server.url}) as address,
        ReplayClient(address) as client,
    ):
        store = redis.Redis.from_url(server.url)
        empty = _memory(store)
        client.create_buffer(
            _BUFFER,
            BufferConfig(
                {"walker-walk": (OBS_DIM, ACTION_DIM)},
                capacity_rows=2 * transitions,
                updates_per_env_step=1.0,
                start_env_steps=0,
                max_lead_updates=0,
            ),
        )
        for i in range(episodes):
            episode = Episode(f"e{i}", "walker-walk", obs[i], action[i], reward[i])
            client.append(episode, buffer_id=_BUFFER, timeout_s=_TIMEOUT_S)
        used = (_memory(store) - empty) / (episodes * EPISODE_STEPS)
        store.close()
        batches = partial(
            client.batches, _BUFFER, batch_size=sequences, horizon=HORIZON, seed=1, demo_fraction=0.0, limited=False
        )
        one_thread = partial(agents.torch_threads, 1)
        with batches(in_flight=_IN_FLIGHT) as ahead, batches(in_flight=1) as single:
            seconds = interleaved(
                {
                    "ours": Candidate(partial(_take, ahead, _BATCHES), partial(_drained, ahead, _IN_FLIGHT)),
                    "single": Candidate(partial(_take, single, _BATCHES), partial(_drained, single, 1)),
                    # More threads make torchrl's small tensor operations slower.
                    "cached": Candidate(partial(_sample, plain["cached"]), one_thread),
                    "growing": Candidate(partial(_sample, plain["growing"]), one_thread),
                },
                effort.repetitions,
            )
    per_batch = {name: [s / _BATCHES for s in values] for name, values in seconds.items()}
    key, what = f"replay.b{sequences}", f"a batch of {sequences} sequences of {HORIZON + 1} rows"
    yield duration_ratio(
        key,
        f"{what} from {transitions:,} transitions, fetched ahead; plain: torchrl in process, positions cached",
        per_batch["ours"],
        per_batch["cached"],
        at_least=GOAL,
    )
    yield duration_ratio(
        f"{key}.growing",
        f"{what}; plain: torchrl as it must be while a run writes to it",
        per_batch["ours"],
        per_batch["growing"],
    )
    yield duration_ratio(
        f"{key}.one_at_a_time", f"{what}, never more than one on its way", per_batch["single"], per_batch["cached"]
    )
    yield Value(
        "replay.redis_bytes",
        f"memory of Redis per transition ({OBS_DIM} + {ACTION_DIM} dims)",
        "bytes",
        Spread.of([used]),
        at_most=BYTES_GOAL,
    )


def _take(batches: Batches, count: int) -> None:
    for _ in range(count):
        update_batch(next(batches), torch.device("cpu"))  # as a trainer has it: padded


@contextmanager
def _drained(batches: Batches, in_flight: int) -> Iterator[None]:
    """Takes what was fetched while others were measured: it would be a present."""
    _take(batches, in_flight)
    yield


def _sample(buffer: object) -> None:
    for _ in range(_BATCHES):
        buffer.sample()  # type: ignore[attr-defined]


class _redis:  # noqa: N801 - a context manager
    """An embedded Redis for as long as the block lasts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> redis_server.RedisServer:
        self._server = redis_server.start(self._folder)
        return self._server

    def __exit__(self, *error: object) -> None:
        self._server.stop()


def _memory(client: redis.Redis) -> float:
    info = client.info("memory")
    assert isinstance(info, dict)
    # Data and its bookkeeping; not the buffer of the append-only file, which comes and goes.
    return float(info["used_memory"]) - float(info["mem_aof_buffer"])
