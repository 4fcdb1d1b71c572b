"""The gRPC methods of replay."""

from __future__ import annotations

import time
from collections.abc import Iterator

import grpc

from newt.wire.v1 import replay_pb2, replay_pb2_grpc
from services.replay.catalog import Catalog
from services.replay.checks import check_await_sample, check_count, check_sample
from services.replay.waiting import Caller

# AwaitInsert and AwaitSample answer this long before the call's deadline, so that the answer arrives in time.
_ANSWER_SECONDS = 0.25
# For calls without a deadline.
_LONGEST_WAIT_SECONDS = 60.0


class ReplayServicer(replay_pb2_grpc.ReplayServiceServicer):
    """Reads requests, asks the catalog, writes replies."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def CreateBuffer(  # noqa: D102, N802 - the proto documents it
        self, request: replay_pb2.CreateBufferRequest, context: grpc.ServicerContext
    ) -> replay_pb2.CreateBufferResponse:
        return replay_pb2.CreateBufferResponse(existed=self._catalog.create_buffer(request))

    def DeleteBuffer(  # noqa: D102, N802
        self, request: replay_pb2.DeleteBufferRequest, context: grpc.ServicerContext
    ) -> replay_pb2.DeleteBufferResponse:
        return replay_pb2.DeleteBufferResponse(episodes=self._catalog.delete_buffer(request.buffer_id))

    def Append(  # noqa: D102, N802
        self, request: replay_pb2.AppendRequest, context: grpc.ServicerContext
    ) -> replay_pb2.AppendResponse:
        appended = self._catalog.append(request, _remaining(context))
        return replay_pb2.AppendResponse(
            duplicate=appended.status == "duplicate",
            env_steps=appended.env_steps,
            task_env_steps=appended.task_steps,
            task_episodes=appended.task_episodes,
            evicted_episodes=appended.evicted,
        )

    def AwaitInsert(  # noqa: D102, N802
        self, request: replay_pb2.AwaitInsertRequest, context: grpc.ServicerContext
    ) -> replay_pb2.AwaitInsertResponse:
        buffer = self._catalog.buffer(request.buffer_id)
        check_count("env_steps_taken", request.env_steps_taken)
        check_count("env_steps_elsewhere", request.env_steps_elsewhere)
        return buffer.await_insert(request, self._waiting(context))

    def AwaitSample(  # noqa: D102, N802
        self, request: replay_pb2.AwaitSampleRequest, context: grpc.ServicerContext
    ) -> replay_pb2.AwaitSampleResponse:
        buffer = self._catalog.buffer(request.buffer_id)
        check_await_sample(request)
        return buffer.await_sample(request, self._waiting(context))

    def Sample(  # noqa: D102, N802
        self, request_iterator: Iterator[replay_pb2.SampleRequest], context: grpc.ServicerContext
    ) -> Iterator[replay_pb2.SampleResponse]:
        self._wake_when_gone(context)
        for request in request_iterator:
            buffer = self._catalog.buffer(request.buffer_id)
            check_sample(request, buffer.config)
            deadline = time.monotonic() + (context.time_remaining() or float("inf"))
            response = buffer.sample(request, Caller(context.is_active, deadline))
            if response is None:
                return
            yield response

    def GetBuffer(  # noqa: D102, N802
        self, request: replay_pb2.GetBufferRequest, context: grpc.ServicerContext
    ) -> replay_pb2.GetBufferResponse:
        return self._catalog.buffer(request.buffer_id).describe()

    def ListDemoSets(  # noqa: D102, N802
        self, request: replay_pb2.ListDemoSetsRequest, context: grpc.ServicerContext
    ) -> replay_pb2.ListDemoSetsResponse:
        return replay_pb2.ListDemoSetsResponse(demo_sets=self._catalog.list_demo_sets(request.demo_set))

    def DeleteDemoSet(  # noqa: D102, N802
        self, request: replay_pb2.DeleteDemoSetRequest, context: grpc.ServicerContext
    ) -> replay_pb2.DeleteDemoSetResponse:
        return replay_pb2.DeleteDemoSetResponse(episodes=self._catalog.delete_demo_set(request.demo_set))

    def ReadEpisodes(  # noqa: D102, N802
        self, request: replay_pb2.ReadEpisodesRequest, context: grpc.ServicerContext
    ) -> Iterator[replay_pb2.ReadEpisodesResponse]:
        for episode in self._catalog.read_episodes(request):
            yield replay_pb2.ReadEpisodesResponse(episode=episode.to_proto())

    def _waiting(self, context: grpc.ServicerContext) -> Caller:
        """A caller that gets its answer in time, also if that is to ask again."""
        self._wake_when_gone(context)
        remaining = _remaining(context)
        wait = max(remaining - _ANSWER_SECONDS, remaining / 2)
        return Caller(context.is_active, time.monotonic() + wait)

    def _wake_when_gone(self, context: grpc.ServicerContext) -> None:
        """Makes waiting calls look at their callers as soon as this one ends, so that its thread comes free."""
        context.add_callback(self._catalog.wake_all)


def _remaining(context: grpc.ServicerContext) -> float:
    remaining = context.time_remaining()
    return _LONGEST_WAIT_SECONDS if remaining is None else max(0.0, min(remaining, _LONGEST_WAIT_SECONDS))
