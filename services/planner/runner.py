"""The one thread that computes: takes batches from the queue, plans them, hands every caller its rows."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog
import torch

from newt.acting.local import compute, not_finite, overflow
from newt.acting.plans import ActMode
from newt.errors import NewtError, UnavailableError
from newt.wire.tensors import encode
from newt.wire.v1 import planner_pb2
from services.planner import metrics
from services.planner.batching import SHUTTING_DOWN, BatchQueue, Ticket
from services.planner.device import Device
from services.planner.model import LoadedModel
from services.planner.requests import BatchKey, Rows

log = structlog.get_logger(__name__)

PlanQueue = BatchQueue[BatchKey, Rows, planner_pb2.PlanResponse]
PlanTicket = Ticket[BatchKey, Rows, planner_pb2.PlanResponse]
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(eq=False)
class _Batch:
    """A batch under way: `passes` computes one pass with each step."""

    tickets: list[PlanTicket]
    passes: Iterator[None]

    @property
    def model_id(self) -> str:
        return self.tickets[0].key.model_id


class Runner:
    """Plans batches until the queue is closed.

    A batch takes one pass of the device or several. Between two passes the other models have a turn: each has at most
    one batch under way, and they take their passes in rotation. However much is asked of one model, another one waits
    for no more than one pass of each.

    Args:
        queue: Queue that batches come from.
        model_of: Gives the newest version of a model by id, at the start of each batch.
        device: Rows per pass, and padding.
    """

    def __init__(self, queue: PlanQueue, model_of: Callable[[str], LoadedModel], device: Device) -> None:
        self._queue = queue
        self._model_of = model_of
        self._device = device
        self._thread = threading.Thread(target=self._loop, name="planner", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Waits for the pass under way, after the queue was closed."""
        self._thread.join(timeout_s)

    def _loop(self) -> None:
        turns: deque[_Batch] = deque()
        while not self._queue.closed:
            # Waits only where there is nothing to compute.
            tickets = self._queue.take(wait=not turns, besides={batch.model_id for batch in turns})
            if tickets:
                turns.append(_Batch(tickets, self._passes(tickets)))
            elif turns:
                batch = turns.popleft()
                if self._compute_pass(batch):
                    turns.append(batch)
        for batch in turns:
            _fail(batch.tickets, UnavailableError(SHUTTING_DOWN))

    def _compute_pass(self, batch: _Batch) -> bool:
        """One pass of a batch; returns whether there is another."""
        try:
            return next(batch.passes, self) is not self
        except NewtError as error:
            _fail(batch.tickets, error)
        except Exception as error:
            # One failed batch (out of memory, say) must not end the thread that all others depend on.
            log.error("batch_failed", model_id=batch.model_id, tickets=len(batch.tickets), exc_info=error)
            _fail(batch.tickets, error)
        return False

    def _passes(self, tickets: list[PlanTicket]) -> Iterator[None]:
        key, started = tickets[0].key, time.monotonic()
        # All passes of a batch use one version, so that a reply has one version.
        model = self._model_of(key.model_id)
        if model.shape != key.shape:
            raise UnavailableError(f"model {key.model_id!r} was replaced by one of another shape; retry")
        inputs = _join([ticket.payload for ticket in tickets], model)
        total, step = len(inputs["obs"]), self._device.rows_per_pass(key.cost)
        parts, compute_seconds = [], 0.0
        for at in range(0, total, step):
            if at:
                yield
            begun = time.monotonic()
            parts.append(self._pass({name: array[at : at + step] for name, array in inputs.items()}, model, key))
            compute_seconds += time.monotonic() - begun
        outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        assert all(len(array) == total for array in outputs.values()), "results must equal callers"

        metrics.EXECUTIONS.inc()
        metrics.REQUESTS.inc(len(tickets))
        metrics.ROWS.inc(total)
        metrics.BATCH_ROWS.observe(total)
        metrics.COMPUTE_SECONDS.observe(compute_seconds)
        at = 0
        for ticket in tickets:
            own = {name: array[at : at + ticket.rows] for name, array in outputs.items()}
            at += ticket.rows
            metrics.QUEUE_SECONDS.observe(started - ticket.queued_at)
            reply = planner_pb2.PlanResponse(
                weights_version=model.weights_version,
                queue_seconds=started - ticket.queued_at,
                compute_seconds=compute_seconds,
                batch_rows=total,
            )
            _answer(ticket, reply, own)

    def _pass(self, inputs: Arrays, model: LoadedModel, key: BatchKey) -> Arrays:
        """One call of the agent, padded with copies of the first row."""
        rows = len(inputs["obs"])
        surplus = self._device.padded(rows) - rows
        if surplus:
            inputs = {name: np.concatenate([a, np.repeat(a[:1], surplus, 0)]) for name, a in inputs.items()}
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        mode: ActMode = "planner" if key.mode == planner_pb2.ACT_MODE_PLANNER else "policy"
        results = compute(model.planner, tensors, mode, key.horizon)
        return {name: tensor.cpu().numpy()[:rows] for name, tensor in results.items()}


def _join(parts: list[Rows], model: LoadedModel) -> Arrays:
    """Concatenates the tickets' rows; what a request says once is repeated for each of its rows."""
    counts = [len(part) for part in parts]
    inputs: Arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("obs", "task", "seed", "prev_mean", "first", "image")
    }
    inputs["explore"] = np.repeat([part.explore for part in parts], counts)
    inputs["constraint_weight"] = np.concatenate(
        [
            model.constraint_weights(part.task, part.env_step)
            if part.constraint_weight is None
            else part.constraint_weight
            for part in parts
        ]
    )
    return inputs


def _answer(ticket: PlanTicket, reply: planner_pb2.PlanResponse, outputs: Arrays) -> None:
    """Gives a caller its rows, or the error of the first of them that led to no numbers: it fails alone."""
    wrong = not_finite(outputs)
    if wrong is not None:
        ticket.future.set_exception(overflow(wrong, {"obs": ticket.payload.obs, "image": ticket.payload.image}))
        return
    reply.action.CopyFrom(encode(outputs["action"]))
    # By contract: not a number where nothing was planned.
    value = outputs.get("value")
    reply.value.CopyFrom(encode(np.full(ticket.rows, np.nan, np.float32) if value is None else value))
    if "next_mean" in outputs:
        reply.next_mean.CopyFrom(encode(outputs["next_mean"]))
    if ticket.payload.want_sequence:
        reply.sequence.CopyFrom(encode(outputs["sequence"]))
    ticket.future.set_result(reply)


def _fail(tickets: list[PlanTicket], error: Exception) -> None:
    for ticket in tickets:
        if not ticket.future.done():
            ticket.future.set_exception(error)
