"""A checkpoint that the planners serve beside the models of the runs, for as long as it is needed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from newt.agent.checkpoints import Checkpoint, weights_to_bytes
from newt.client.weights import publish, retire
from newt.runs.record import Run
from services.learner.acting import Model
from services.learner.settings import LearnerSettings

HUB_TIMEOUT_S = 60.0


@contextmanager
def served(settings: LearnerSettings, run: Run, name: str, checkpoint: Checkpoint, model_id: str) -> Iterator[Model]:
    """The model that acts with a checkpoint's weights, with the run's settings of planning.

    Args:
        settings: With the address of the hub.
        run: Whose checkpoint it is.
        name: Of the checkpoint.
        checkpoint: Its content.
        model_id: What the planners call it.
    """
    hub = f"{settings.hub_host}:{settings.hub_port}"
    plan_json = json.dumps(run.spec.plan_settings().to_dict())
    payload = weights_to_bytes(checkpoint.model(), {"run_id": run.id, "checkpoint": name})
    publish(hub, model_id, 1, payload, plan_json, timeout_s=HUB_TIMEOUT_S)
    try:
        yield Model(model_id, checkpoint.table.names)
    finally:
        retire(hub, model_id, timeout_s=HUB_TIMEOUT_S)
