"""The one thread that computes: takes batches from the queue, plans them, hands every caller its rows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog
import torch
from torch import Tensor

from newt.agent import Planner, PlanResult
from newt.errors import NewtError, UnavailableError
from services.planner import metrics
from services.planner.batching import BatchQueue, Ticket
from services.planner.device import Device
from services.planner.model import LoadedModel
from services.planner.requests import BatchKey, Rows

log = structlog.get_logger(__name__)


@dataclass(frozen=True, eq=False)
class PlannedRows:
    """A caller's share of a device batch.

    Attributes:
        action: float32[B, A].
        value: float32[B], NaN without planning.
        next_mean: float32[B, H, A]; None without planning.
        sequence: float32[B, H, A]; None without planning.
        weights_version: Of the model that planned all rows.
        queue_seconds: From entering the queue to the start of the batch.
        compute_seconds: Of the batch.
        batch_rows: Rows of the batch, padding not counted.
    """

    action: npt.NDArray[np.float32]
    value: npt.NDArray[np.float32]
    next_mean: npt.NDArray[np.float32] | None
    sequence: npt.NDArray[np.float32] | None
    weights_version: int
    queue_seconds: float
    compute_seconds: float
    batch_rows: int


PlanQueue = BatchQueue[BatchKey, Rows, PlannedRows]
PlanTicket = Ticket[BatchKey, Rows, PlannedRows]


class Runner:
    """Plans batches until the queue is closed.

    Args:
        queue: Where batches come from.
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
        """Waits for the batch under way, after the queue was closed."""
        self._thread.join(timeout_s)

    def _loop(self) -> None:
        while (tickets := self._queue.take()) is not None:
            try:
                self._run(tickets)
            except NewtError as error:
                _fail(tickets, error)
            except Exception as error:
                # One failed batch (out of memory, say) must not end the thread that all others depend on.
                log.error("batch_failed", model_id=tickets[0].key.model_id, tickets=len(tickets), exc_info=error)
                _fail(tickets, error)

    def _run(self, tickets: list[PlanTicket]) -> None:
        key, started = tickets[0].key, time.monotonic()
        model = self._model_of(key.model_id)
        if model.spec != key.spec:
            raise UnavailableError(f"model {key.model_id!r} was replaced by one of another shape; retry")
        inputs = _join([ticket.payload for ticket in tickets], model)
        total = len(inputs["obs"])
        # All passes of a batch use one version, so that a reply has one version.
        passes = [
            self._pass({name: array[at : at + self._device.max_rows] for name, array in inputs.items()}, model, key)
            for at in range(0, total, self._device.max_rows)
        ]
        outputs = {name: np.concatenate([part[name] for part in passes]) for name in passes[0]}
        compute_seconds = time.monotonic() - started
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
            ticket.future.set_result(
                PlannedRows(
                    action=own["action"],
                    value=own["value"],
                    next_mean=own.get("plan_mean"),
                    sequence=own.get("elite_plan"),
                    weights_version=model.weights_version,
                    queue_seconds=started - ticket.queued_at,
                    compute_seconds=compute_seconds,
                    batch_rows=total,
                )
            )

    def _pass(
        self, inputs: dict[str, npt.NDArray[Any]], model: LoadedModel, key: BatchKey
    ) -> dict[str, npt.NDArray[np.float32]]:
        """One call of the agent: at most `max_rows` rows, padded with copies of the first."""
        rows = len(inputs["obs"])
        surplus = self._device.padded(rows) - rows
        if surplus:
            inputs = {name: np.concatenate([a, np.repeat(a[:1], surplus, 0)]) for name, a in inputs.items()}
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        results = _act(model.planner, tensors) if key.policy_only else _plan(model.planner, tensors, key.horizon)
        return {name: tensor.cpu().numpy()[:rows] for name, tensor in results.items()}


def _join(parts: list[Rows], model: LoadedModel) -> dict[str, npt.NDArray[Any]]:
    """Concatenates the tickets' rows; what a request says once is repeated for each of its rows."""
    weight = model.planner.config.constraint_weight
    counts = [len(part) for part in parts]
    inputs: dict[str, npt.NDArray[Any]] = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("obs", "task", "seed", "prev_mean", "first", "image")
    }
    inputs["explore"] = np.repeat([part.explore for part in parts], counts)
    inputs["constraint_weight"] = np.repeat(np.array([weight(part.env_step) for part in parts], np.float32), counts)
    return inputs


def _plan(planner: Planner, x: dict[str, Tensor], horizon: int) -> dict[str, Tensor]:
    result: PlanResult = planner.plan(
        x["obs"],
        x["task"],
        seeds=x["seed"],
        prev_mean=x["prev_mean"],
        t0=x["first"],
        explore=x["explore"],
        constraint_weight=x["constraint_weight"],
        horizon=horizon,
        image=x["image"] if planner.model.config.image_dim else None,
    )
    return {name: getattr(result, name) for name in ("action", "value", "plan_mean", "elite_plan")}


def _act(planner: Planner, x: dict[str, Tensor]) -> dict[str, Tensor]:
    image = x["image"] if planner.model.config.image_dim else None
    action = planner.act(x["obs"], x["task"], seeds=x["seed"], explore=x["explore"], image=image)
    return {"action": action, "value": torch.full((len(action),), torch.nan)}


def _fail(tickets: list[PlanTicket], error: Exception) -> None:
    for ticket in tickets:
        if not ticket.future.done():
            ticket.future.set_exception(error)
