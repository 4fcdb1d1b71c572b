"""The gRPC face of the simulators: checks requests, finds the session, answers."""

from __future__ import annotations

import math
from collections.abc import Iterator

import grpc

import newt
from newt.errors import InvalidInputError
from newt.wire.limits import MAX_MESSAGE_BYTES
from newt.wire.tasks import to_message
from newt.wire.tensors import encode
from newt.wire.v1 import sim_pb2, sim_pb2_grpc
from services.sim.domains import Catalogue
from services.sim.domains.base import FRAME_SIZE
from services.sim.pool import WorkerPool
from services.sim.session import Session
from services.sim.sessions import Sessions
from services.sim.settings import SimSettings

# A step in which all episodes end carries two frames per row; the rest of the message is small.
_MAX_RGB_ROWS = int(MAX_MESSAGE_BYTES * 0.95) // (2 * 3 * FRAME_SIZE**2)


class SimServicer(sim_pb2_grpc.SimServiceServicer):
    """Implements newt.v1.SimService; the proto is its documentation."""

    def __init__(self, settings: SimSettings, catalogue: Catalogue, pool: WorkerPool, sessions: Sessions) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._pool = pool
        self._sessions = sessions

    def Describe(  # noqa: N802
        self, request: sim_pb2.DescribeRequest, context: grpc.ServicerContext
    ) -> sim_pb2.DescribeResponse:
        """Lists the tasks."""
        return sim_pb2.DescribeResponse(
            tasks=map(to_message, self._catalogue.tasks.values()),
            version=newt.__version__,
            max_instances=self._sessions.max_instances,
            used_instances=self._sessions.used_instances,
            workers=self._pool.size,
        )

    def Open(  # noqa: N802
        self, request: sim_pb2.OpenRequest, context: grpc.ServicerContext
    ) -> sim_pb2.OpenResponse:
        """Builds instances."""
        if not request.envs:
            raise InvalidInputError("envs", "got none; expected at least one task")
        tasks = [self._catalogue.get(env.task) for env in request.envs]
        rgb = _choice("obs_mode", request.obs_mode, sim_pb2.ObsMode) == sim_pb2.OBS_MODE_STATE_RGB
        if rgb and len(tasks) > _MAX_RGB_ROWS:
            raise InvalidInputError(
                "envs",
                f"got {len(tasks)} instances with frames; at most {_MAX_RGB_ROWS} fit into a message. Open several "
                "sessions.",
            )
        auto_reset = _choice("auto_reset", request.auto_reset, sim_pb2.AutoReset)
        if request.with_expert:
            without = [task.name for task in tasks if not task.has_expert]
            if without:
                raise InvalidInputError("with_expert", f"{without[0]} has no scripted expert")
        if not (math.isfinite(request.lease_s) and request.lease_s >= 0):
            raise InvalidInputError("lease_s", f"got {request.lease_s}; expected seconds, or 0 for the default")
        lease_s = min(request.lease_s or self._settings.default_lease_s, self._settings.max_lease_s)

        def make() -> Session:
            return Session(
                tasks,
                [env.seed for env in request.envs],
                rgb=rgb,
                same_step=auto_reset in (sim_pb2.AUTO_RESET_UNSPECIFIED, sim_pb2.AUTO_RESET_SAME_STEP),
                next_step=auto_reset == sim_pb2.AUTO_RESET_NEXT_STEP,
                with_expert=request.with_expert,
                pool=self._pool,
                timeout_s=self._settings.step_timeout_s,
                light_rows=self._settings.light_rows,
                wanted=context.is_active,
            )

        session_id = self._sessions.open(len(tasks), lease_s, make)
        if not context.is_active():
            # The caller has given up and will never learn the id.
            self._sessions.close(session_id)
        return sim_pb2.OpenResponse(session_id=session_id, lease_s=lease_s, envs=map(to_message, tasks))

    def Reset(  # noqa: N802
        self, request: sim_pb2.ResetRequest, context: grpc.ServicerContext
    ) -> sim_pb2.ResetResponse:
        """Starts episodes."""
        with self._sessions.use(request.session_id) as session:
            return sim_pb2.ResetResponse(observation=session.reset(request.rows, request.seeds))

    def Step(  # noqa: N802
        self, request: sim_pb2.StepRequest, context: grpc.ServicerContext
    ) -> sim_pb2.StepResponse:
        """One step."""
        with self._sessions.use(request.session_id) as session:
            reply = session.step(request.step_number, request.action)
        reply.draining = self._sessions.sends_away(request.session_id)
        return reply

    def StepStream(  # noqa: N802
        self, request_iterator: Iterator[sim_pb2.StepRequest], context: grpc.ServicerContext
    ) -> Iterator[sim_pb2.StepResponse]:
        """Steps, one after the other."""
        with self._sessions.stepped():
            for request in request_iterator:
                yield self.Step(request, context)

    def Render(  # noqa: N802
        self, request: sim_pb2.RenderRequest, context: grpc.ServicerContext
    ) -> sim_pb2.RenderResponse:
        """Draws."""
        with self._sessions.use(request.session_id) as session:
            return sim_pb2.RenderResponse(frames=encode(session.render(request.rows)))

    def Renew(  # noqa: N802
        self, request: sim_pb2.RenewRequest, context: grpc.ServicerContext
    ) -> sim_pb2.RenewResponse:
        """Extends the lease."""
        return sim_pb2.RenewResponse(lease_s=self._sessions.renew(request.session_id))

    def Close(  # noqa: N802
        self, request: sim_pb2.CloseRequest, context: grpc.ServicerContext
    ) -> sim_pb2.CloseResponse:
        """Ends a session."""
        self._sessions.close(request.session_id)
        return sim_pb2.CloseResponse()


def _choice(field: str, value: int, enum: type) -> int:
    known: dict[str, int] = dict(enum.items())  # type: ignore[attr-defined]
    if value not in known.values():
        raise InvalidInputError(field, f"got {value}; expected one of {', '.join(known)}")
    return value
