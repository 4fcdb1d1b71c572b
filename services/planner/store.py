"""The models that this process can serve, by model id; the least recently used one makes room."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import structlog

from newt.errors import PreconditionError, UnavailableError
from newt.wire.chunks import Weights
from services.planner import metrics
from services.planner.model import LoadedModel

REMEMBERED = 1024
"""Models that are not here, but known: evicted and refused ones."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Refusal:
    """The newest version of a model, if it was not put to use.

    Attributes:
        model_id: Id of the model.
        weights_version: Version of what was refused.
        sha256: Digest of its bytes.
        reason: Reason, for people.
        final: The weights are to blame; False: this planner is, so another attempt may succeed.
    """

    model_id: str
    weights_version: int
    sha256: bytes
    reason: str
    final: bool = True


class ModelStore:
    """Loaded models. Replacing one is one assignment: batches hold the model that they began with.

    A model that had to make room is not brought back by new versions of it, only by a request for it: otherwise two
    training runs would push each other out with every publication.

    Args:
        max_models: Models kept.
        on_missed: Called when somebody asks for a model that had to make room, or could not be loaded for want of it.
    """

    def __init__(self, max_models: int, on_missed: Callable[[], None]) -> None:
        self._max_models = max_models
        self._on_missed = on_missed
        self._lock = threading.Lock()
        self._models: OrderedDict[str, LoadedModel] = OrderedDict()  # The least recently used one first.
        self._evicted: OrderedDict[str, bool] = OrderedDict()  # Whether somebody asked for it since.
        self._refused: OrderedDict[str, Refusal] = OrderedDict()
        self._kept: frozenset[str] = frozenset()

    def get(self, model_id: str, min_version: int = 0) -> LoadedModel:
        """The newest version of a model.

        Raises:
            UnavailableError: There is none, or only an older one than `min_version`.
            PreconditionError: What would do was refused as unfit.
        """
        with self._lock:
            model = self._models.get(model_id)
            if model is not None:
                self._models.move_to_end(model_id)
                if model.weights_version >= min_version:
                    return model
            refusal = self._refused.get(model_id)
            missed = model_id in self._evicted
            if missed:
                self._evicted[model_id] = True
        if missed or (refusal is not None and not refusal.final):
            self._on_missed()
        if refusal is not None and refusal.weights_version >= min_version:
            text = f"model {model_id!r}: weights version {refusal.weights_version} was refused: {refusal.reason}"
            if refusal.final:
                raise PreconditionError(f"{text}; publish weights and settings that can be used")
            raise UnavailableError(f"{text}; retry")
        if model is None:
            raise UnavailableError(
                f"no weights for model {model_id!r} yet; retry, or publish them to the hub this planner listens to"
            )
        raise UnavailableError(
            f"model {model_id!r}: weights version {model.weights_version}, asked for {min_version} or newer; retry"
        )

    def wants(self, weights: Weights) -> bool:
        """Whether received weights should be loaded: not those in use or refused already, nor of an unused model."""
        identity = weights.weights_version, weights.sha256
        with self._lock:
            if weights.model_id in self._kept:
                return False
            refusal = self._refused.get(weights.model_id)
            if refusal is not None and refusal.final and (refusal.weights_version, refusal.sha256) == identity:
                return False
            held = self._models.get(weights.model_id)
            if held is not None:
                return (held.weights_version, held.sha256) != identity
            return self._evicted.get(weights.model_id, True) or len(self._models) < self._max_models

    def put(self, model: LoadedModel) -> None:
        """Adds a model or replaces its older version; later batches use it."""
        with self._lock:
            # A known id keeps its place: publishing is not using.
            self._models[model.model_id] = model
            self._evicted.pop(model.model_id, None)
            self._refused.pop(model.model_id, None)
            while len(self._models) > self._max_models:
                evicted, _ = self._models.popitem(last=False)
                self._evicted[evicted] = False
                log.info("model_evicted", model_id=evicted, max_models=self._max_models)
            while len(self._evicted) > REMEMBERED:
                self._evicted.popitem(last=False)
            self._count()

    def refuse(self, refusal: Refusal) -> None:
        """Remembers why a model's newest version is not used; what is served of it goes on being served."""
        with self._lock:
            self._refused.pop(refusal.model_id, None)
            self._refused[refusal.model_id] = refusal
            while len(self._refused) > REMEMBERED:
                self._refused.popitem(last=False)
            self._count()

    def keep_names(self, model_ids: Collection[str]) -> None:
        """From here on, models of these names are no business of the hub: they are served from files."""
        with self._lock:
            self._kept = frozenset(model_ids)

    def kept(self, model_id: str) -> bool:
        """Whether a model is served from a file."""
        return model_id in self._kept

    def asked_again(self, model_id: str) -> bool:
        """Whether somebody asked for a model that had to make room."""
        with self._lock:
            return self._evicted.get(model_id, False)

    def drop(self, model_id: str) -> None:
        """Forgets a model; an unknown one is not an error."""
        with self._lock:
            for known in self._all():
                known.pop(model_id, None)
            self._count()

    def keep_only(self, model_ids: Collection[str]) -> list[str]:
        """Forgets all models but these and those of files; returns the ids of those that were loaded."""
        with self._lock:
            model_ids = self._kept.union(model_ids)
            dropped = [model_id for model_id in self._models if model_id not in model_ids]
            for known in self._all():
                for model_id in [model_id for model_id in known if model_id not in model_ids]:
                    del known[model_id]
            self._count()
        return dropped

    def all(self) -> list[LoadedModel]:
        """All models, the least recently used one first."""
        with self._lock:
            return list(self._models.values())

    def refused(self) -> list[Refusal]:
        """Models whose newest version is not used, the latest refusal last."""
        with self._lock:
            return list(self._refused.values())

    def _all(self) -> tuple[OrderedDict[str, Any], ...]:
        return self._models, self._evicted, self._refused

    def _count(self) -> None:
        metrics.MODELS.set(len(self._models))
        metrics.REFUSED_MODELS.set(len(self._refused))
