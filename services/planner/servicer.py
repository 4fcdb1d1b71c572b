"""The methods of PlannerService: check, queue, wait, answer."""

from __future__ import annotations

import time
from concurrent.futures import CancelledError

import grpc

from newt.acting.plans import ActMode
from newt.errors import ExhaustedError, InvalidInputError, PreconditionError, UnavailableError
from newt.runs.record import Computing
from newt.wire.chunks import check_model_id
from newt.wire.v1 import planner_pb2, planner_pb2_grpc
from services.planner import metrics
from services.planner.requests import parse
from services.planner.runner import PlanQueue, PlanTicket
from services.planner.store import ModelStore

_REASONS: dict[type[Exception], str] = {
    InvalidInputError: "invalid",
    UnavailableError: "unavailable",
    ExhaustedError: "queue_full",
    PreconditionError: "refused",
}


_MODES: dict[ActMode, planner_pb2.ActMode.ValueType] = {
    "planner": planner_pb2.ACT_MODE_PLANNER,
    "policy": planner_pb2.ACT_MODE_POLICY,
}


class PlannerServicer(planner_pb2_grpc.PlannerServiceServicer):
    """Servicer of newt.v1.PlannerService.

    Args:
        store: Models that can be served.
        queue: Queue in which checked requests wait for the runner.
        max_rows: Most rows of one request.
        computing: What plans are computed on.
    """

    def __init__(self, store: ModelStore, queue: PlanQueue, max_rows: int, computing: Computing) -> None:
        self._store = store
        self._queue = queue
        self._max_rows = max_rows
        self._computing = planner_pb2.Computing(
            device=computing.device,
            precision=computing.precision,
            compiled=computing.compiled,
            warning=computing.warning or "",
        )

    def Plan(  # noqa: N802
        self, request: planner_pb2.PlanRequest, context: grpc.ServicerContext
    ) -> planner_pb2.PlanResponse:
        """Plans one action per row."""
        try:
            return self._planned(request, context)
        except CancelledError:
            metrics.FAILURES.labels("cancelled").inc()
            # Nobody reads this: the call was cancelled or its deadline has passed.
            raise UnavailableError("the caller went away") from None
        except Exception as error:
            metrics.FAILURES.labels(_REASONS.get(type(error), "internal")).inc()
            raise

    def ListModels(  # noqa: N802
        self, request: planner_pb2.ListModelsRequest, context: grpc.ServicerContext
    ) -> planner_pb2.ListModelsResponse:
        """Models that can be served now, those that were refused, and what plans are computed on."""
        return planner_pb2.ListModelsResponse(
            models=[
                planner_pb2.Model(
                    model_id=model.model_id,
                    weights_version=model.weights_version,
                    parameters=model.parameters,
                    tasks=model.tasks,
                    horizon=model.shape.horizon,
                    action_dims=model.action_dims,
                    obs_dims=model.obs_dims,
                    image_dim=model.shape.image_dim,
                    trained_mode=_MODES[model.mode],
                )
                for model in self._store.all()
            ],
            refused=[
                planner_pb2.RefusedModel(
                    model_id=refusal.model_id, weights_version=refusal.weights_version, reason=refusal.reason
                )
                for refusal in self._store.refused()
            ],
            computing=self._computing,
        )

    def _planned(self, request: planner_pb2.PlanRequest, context: grpc.ServicerContext) -> planner_pb2.PlanResponse:
        check_model_id(request.model_id)
        model = self._store.get(request.model_id, request.min_weights_version)
        key, rows = parse(request, model.shape, self._max_rows)
        remaining_s = context.time_remaining()
        deadline = float("inf") if remaining_s is None else time.monotonic() + remaining_s
        ticket = PlanTicket(key, len(rows), rows, deadline)
        self._queue.put(ticket)

        def discard() -> None:
            self._queue.discard(ticket)

        # Called when the client cancels or its deadline passes: its rows must not be computed for nobody.
        if not context.add_callback(discard):
            discard()
        return ticket.future.result()
