"""Right requests for every method of every service, to be made wrong, and whether right ones still work."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import grpc
import numpy as np
import redis
from google.protobuf.message import Message
from house import NAMES, PLAN_JSON, House, payload

from newt.client.replay import ReplayClient
from newt.client.weights import publish, retire
from newt.wire.chunks import Weights, split
from newt.wire.episodes import Behaviour
from newt.wire.tensors import encode
from newt.wire.v1 import planner_pb2, replay_pb2, sim_pb2, sim_pb2_grpc, weights_pb2

PATIENT_S = 20.0


class Rig:
    """Right requests of one service, and what is to be cleared away after wrong ones."""

    def __init__(self, house: House, channel: grpc.Channel) -> None:
        self.house, self.channel = house, channel

    def requests(self, method: str) -> list[Message]:
        """What a right call of a method sends; state that it needs is there."""
        raise NotImplementedError

    def clear(self) -> None:
        """Removes what calls have left."""

    def works(self, streams: bool = True) -> None:
        """A right client still gets what it wants.

        Args:
            streams: Also by streams.
        """
        raise NotImplementedError


class SimRig(Rig):
    def __init__(self, house: House, channel: grpc.Channel) -> None:
        super().__init__(house, channel)
        self._stub = sim_pb2_grpc.SimServiceStub(channel)
        self._session = ""
        self._left = 0

    def requests(self, method: str) -> list[Message]:
        envs = [sim_pb2.EnvSpec(task="noop", seed=1), sim_pb2.EnvSpec(task="noop-short", seed=2)]
        if method == "Open":
            return [sim_pb2.OpenRequest(envs=envs, obs_mode=1, auto_reset=1, lease_s=1.0)]
        if method == "Describe":
            return [sim_pb2.DescribeRequest()]
        if not self._left:
            self.clear()
            opened = self._stub.Open(sim_pb2.OpenRequest(envs=envs), timeout=PATIENT_S)
            self._session, self._left = opened.session_id, 6
            self._stub.Reset(sim_pb2.ResetRequest(session_id=self._session), timeout=PATIENT_S)
        self._left -= 1
        action = encode(np.zeros((2, 16), np.float32))
        steps = [sim_pb2.StepRequest(session_id=self._session, step_number=n, action=action) for n in (1, 2, 3)]
        return {
            "Reset": [sim_pb2.ResetRequest(session_id=self._session, rows=[0, 1], seeds=[7, 8])],
            "Step": steps[:1],
            "StepStream": steps,
            "Render": [sim_pb2.RenderRequest(session_id=self._session, rows=[1])],
            "Renew": [sim_pb2.RenewRequest(session_id=self._session)],
            "Close": [sim_pb2.CloseRequest(session_id=self._session)],
        }[method]

    def clear(self) -> None:
        if self._session:
            self._stub.Close(sim_pb2.CloseRequest(session_id=self._session), timeout=PATIENT_S)
            self._session, self._left = "", 0

    def works(self, streams: bool = True) -> None:
        self.clear()
        action = encode(np.zeros((1, 16), np.float32))
        deadline = time.monotonic() + 15
        while True:  # Sessions that strangers left end with their leases.
            with suppress(grpc.RpcError):
                request = sim_pb2.OpenRequest(envs=[sim_pb2.EnvSpec(task="noop")] * 100)
                self._session = self._stub.Open(request, timeout=PATIENT_S).session_id
                break
            assert time.monotonic() < deadline
            time.sleep(0.2)
        self.clear()
        opened = self._stub.Open(sim_pb2.OpenRequest(envs=[sim_pb2.EnvSpec(task="noop")]), timeout=PATIENT_S)
        self._session = opened.session_id
        self._stub.Reset(sim_pb2.ResetRequest(session_id=self._session), timeout=PATIENT_S)
        step = sim_pb2.StepRequest(session_id=self._session, step_number=1, action=action)
        assert self._stub.Step(step, timeout=PATIENT_S).step_number == 1
        self.clear()


class ReplayRig(Rig):
    def __init__(self, house: House, channel: grpc.Channel) -> None:
        super().__init__(house, channel)
        self._number = 0

    def requests(self, method: str) -> list[Message]:
        self._number += 1
        config = replay_pb2.CreateBufferRequest(
            buffer_id="fuzz",
            tasks=[replay_pb2.TaskDims(task="reach", obs_dim=3, action_dim=2)],
            capacity_rows=500,
            limiter=replay_pb2.Limiter(updates_per_env_step=0.5, start_env_steps=0, max_lead_updates=0),
        )
        if self._number % 7 == 1:
            with suppress(grpc.RpcError):
                self._call("CreateBuffer", config)
        episode = replay_pb2.Episode(
            episode_id=f"e{self._number}",
            task="reach",
            obs=encode(np.zeros((9, 3), np.float32)),
            action=encode(np.zeros((8, 2), np.float32)),
            reward=encode(np.zeros(8, np.float32)),
            behaviour=Behaviour.RANDOM,
            seed=3,
        )
        if self._number % 2:
            append = replay_pb2.AppendRequest(buffer_id="fuzz", episode=episode)
        else:
            append = replay_pb2.AppendRequest(demo_set="fuzz-demos", episode=episode)
        sample = replay_pb2.SampleRequest(buffer_id="fuzz", batch_size=4, horizon=3, sampler=1, seed=1)
        limited = replay_pb2.SampleRequest(buffer_id="fuzz", batch_size=4, horizon=3, seed=2, online_update=0)
        part = replay_pb2.SampleRequest(
            buffer_id="fuzz", batch_size=3, horizon=3, part=replay_pb2.Part(online=3), env_steps_elsewhere=8
        )
        placed = replay_pb2.CreateBufferRequest()
        placed.CopyFrom(config)
        placed.placement.CopyFrom(replay_pb2.Placement(shards=2, shard=1, task_shards=[1]))
        return {
            "CreateBuffer": [config, placed],
            "DeleteBuffer": [replay_pb2.DeleteBufferRequest(buffer_id="fuzz")],
            "Append": [append],
            "AwaitInsert": [replay_pb2.AwaitInsertRequest(buffer_id="fuzz")],
            "AwaitSample": [replay_pb2.AwaitSampleRequest(buffer_id="fuzz", horizon=3, online_update=0, starved=True)],
            "Sample": [sample, limited, part, sample],
            "GetBuffer": [replay_pb2.GetBufferRequest(buffer_id="fuzz")],
            "ListDemoSets": [replay_pb2.ListDemoSetsRequest(demo_set="fuzz-demos")],
            "DeleteDemoSet": [replay_pb2.DeleteDemoSetRequest(demo_set="fuzz-demos")],
            "ReadEpisodes": [replay_pb2.ReadEpisodesRequest(buffer_id="fuzz", task="reach")],
        }[method]

    def _call(self, method: str, request: Message) -> None:
        path = f"/{NAMES['replay']}/{method}"
        self.channel.unary_unary(path, lambda m: m.SerializeToString(), None)(request, timeout=PATIENT_S)

    def clear(self) -> None:
        with redis.Redis.from_url(self.house.redis.url) as client:
            spaces = sorted(client.smembers("newt:replay:1:spaces"))
        for space in spaces:
            kind, _, name = space.decode().partition(":")
            if kind == "buffer":
                self._call("DeleteBuffer", replay_pb2.DeleteBufferRequest(buffer_id=name))
        for space in spaces:
            kind, _, name = space.decode().partition(":")
            if kind == "demos":
                with suppress(grpc.RpcError):
                    self._call("DeleteDemoSet", replay_pb2.DeleteDemoSetRequest(demo_set=name))

    def works(self, streams: bool = True) -> None:
        self.clear()
        self.requests("Append")
        config = self.requests("CreateBuffer")[0]
        self._call("CreateBuffer", config)
        for _ in range(2):
            self._call("Append", next(r for r in (self.requests("Append")[0] for _ in range(2)) if r.buffer_id))
        with ReplayClient(self.house.addresses["replay"]) as client:
            assert client.get_buffer("fuzz").episodes == 2
            if streams:
                values = {"batch_size": 4, "horizon": 3, "seed": 1, "demo_fraction": 0.0, "limited": False}
                with client.batches("fuzz", **values) as batches:  # type: ignore[arg-type]
                    assert next(batches).obs.shape == (4, 4, 128)
        self.clear()


class HubRig(Rig):
    def __init__(self, house: House, channel: grpc.Channel) -> None:
        super().__init__(house, channel)
        self._payload = payload()
        self._version = 1

    def requests(self, method: str) -> list[Message]:
        self._version += 1
        weights = Weights("fuzz", self._version, self._payload, PLAN_JSON)
        chunks = [weights_pb2.PublishRequest(chunk=chunk) for chunk in split(weights, 16 * 1024)]
        return {
            "Publish": chunks,
            "Subscribe": [weights_pb2.SubscribeRequest(subscriber="fuzz")],
            "Copy": [weights_pb2.CopyRequest(model_id="fuzz", copy_id="fuzz@copy")],
            "Retire": [weights_pb2.RetireRequest(model_id="fuzz")],
        }[method]

    def clear(self) -> None:
        retire(self.house.addresses["learner"], "fuzz", timeout_s=PATIENT_S)

    def works(self, streams: bool = True) -> None:
        self.clear()
        if streams:
            publish(self.house.addresses["learner"], "fuzz", 1, self._payload, PLAN_JSON, timeout_s=PATIENT_S)
            self.clear()


class PlannerRig(Rig):
    def __init__(self, house: House, channel: grpc.Channel) -> None:
        super().__init__(house, channel)
        publish(house.addresses["learner"], "plans", 1, payload(), PLAN_JSON, timeout_s=PATIENT_S)
        deadline = time.monotonic() + 30
        while not self._planned():
            assert time.monotonic() < deadline, house.log("planner")[-3000:]
            time.sleep(0.1)

    def requests(self, method: str) -> list[Message]:
        if method == "ListModels":
            return [planner_pb2.ListModelsRequest()]
        rows = 3
        return [
            planner_pb2.PlanRequest(
                model_id="plans",
                obs=encode(np.zeros((rows, 128), np.float32)),
                task=encode(np.arange(rows, dtype=np.int32)),
                prev_mean=encode(np.zeros((rows, 3, 16), np.float32)),
                first=encode(np.zeros(rows, np.bool_)),
                seed=encode(np.arange(rows, dtype=np.uint64)),
                explore=True,
                env_step=5,
                want_sequence=True,
            )
        ]

    def _planned(self) -> bool:
        call = self.channel.unary_unary(
            f"/{NAMES['planner']}/Plan", lambda m: m.SerializeToString(), planner_pb2.PlanResponse.FromString
        )
        with suppress(grpc.RpcError):
            return bool(call(self.requests("Plan")[0], timeout=PATIENT_S).weights_version == 1)
        return False

    def works(self, streams: bool = True) -> None:
        assert self._planned()


RIGS: dict[str, Callable[[House, grpc.Channel], Rig]] = {
    "sim": SimRig,
    "replay": ReplayRig,
    "learner": HubRig,
    "planner": PlannerRig,
}
