"""Training batches of which every shard draws a part."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from newt.client.batches import STREAM_SECONDS, batch_of, channel_closed, ended_by_service
from newt.client.placement import parts
from newt.client.read_ahead import BatchOrder, ReadAhead, batch_seed
from newt.client.replay import ReplayClient
from newt.errors import UnavailableError
from newt.wire.peer import Peer
from newt.wire.v1 import replay_pb2

# A shard answers a little earlier, so that it hears of what the others have stored meanwhile.
_AWAIT_SECONDS = 2.0
# What shards have to draw from is asked for again when the last word is this old.
_FRESH_SECONDS = 1.0
# Between two looks for something to draw from.
_STARVED_PAUSE_SECONDS = 0.1
# How often a shard that was left out is asked again.
_RETRY_SECONDS = 10.0


@dataclass(eq=False)
class _Shard:
    """One shard, as one iterator of batches knows it.

    Attributes:
        client: Its client.
        number: Its number.
        env_steps: Transitions that it has stored, last we heard.
        supply: What it has to draw from.
        away: Why it is left out; empty if it is not.
        call: Its open stream of parts.
    """

    client: ReplayClient
    number: int
    env_steps: int
    supply: replay_pb2.Supply = field(default_factory=replay_pb2.Supply)
    away: str = ""
    call: Any = None
    _requests: queue.SimpleQueue[replay_pb2.SampleRequest | None] = field(default_factory=queue.SimpleQueue)

    def open(self) -> Any:
        """Begins a stream."""
        self._requests = queue.SimpleQueue()
        self.call = self.client.stub.Sample(iter(self._requests.get, None), timeout=STREAM_SECONDS)
        return self.call

    def ask(self, request: replay_pb2.SampleRequest) -> None:
        """Sends a request on the stream."""
        self._requests.put(request)

    def end(self) -> None:
        """Ends the stream."""
        self._requests.put(None)
        if self.call is not None:
            self.call.cancel()

    def heard(self, supply: replay_pb2.Supply) -> None:
        """Takes over what the shard says of itself."""
        self.supply, self.env_steps = supply, max(self.env_steps, supply.env_steps)


class ShardBatches(ReadAhead):
    """Batches of several services; made by ReplayShards.batches.

    Every shard says what it has to draw from, the seed of a batch decides how many of its sequences each of them draws,
    and their parts are put together by task. All shards hold it to the limiter, and hear from us what the others have
    stored, so that they go by the same counts. A batch of which a part got lost is asked for again as a whole.

    Args:
        shards: Finds the buffer's shards, in order, with the transitions that each has stored.
        order: What is asked for.
        leave_out: Go on without a shard that is away.
    """

    def __init__(
        self, shards: Callable[[], Sequence[tuple[ReplayClient, int]]], order: BatchOrder, *, leave_out: bool
    ) -> None:
        self._find, self._leave_out = shards, leave_out
        self._all: list[_Shard] = []
        self._supplied = self._retry = 0.0
        self._blocked = 0.0  # Seconds that the next batch was waited for so far.
        super().__init__(order)

    def _stream(self) -> None:
        self._wait_for_room(self._fetched)
        before = self._fetched
        if not self._all:
            self._all = [_Shard(client, i, env_steps) for i, (client, env_steps) in enumerate(self._find())]
        present: list[_Shard] = []
        try:
            self._meet()
            present = [shard for shard in self._all if not shard.away]
            with self._changed:
                if self._closed:
                    return
                self._calls = [shard.open() for shard in present]
            self._read_on(present)
        except UnavailableError:
            if self._fetched == before:
                raise
        finally:
            self._supplied = 0.0
            for shard in present:
                shard.end()

    def _read_on(self, shards: Sequence[_Shard]) -> None:
        """Asks for batches, and reads them, until all are read, or something ends the streams."""
        asked, waits = self._fetched, dict[int, float]()
        while not self._closed and self._fetched != self._order.stop_index:
            starved = False
            while self._may_ask(asked):
                drawn = parts(
                    np.random.default_rng(batch_seed(self._order.seed, asked)),
                    [shard.supply for shard in shards],
                    self._order.template.batch_size,
                    self._order.template.demo_fraction,
                )
                starved = drawn is None
                if drawn is None:
                    break
                for shard, part in zip(shards, drawn, strict=True):
                    shard.ask(self._request(shard, asked, part))
                waits[asked], self._blocked = self._blocked, 0.0
                asked += 1
            if self._fetched < asked:
                responses = [self._answer(shard) for shard in shards]
                if any(response is None for response in responses):
                    return
                self._put([response for response in responses if response is not None], waits.pop(self._fetched))
                self._supplied = time.monotonic()
            elif self._retry and time.monotonic() >= self._retry:
                return  # to the shards that were away
            else:
                self._wait_for_room(asked)
                if starved:
                    self._pause(_STARVED_PAUSE_SECONDS)
                    self._blocked += _STARVED_PAUSE_SECONDS
                for _, error in self._await(shards, asked, starved=starved):
                    raise error

    def _meet(self) -> None:
        """Asks all shards for what they have, and decides who is left out.

        Raises:
            UnavailableError: One is away, or if such are left out, all are.
        """
        missing = self._await(self._all, self._fetched)
        if missing and not (self._leave_out and len(missing) < len(self._all)):
            raise missing[0][1]
        for shard in self._all:
            shard.away = ""
        for shard, error in missing:
            shard.away = str(error)
        self._retry = time.monotonic() + _RETRY_SECONDS if missing else 0.0

    def _wait_for_room(self, index: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_room(index))

    def _may_ask(self, index: int) -> bool:
        """Whether what is known is enough to ask for the batch of an index now."""
        if self._closed or (self._retry and time.monotonic() >= self._retry):
            return False
        with self._changed:
            if not self._has_room(index):
                return False
        if time.monotonic() - self._supplied > _FRESH_SECONDS:
            return False
        permitted = min(shard.supply.permitted_updates for shard in self._all if not shard.away)
        return not self._order.limited or index < permitted

    def _request(self, shard: _Shard, index: int, part: replay_pb2.Part) -> replay_pb2.SampleRequest:
        request = replay_pb2.SampleRequest()
        request.CopyFrom(self._order.template)
        request.batch_size = part.demos + part.online
        request.part.CopyFrom(part)
        request.seed = batch_seed(batch_seed(self._order.seed, index), shard.number)
        request.env_steps_elsewhere = self._stored_elsewhere(shard)
        if self._order.limited:
            request.online_update = index
        return request

    def _stored_elsewhere(self, shard: _Shard) -> int:
        return sum(other.env_steps for other in self._all if other is not shard)

    def _answer(self, shard: _Shard) -> replay_pb2.SampleResponse | None:
        """The shard's next part; None if the stream has ended without a fault of anybody's."""
        try:
            response: replay_pb2.SampleResponse | None = next(shard.call, None)
        except grpc.RpcError as error:
            if channel_closed(shard.call):
                self._closed = True
            if self._closed or ended_by_service(shard.call):
                return None
            raise shard.client.peer.error(error, STREAM_SECONDS) from error
        if response is not None:
            shard.heard(response.supply)
        return response

    def _put(self, responses: Sequence[replay_pb2.SampleResponse], waited: float) -> None:
        facts = replay_pb2.SampleResponse(
            env_steps=sum(shard.env_steps for shard in self._all),
            env_steps_taken=max(response.env_steps_taken for response in responses),
            acting_weights_version=max(response.acting_weights_version for response in responses),
            blocked_seconds=waited + max(response.blocked_seconds for response in responses),
        )
        self.left_out = "; ".join(shard.away for shard in self._all if shard.away) or None
        self._deliver(batch_of(responses, self._order.template, self._fetched, facts))

    def _await(
        self, shards: Sequence[_Shard], index: int, *, starved: bool = False
    ) -> list[tuple[_Shard, UnavailableError]]:
        """Asks shards for what they have; waits a while if one of them does not allow the update of the index.

        Returns:
            Those that are away, and why.
        """
        requests = [
            replay_pb2.AwaitSampleRequest(
                buffer_id=self._order.template.buffer_id,
                horizon=self._order.template.horizon,
                sampler=self._order.template.sampler,
                online_update=index if self._order.limited else None,
                env_steps_elsewhere=self._stored_elsewhere(shard),
                starved=starved,
            )
            for shard in shards
        ]
        with self._changed:
            if self._closed:
                return []
            calls = [
                shard.client.stub.AwaitSample.future(request, timeout=_AWAIT_SECONDS)
                for shard, request in zip(shards, requests, strict=True)
            ]
            self._calls += calls
        missing: list[tuple[_Shard, UnavailableError]] = []
        blocked = 0.0
        for shard, call in zip(shards, calls, strict=True):
            try:
                response = call.result()
            except grpc.RpcError as error:
                if channel_closed(call):
                    self._closed = True
                if self._closed:
                    return []
                missing.append((shard, _unavailable(shard.client.peer, error)))
            except grpc.FutureCancelledError:
                return []
            else:
                shard.heard(response.supply)
                blocked = max(blocked, response.blocked_seconds)
        with self._changed:
            self._calls = [call for call in self._calls if call not in calls]
        self._blocked += blocked
        self._supplied = time.monotonic()
        return missing


def _unavailable(peer: Peer, error: grpc.RpcError) -> UnavailableError:
    """What a call that has failed stands for, if it is worth repeating; raises what it stands for if not."""
    translated = peer.error(error, _AWAIT_SECONDS)
    if not isinstance(translated, UnavailableError):
        raise translated from error
    return translated
