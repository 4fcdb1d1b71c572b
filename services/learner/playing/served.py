"""A checkpoint that the planners serve beside the models of the runs, for as long as it is needed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from newt.agent.checkpoints import weights_to_bytes
from newt.agent.config import PlanConfig
from newt.agent.constraint import Guidance
from newt.agent.world_model import WorldModel
from newt.client.weights import publish
from services.learner.playing.actor import Model
from services.learner.playing.copies import HUB_TIMEOUT_S, retired_at_the_end
from services.learner.settings import LearnerSettings


@contextmanager
def served(
    settings: LearnerSettings, model: WorldModel, plan: PlanConfig, guidance: Guidance, model_id: str
) -> Iterator[Model]:
    """Gives weights to the planners, and takes them back at the end.

    Args:
        settings: Settings with the address of the hub.
        model: The weights, with the task table to act with.
        plan: Settings of planning.
        guidance: How the weights were trained to act.
        model_id: What the planners call it.
    """
    hub = settings.hub_address
    payload = weights_to_bytes(model, guidance.to_info())
    publish(hub, model_id, 1, payload, json.dumps(plan.to_dict()), timeout_s=HUB_TIMEOUT_S)
    with retired_at_the_end(hub, model_id):
        yield Model(model_id, model.table.names)
