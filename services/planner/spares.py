"""Planners whose recordings outlive the weights that they were made with: two take turns for each model."""

from __future__ import annotations

import threading
import weakref
from collections import Counter

from newt.agent.config import ModelConfig, PlanConfig
from newt.agent.inference import InferenceModel
from newt.agent.planning import Planner
from newt.agent.recorded import recorder_for

_Kind = tuple[ModelConfig, PlanConfig, int, int]


class Spares:
    """Lends planners that record. One that is lent is used with its weights until nobody knows its borrower any more.

    What is recorded of a plan has the addresses of its weights. So new weights are loaded into a planner that is spare,
    beside the one that plans; and that becomes the spare one when the last batch has ended that began with it.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a borrower may end wherever memory is collected, here too
        self._lent: Counter[_Kind] = Counter()
        self._spare: dict[_Kind, Planner] = {}

    def take(self, model: InferenceModel, config: PlanConfig) -> Planner:
        """A planner with the weights of a model; `lend` it, or `give_back`."""
        kind = _kind(model, config)
        with self._lock:
            self._lent[kind] += 1
            planner = self._spare.pop(kind, None)
        if planner is None:
            return Planner(model, config, recorder_for(model.device))
        planner.model.load(model)
        return planner

    def lend(self, planner: Planner, borrower: object) -> None:
        """Takes a planner back when its borrower is forgotten."""
        weakref.finalize(borrower, self.give_back, planner).atexit = False

    def give_back(self, planner: Planner) -> None:
        """Keeps a planner for the next weights of its kind, if there still are models of it, and one at most."""
        kind = _kind(planner.model, planner.config)
        with self._lock:
            self._lent[kind] -= 1
            if self._lent[kind]:
                self._spare[kind] = planner
            else:
                del self._lent[kind]
                self._spare.pop(kind, None)


def _kind(model: InferenceModel, config: PlanConfig) -> _Kind:
    """What a recording depends on, besides the weights: the draws leave out columns that no task has."""
    return model.config, config, len(model.table), int(model.table.action_dims.max())
