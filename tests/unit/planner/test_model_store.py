from __future__ import annotations

import pytest

from newt.errors import PreconditionError, UnavailableError
from newt.wire.chunks import Weights
from services.planner.model import LoadedModel
from services.planner.requests import ModelShape
from services.planner.store import ModelStore, Refusal

SPEC = ModelShape(obs_dim=128, action_dim=16, image_dim=0, num_tasks=3, horizon=3, num_samples=48, iterations=2)


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


def refusal(model_id: str, version: int, *, final: bool = True) -> Refusal:
    return Refusal(model_id, version, published(model_id, version).sha256, "num_samples is absurd", final)


def test_a_refused_model_says_why_and_a_good_version_heals_it() -> None:
    models, missed = store()
    models.refuse(refusal("a", 1))
    with pytest.raises(PreconditionError, match=r"model 'a': weights version 1 was refused: num_samples is absurd"):
        models.get("a")
    assert not models.wants(published("a", 1))
    assert models.wants(published("a", 2))
    models.put(loaded("a", 2))
    assert models.get("a").weights_version == 2
    assert models.refused() == []
    models.refuse(refusal("a", 3))
    assert models.get("a", 2).weights_version == 2  # goes on being served
    with pytest.raises(PreconditionError, match="version 3 was refused"):
        models.get("a", 3)
    with pytest.raises(UnavailableError, match="version 2, asked for 4"):
        models.get("a", 4)
    assert [each.weights_version for each in models.refused()] == [3]
    models.drop("a")
    assert models.refused() == []
    assert missed == []


def test_what_this_planner_could_not_load_is_tried_again() -> None:
    models, missed = store()
    models.refuse(refusal("a", 1, final=False))
    with pytest.raises(UnavailableError, match="num_samples is absurd; retry"):
        models.get("a")
    assert missed == ["missed"]
    assert models.wants(published("a", 1))


def test_refusals_are_forgotten_with_their_models() -> None:
    models, _ = store()
    for n in range(1200):
        models.refuse(refusal(f"m{n}", 1))
    assert len(models.refused()) == 1024
    models.keep_only({"m1199"})
    assert [each.model_id for each in models.refused()] == ["m1199"]
