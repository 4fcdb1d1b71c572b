from __future__ import annotations

import pytest

from newt.errors import UnavailableError
from newt.wire.chunks import Weights
from services.planner.model import LoadedModel
from services.planner.requests import ModelSpec
from services.planner.store import ModelStore

SPEC = ModelSpec(obs_dim=128, action_dim=16, image_dim=0, num_tasks=3, horizon=3)


def published(model_id: str, version: int = 1) -> Weights:
    return Weights(model_id, version, f"{model_id}{version}".encode(), "{}")


def loaded(model_id: str, version: int = 1) -> LoadedModel:
    weights = published(model_id, version)
    # The store never plans, so no agent is needed here.
    return LoadedModel(model_id, version, weights.sha256, None, SPEC, (), 0)  # type: ignore[arg-type]


def store(max_models: int = 2) -> tuple[ModelStore, list[str]]:
    missed: list[str] = []
    return ModelStore(max_models, lambda: missed.append("missed")), missed


def ids(models: ModelStore) -> list[str]:
    return [model.model_id for model in models.all()]


def test_an_unknown_or_old_model_is_unavailable() -> None:
    models, missed = store()
    with pytest.raises(UnavailableError, match="no weights for model 'a'"):
        models.get("a")
    models.put(loaded("a", 3))
    assert models.get("a", 3).weights_version == 3
    with pytest.raises(UnavailableError, match="version 3, asked for 4"):
        models.get("a", 4)
    assert missed == []


def test_the_least_recently_used_model_makes_room() -> None:
    models, _ = store()
    models.put(loaded("a"))
    models.put(loaded("b"))
    models.get("a")
    models.put(loaded("c"))
    assert ids(models) == ["a", "c"]


def test_publishing_is_not_using() -> None:
    models, _ = store()
    models.put(loaded("a"))
    models.put(loaded("b"))
    models.put(loaded("a", 2))
    models.put(loaded("c"))
    assert ids(models) == ["b", "c"]


def test_a_model_that_made_room_comes_back_only_when_it_is_asked_for() -> None:
    models, missed = store()
    for name in ("a", "b", "c"):
        models.put(loaded(name))
    assert not models.wants(published("a", 2))
    with pytest.raises(UnavailableError):
        models.get("a")
    assert missed == ["missed"]
    assert models.wants(published("a", 2))
    models.put(loaded("a", 2))
    assert ids(models) == ["c", "a"]


def test_a_new_model_is_wanted_even_when_the_store_is_full() -> None:
    models, _ = store(1)
    models.put(loaded("a"))
    assert models.wants(published("b"))


def test_only_what_differs_is_wanted() -> None:
    models, _ = store()
    models.put(loaded("a", 2))
    assert not models.wants(published("a", 2))
    assert models.wants(published("a", 3))
    # The hub is the truth: after its restart it may hold an older checkpoint, which training goes on from.
    assert models.wants(published("a", 1))


def test_a_dropped_model_is_gone_and_may_come_back() -> None:
    models, missed = store()
    models.put(loaded("a"))
    models.drop("a")
    models.drop("a")
    assert ids(models) == []
    with pytest.raises(UnavailableError):
        models.get("a")
    assert missed == []
    assert models.wants(published("a"))
