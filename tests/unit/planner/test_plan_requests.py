from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from newt.errors import InvalidInputError
from newt.wire.tensors import encode
from newt.wire.v1 import planner_pb2, tensor_pb2
from services.planner.requests import ModelShape, parse

SPEC = ModelShape(obs_dim=128, action_dim=16, image_dim=0, num_tasks=3, horizon=3, num_samples=512, iterations=6)
B = 2


def zeros(*shape: int, dtype: type = np.float32) -> tensor_pb2.Tensor:
    return encode(np.zeros(shape, dtype))


def request(**fields: object) -> planner_pb2.PlanRequest:
    values = {
        "model_id": "run",
        "obs": zeros(B, 128),
        "task": zeros(B, dtype=np.int32),
        "seed": zeros(B, dtype=np.uint64),
        **fields,
    }
    return planner_pb2.PlanRequest(**values)


def with_value(
    shape: tuple[int, ...], at: tuple[int, ...], value: float, dtype: type = np.float32
) -> tensor_pb2.Tensor:
    array = np.zeros(shape, dtype)
    array[at] = value
    return encode(array)


def test_defaults_are_those_of_the_contract() -> None:
    key, rows = parse(request(), SPEC, 100)
    assert (key.horizon, key.mode) == (3, planner_pb2.ACT_MODE_PLANNER)
    assert len(rows) == B
    assert rows.prev_mean.shape == (B, 3, 16)
    assert not rows.prev_mean.any()
    assert not rows.first.any()
    assert rows.image.shape == (B, 0)
    assert rows.env_step is None
    assert rows.constraint_weight is None
    assert not rows.explore


def test_an_agent_with_a_policy_only_is_not_asked_to_plan() -> None:
    acts = replace(SPEC, plans=False)
    for asked in ({}, {"mode": planner_pb2.ACT_MODE_PLANNER}):
        with pytest.raises(InvalidInputError, match=r"expected POLICY \(2\)") as caught:
            parse(request(**asked), acts, 100)
        assert caught.value.field == "mode"
    key, _ = parse(request(mode=planner_pb2.ACT_MODE_POLICY), acts, 100)
    assert key.cost == 0


def test_env_step_zero_is_not_absent() -> None:
    assert parse(request(env_step=0), SPEC, 100)[1].env_step == 0


def test_a_constraint_weight_is_a_share_by_row() -> None:
    weight = np.array([0.25, 1], np.float32)
    assert parse(request(constraint_weight=encode(weight)), SPEC, 100)[1].constraint_weight.tolist() == [0.25, 1]
    for wrong in (with_value((B,), (1,), 1.5), with_value((B,), (0,), -0.1), with_value((B,), (0,), np.nan), zeros(3)):
        with pytest.raises(InvalidInputError) as caught:
            parse(request(constraint_weight=wrong), SPEC, 100)
        assert caught.value.field == "constraint_weight"


def test_seeds_keep_all_64_bits() -> None:
    seed = np.array([0, 2**64 - 1], np.uint64)
    _, rows = parse(request(seed=encode(seed)), SPEC, 100)
    assert rows.seed.tolist() == [0, -1]


def test_requests_that_cannot_share_a_batch_have_different_keys() -> None:
    keys = [
        parse(r, SPEC, 100)[0]
        for r in (
            request(),
            request(model_id="other"),
            request(horizon=5),
            request(mode=planner_pb2.ACT_MODE_POLICY),
        )
    ]
    assert len(set(keys)) == 4


def test_requests_that_can_share_a_batch_have_equal_keys() -> None:
    keys = [
        parse(r, SPEC, 100)[0]
        for r in (
            request(),
            request(explore=True, env_step=7, want_sequence=True, horizon=3, mode=planner_pb2.ACT_MODE_PLANNER),
        )
    ]
    assert keys[0] == keys[1]


