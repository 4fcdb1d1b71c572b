"""Finite inputs of any size: a plan of numbers, or an error that names the input; never NaN, and never for others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from planner_rig import PLAN_JSON, Request, in_threads, running_hub, running_planner, tiny_model, weights_to_bytes

from newt.client.planner import ActMode, Plan, PlannerClient
from newt.client.weights import publish
from newt.errors import InvalidInputError


@pytest.fixture(scope="module")
def client() -> Iterator[PlannerClient]:
    with running_hub() as hub, running_planner(hub, max_wait_ms=1_000) as planner:
        publish(hub.address, "run", 1, weights_to_bytes(tiny_model(1, image_dim=4)), PLAN_JSON, timeout_s=10)
        with PlannerClient(planner.server.address) as client:
            yield client


def ask(client: PlannerClient, request: Request, image: np.ndarray | None = None, **options: object) -> Plan:
    image = np.zeros((len(request.obs), 4), np.float32) if image is None else image
    return client.plan("run", *request, image=image, explore=True, timeout_s=30, **options)


sizes = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(obs=sizes, image=sizes, mean=sizes, mode=st.sampled_from(["planner", "policy"]))
@example(obs=1e25, image=0.0, mean=0.0, mode="planner")
@example(obs=0.0, image=3e38, mean=0.0, mode="policy")
@example(obs=1.0, image=0.0, mean=3e38, mode="planner")
def test_a_reply_has_numbers_only(client: PlannerClient, obs: float, image: float, mean: float, mode: ActMode) -> None:
    request = Request.draw(1)
    request.obs[:] = obs
    images, means = np.full((1, 4), image, np.float32), np.full((1, 3, 16), mean, np.float32)
    refused, plan = "", None
    try:
        plan = ask(client, request, images, prev_mean=means, mode=mode)
    except InvalidInputError as error:
        refused = error.field
    if plan is None:
        assert refused in ("obs", "image")
        assert max(abs(obs), abs(image)) > 1e9, "an input that could be observed"
        return
    assert np.isfinite(plan.action).all()
    if mode == "planner":
        assert np.isfinite(plan.value).all()
        assert np.isfinite(plan.next_mean).all()


def test_a_row_that_overflows_fails_alone(client: PlannerClient) -> None:
    good, bad = Request.draw(2, 1), Request.draw(3, 2)
    bad.obs[1, 5] = 1e25
    plans = {"horizon": 5}  # which nobody has asked for: the first to do so waits for company

    def refused() -> None:
        with pytest.raises(InvalidInputError, match=r"^obs: row 1 leads to NaN or infinity: .* is 1e\+25") as caught:
            ask(client, bad, **plans)
        assert caught.value.field == "obs"

    together, _ = in_threads(lambda: ask(client, good, **plans), refused)
    assert together.batch_rows == 5
    alone = ask(client, good, **plans)
    np.testing.assert_allclose(together.action, alone.action, atol=1e-5)
