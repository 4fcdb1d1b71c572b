"""A run's agent as it is at one moment, which the planners serve while its training goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from newt.client.weights import copy, retire
from services.learner.playing.actor import Model
from services.learner.settings import LearnerSettings
from services.learner.waiting import StopFlag, loosely, patiently

HUB_TIMEOUT_S = 60.0


@contextmanager
def held_still(settings: LearnerSettings, run_id: str, tasks: Sequence[str], stop: StopFlag) -> Iterator[Model]:
    """A run's agent as it is now, until the end of the block.

    Args:
        settings: Settings with the address of the hub.
        run_id: The run.
        tasks: Its task table, in order.
        stop: Ends waiting for the hub.

    Raises:
        Stopped: The process must stop.
    """
    hub, copy_id = settings.hub_address, f"{run_id}@evaluation"
    version = patiently(lambda: copy(hub, run_id, copy_id, timeout_s=HUB_TIMEOUT_S), stop)
    with retired_at_the_end(hub, copy_id):
        yield Model(copy_id, tuple(tasks), version)


@contextmanager
def retired_at_the_end(hub: str, model_id: str) -> Iterator[None]:
    """Takes a model from the planners at the end of the block."""
    try:
        yield
    finally:
        # A hub that is gone has forgotten the model, and the next one tells the planners.
        loosely(lambda: retire(hub, model_id, timeout_s=HUB_TIMEOUT_S))