BAD: dict[str, tuple[str, Callable[[], planner_pb2.PlanRequest]]] = {
    "obs missing": ("obs", lambda: planner_pb2.PlanRequest(model_id="run")),
    "obs without rows": ("obs", lambda: request(obs=zeros(0, 128))),
    "obs with too many rows": ("obs", lambda: request(obs=zeros(101, 128))),
    "obs too narrow": ("obs", lambda: request(obs=zeros(B, 24))),
    "obs of a wrong rank": ("obs", lambda: request(obs=zeros(128))),
    "obs of a wrong dtype": ("obs", lambda: request(obs=zeros(B, 128, dtype=np.uint8))),
    "obs with NaN": ("obs", lambda: request(obs=with_value((B, 128), (1, 5), np.nan))),
    "obs with infinity": ("obs", lambda: request(obs=with_value((B, 128), (0, 0), np.inf))),
    "task missing": ("task", lambda: planner_pb2.PlanRequest(model_id="run", obs=zeros(B, 128))),
    "task of another length": ("task", lambda: request(task=zeros(B + 1, dtype=np.int32))),
    "task of a wrong dtype": ("task", lambda: request(task=zeros(B, dtype=np.int64))),
    "task too large": ("task", lambda: request(task=with_value((B,), (1,), 3, np.int32))),
    "task negative": ("task", lambda: request(task=with_value((B,), (1,), -1, np.int32))),
    "seed of another length": ("seed", lambda: request(seed=zeros(1, dtype=np.uint64))),
    "prev_mean of another horizon": ("prev_mean", lambda: request(prev_mean=zeros(B, 4, 16))),
    "prev_mean not of the horizon asked for": ("prev_mean", lambda: request(prev_mean=zeros(B, 3, 16), horizon=5)),
    "prev_mean with NaN": ("prev_mean", lambda: request(prev_mean=with_value((B, 3, 16), (0, 0, 0), np.nan))),
    "first of a wrong dtype": ("first", lambda: request(first=zeros(B, dtype=np.uint8))),
    "horizon too long": ("horizon", lambda: request(horizon=65)),
    "image for a model without": ("image", lambda: request(image=zeros(B, 768))),
    "unknown mode": ("mode", lambda: request(mode=9)),  # type: ignore[arg-type]
    "a sequence without planning": (
        "want_sequence",
        lambda: request(mode=planner_pb2.ACT_MODE_POLICY, want_sequence=True),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_requests_are_refused_by_field(case: str) -> None:
    field, make = BAD[case]
    with pytest.raises(InvalidInputError) as caught:
        parse(make(), SPEC, 100)
    assert caught.value.field == field


def test_a_horizon_may_not_cost_more_than_a_planner_grants() -> None:
    costly = replace(SPEC, num_samples=2_000, iterations=10)
    assert parse(request(horizon=52), costly, 100)[0].cost == 1_040_000 / 9216
    few, many = replace(SPEC, num_samples=256, iterations=1), replace(SPEC, num_samples=1024, iterations=1)
    assert [shape.cost(3) for shape in (SPEC, few, many)] == [1, 0.5, 2]
    with pytest.raises(InvalidInputError, match="horizon: got 53, expected at most 52"):
        parse(request(horizon=53), costly, 100)


def test_a_bad_value_is_named_with_its_row() -> None:
    with pytest.raises(InvalidInputError, match=r"value nan at \[1, 5\]"):
        parse(request(obs=with_value((B, 128), (1, 5), np.nan)), SPEC, 100)
    with pytest.raises(InvalidInputError, match="got 3 in row 1, expected 0 to 2"):
        parse(request(task=with_value((B,), (1,), 3, np.int32)), SPEC, 100)


def test_models_with_image_input_require_features() -> None:
    spec = ModelShape(obs_dim=128, action_dim=16, image_dim=4, num_tasks=3, horizon=3, num_samples=512, iterations=6)
    _, rows = parse(request(image=zeros(B, 4)), spec, 100)
    assert rows.image.shape == (B, 4)
    for image in ({}, {"image": zeros(B, 5)}):
        with pytest.raises(InvalidInputError) as caught:
            parse(request(**image), spec, 100)
        assert caught.value.field == "image"
