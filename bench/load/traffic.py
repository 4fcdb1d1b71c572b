"""What a run sends, without simulators and learning: planning requests, whole episodes, requests for batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import grpc
import numpy as np

from bench.load.meters import Traffic
from newt.tasks.registry import Task
from newt.wire.channels import connect
from newt.wire.episodes import Episode
from newt.wire.limits import PADDED_ACTION_DIM, PADDED_OBS_DIM
from newt.wire.status import rpc_code
from newt.wire.tensors import encode
from newt.wire.v1 import planner_pb2, planner_pb2_grpc, replay_pb2, replay_pb2_grpc, sim_pb2

RUN = "load"
HORIZON = 3
_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Targets:
    """Where the services are."""

    planner: str
    replay: str


class Group:
    """Env instances that step together, as a collector's half of a domain does, each in an episode of its own.

    Instances begin somewhere in their episodes, so that episodes end as evenly from the first step on as in a long run.

    Args:
        tasks: Tasks of each instance.
        table: Row of each task in the model's table.
        targets: Targets of the services.
        traffic: Counts what is sent and received.
        stop: Ends the group.
        number: Number of the group; part of episode ids.
    """

    def __init__(
        self, tasks: Sequence[Task], table: dict[str, int], targets: Targets, traffic: Traffic, stop: threading.Event,
        number: int,
    ) -> None:  # fmt: skip
        self._tasks, self._traffic, self._stop, self._number = tasks, traffic, stop, number
        self._rng = np.random.default_rng(number)
        self._task = np.array([table[task.name] for task in tasks], np.int32)
        self._lengths = np.array([task.episode_length for task in tasks])
        self._age = self._rng.integers(0, self._lengths)
        self._mean = np.zeros((len(tasks), HORIZON, PADDED_ACTION_DIM), np.float32)
        self._planner = planner_pb2_grpc.PlannerServiceStub(connect(targets.planner))
        self._replay = replay_pb2_grpc.ReplayServiceStub(connect(targets.replay))
        self._ended = 0
        self._thread = threading.Thread(target=self._loop, name=f"group-{number}", daemon=True)

    def start(self) -> None:
        """Begins to step."""
        self._thread.start()

    def join(self) -> None:
        """Waits for the end of the last step."""
        self._thread.join(_TIMEOUT_S)

    def _loop(self) -> None:
        while not self._stop.is_set():
            self._plan()
            self._age += 1
            self._simulate()
            for row in np.flatnonzero(self._age >= self._lengths).tolist():
                self._append(self._tasks[row])
                self._age[row] = 0

    def _plan(self) -> None:
        rows = len(self._tasks)
        request = planner_pb2.PlanRequest(
            model_id=RUN,
            obs=encode(self._rng.standard_normal((rows, PADDED_OBS_DIM), np.float32)),
            task=encode(self._task),
            seed=encode(self._rng.integers(0, 2**63, rows, np.uint64)),
            prev_mean=encode(self._mean),
            first=encode(self._age == 0),
            explore=True,
            mode=planner_pb2.ACT_MODE_PLANNER,
            env_step=1_000_000,
        )
        start = time.perf_counter()
        reply = self._planner.Plan(request, timeout=_TIMEOUT_S, wait_for_ready=True)
        self._traffic.count(
            env_steps=rows,
            plan_requests=1,
            plan_bytes=request.ByteSize() + reply.ByteSize(),
            plan_microseconds=int(1e6 * (time.perf_counter() - start)),
            queue_microseconds=int(1e6 * reply.queue_seconds),
        )

    def _simulate(self) -> None:
        """What the simulators' messages of this step weigh; nothing is sent."""
        rows = len(self._tasks)
        column = np.zeros(rows, np.float32)
        action = np.zeros((rows, PADDED_ACTION_DIM), np.float32)
        observation = sim_pb2.Observation(
            obs=encode(np.zeros((rows, PADDED_OBS_DIM), np.float32)),
            episode_seed=encode(np.zeros(rows, np.uint64)),
            episode_step=encode(np.zeros(rows, np.int32)),
        )
        flags = encode(np.zeros(rows, np.bool_))
        reply = sim_pb2.StepResponse(
            step_number=1_000,
            observation=observation,
            reward=encode(column),
            terminated=flags,
            truncated=flags,
            success=encode(column),
            score=encode(column),
        )
        request = sim_pb2.StepRequest(session_id="0" * 32, step_number=1_000, action=encode(action))
        self._traffic.count(sim_bytes=request.ByteSize() + reply.ByteSize())

    def _append(self, task: Task) -> None:
        self._ended += 1
        steps = task.episode_length
        episode = Episode(
            episode_id=f"{self._number}-{self._ended}",
            task=task.name,
            obs=self._rng.standard_normal((steps + 1, task.obs_dim), np.float32),
            action=self._rng.uniform(-1, 1, (steps, task.action_dim)).astype(np.float32),
            reward=self._rng.uniform(0, 1, steps).astype(np.float32),
            seed=self._ended,
        )
        request = replay_pb2.AppendRequest(buffer_id=RUN, episode=episode.to_proto())
        reply = self._replay.Append(request, timeout=_TIMEOUT_S, wait_for_ready=True)
        self._traffic.count(episodes=1, appended_steps=steps, append_bytes=request.ByteSize() + reply.ByteSize())


class Trainer:
    """Takes batches as fast as the run's ratio allows, four on their way; learns nothing.

    Args:
        targets: Targets of the services.
        batch_size: Sequences of a batch.
        traffic: Counts what is sent and received.
        stop: Ends it.
    """

    def __init__(self, targets: Targets, batch_size: int, traffic: Traffic, stop: threading.Event) -> None:
        self._batch_size, self._traffic, self._stop = batch_size, traffic, stop
        self._room = threading.Semaphore(4)
        stub = replay_pb2_grpc.ReplayServiceStub(connect(targets.replay))
        self._call = stub.Sample(self._requests())
        self._thread = threading.Thread(target=self._loop, name="trainer", daemon=True)

    def start(self) -> None:
        """Begins to take batches."""
        self._thread.start()

    def join(self) -> None:
        """Ends the stream; call when `stop` is set."""
        self._call.cancel()
        self._room.release()
        self._thread.join(_TIMEOUT_S)

    def _requests(self) -> Iterator[replay_pb2.SampleRequest]:
        update = 0
        while True:
            self._room.acquire()
            if self._stop.is_set():
                return
            yield replay_pb2.SampleRequest(
                buffer_id=RUN,
                batch_size=self._batch_size,
                horizon=HORIZON,
                demo_fraction=0.0,
                sampler=replay_pb2.SAMPLER_EPISODE_UNIFORM,
                seed=update,
                online_update=update,
                packed=True,
            )
            update += 1

    def _loop(self) -> None:
        try:
            for reply in self._call:
                self._traffic.count(batches=1, batch_bytes=reply.ByteSize())
                self._room.release()
        except grpc.RpcError as error:
            if rpc_code(error) is not grpc.StatusCode.CANCELLED:
                raise
