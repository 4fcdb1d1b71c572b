"""The models that this process can serve, by model id; the least recently used one makes room."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection

import structlog

from newt.errors import UnavailableError
from newt.wire.chunks import Weights
from services.planner import metrics
from services.planner.model import LoadedModel

log = structlog.get_logger(__name__)


class ModelStore:
    """Loaded models. Replacing one is one assignment: batches hold the model that they began with.

    A model that had to make room is not brought back by new versions of it, only by a request for it: otherwise two
    training runs would push each other out with every publication.

    Args:
        max_models: Models kept.
        on_missed: Called when somebody asks for a model that had to make room.
    """

    def __init__(self, max_models: int, on_missed: Callable[[], None]) -> None:
        self._max_models = max_models
        self._on_missed = on_missed
        self._lock = threading.Lock()
        self._models: OrderedDict[str, LoadedModel] = OrderedDict()  # The least recently used one first.
        self._evicted: OrderedDict[str, bool] = OrderedDict()  # Whether somebody asked for it since.

    def get(self, model_id: str, min_version: int = 0) -> LoadedModel:
        """The newest version of a model.

        Raises:
            UnavailableError: There is none, or only an older one than `min_version`.
        """
        with self._lock:
            model = self._models.get(model_id)
            missed = model is None and model_id in self._evicted
            if missed:
                self._evicted[model_id] = True
            if model is not None:
                self._models.move_to_end(model_id)
        if missed:
            self._on_missed()
        if model is None:
            raise UnavailableError(
                f"no weights for model {model_id!r} yet; retry, or publish them to the hub this planner listens to"
            )
        if model.weights_version < min_version:
            raise UnavailableError(
                f"model {model_id!r}: weights version {model.weights_version}, asked for {min_version} or newer; retry"
            )
        return model

    def wants(self, weights: Weights) -> bool:
        """Whether received weights should be loaded: not those in use already, not those of an unused model."""
        with self._lock:
            held = self._models.get(weights.model_id)
            if held is not None:
                return (held.weights_version, held.sha256) != (weights.weights_version, weights.sha256)
            return self._evicted.get(weights.model_id, True) or len(self._models) < self._max_models

    def put(self, model: LoadedModel) -> None:
        """Adds a model or replaces its older version; later batches use it."""
        with self._lock:
            # A known id keeps its place: publishing is not using.
            self._models[model.model_id] = model
            self._evicted.pop(model.model_id, None)
            while len(self._models) > self._max_models:
                evicted, _ = self._models.popitem(last=False)
                self._evicted[evicted] = False
                log.info("model_evicted", model_id=evicted, max_models=self._max_models)
            while len(self._evicted) > 1024:
                self._evicted.popitem(last=False)
            metrics.MODELS.set(len(self._models))

    def drop(self, model_id: str) -> None:
        """Forgets a model; an unknown one is not an error."""
        with self._lock:
            self._evicted.pop(model_id, None)
            self._models.pop(model_id, None)
            metrics.MODELS.set(len(self._models))

    def keep_only(self, model_ids: Collection[str]) -> list[str]:
        """Forgets all models but these; returns the ids of those that were loaded."""
        with self._lock:
            dropped = [model_id for model_id in self._models if model_id not in model_ids]
            for models in (self._models, self._evicted):
                for model_id in [model_id for model_id in models if model_id not in model_ids]:
                    del models[model_id]
            metrics.MODELS.set(len(self._models))
        return dropped

    def all(self) -> list[LoadedModel]:
        """All models, the least recently used one first."""
        with self._lock:
            return list(self._models.values())
