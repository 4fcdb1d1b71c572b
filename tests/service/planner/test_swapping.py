"""New weights under load, bad weights, several models."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
import torch
from planner_rig import (
    PLAN_JSON,
    Hub,
    Request,
    in_process,
    in_threads,
    running_planner,
    tiny_model,
    until,
    version_served,
    weights_to_bytes,
)

from newt.agent.config import PlanConfig
from newt.client.planner import Plan, PlannerClient
from newt.client.weights import publish, retire
from newt.errors import InvalidInputError, UnavailableError
from newt.wire.chunks import Weights
from newt.wire.v1 import weights_pb2
from services.learner.weights.hub import WeightsHub
from services.planner import metrics, model
from services.planner.device import Device
from services.planner.model import LoadedModel


def put(hub: Hub, model_id: str, version: int, seed: int | None = None, plan: str = PLAN_JSON) -> None:
    weights = weights_to_bytes(tiny_model(version if seed is None else seed))
    publish(hub.address, model_id, version, weights, plan, timeout_s=10)


def ask(client: PlannerClient, model_id: str = "run", seed: int = 0, **options: object) -> Plan:
    return client.plan(model_id, *Request.draw(2, seed), explore=False, timeout_s=30, **options)


def expected_action(version: int, seed: int) -> np.ndarray:
    request = Request.draw(2, seed)
    return (
        in_process(tiny_model(version))
        .plan(
            torch.from_numpy(request.obs),
            torch.from_numpy(request.task).long(),
            seeds=torch.from_numpy(request.seed.view(np.int64)),
            explore=False,
        )
        .action.numpy()
    )


@pytest.mark.parametrize("planner", [{}, {"graphs": True, "pad": "always", "max_rows": 8}], indirect=True)
def test_weights_are_swapped_under_load_without_a_failure(hub: Hub, client: PlannerClient) -> None:
    put(hub, "run", 1)
    done = threading.Event()

    def load(worker: int) -> list[tuple[int, Plan]]:
        plans, step = [], 0
        while not done.is_set() or not plans or plans[-1][1].weights_version < 6:
            seed = 1000 * worker + step
            plans.append((seed, ask(client, seed=seed)))
            step += 1
        return plans

    def swap() -> None:
        for version in range(2, 7):
            until(lambda version=version: version_served(client, "run") == version - 1)
            put(hub, "run", version)
        done.set()

    *loads, _ = in_threads(*(lambda w=w: load(w) for w in range(3)), swap)
    for plans in loads:
        versions = [plan.weights_version for _, plan in plans]
        assert versions == sorted(versions)
        assert versions[-1] == 6
    # The version of a reply is the one that planned it.
    sample = {plan.weights_version: (seed, plan) for seed, plan in loads[0]}
    assert len(sample) > 1
    for version, (seed, plan) in sample.items():
        np.testing.assert_allclose(plan.action, expected_action(version, seed), atol=1e-5)


def test_planning_goes_on_while_new_weights_are_being_loaded(
    hub: Hub, client: PlannerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(hub, "run", 1)
    ask(client)
    loading, go_on = threading.Event(), threading.Event()
    load = model.load

    def slow(weights: Weights, device: Device) -> LoadedModel:
        loading.set()
        assert go_on.wait(20)
        return load(weights, device)

    monkeypatch.setattr(model, "load", slow)
    put(hub, "run", 2)
    assert loading.wait(10)
    assert [ask(client, seed=seed).weights_version for seed in range(5)] == [1] * 5
    go_on.set()
    assert ask(client, min_weights_version=2).weights_version == 2


def test_a_caller_waits_for_the_version_it_needs(hub: Hub, client: PlannerClient) -> None:
    def publish_late() -> None:
        for version in (1, 2, 3):
            time.sleep(0.1)
            put(hub, "run", version)

    plan, _ = in_threads(lambda: ask(client, min_weights_version=3), publish_late)
    assert plan.weights_version == 3
    with pytest.raises(UnavailableError, match="version 3, asked for 4"):
        client.plan("run", *Request.draw(1), explore=False, min_weights_version=4, timeout_s=0.3)
    with pytest.raises(UnavailableError, match="no weights for model 'unknown'"):
        client.plan("unknown", *Request.draw(1), explore=False, timeout_s=0.3)


def diverged() -> bytes:
    bad = tiny_model(2)
    with torch.no_grad():
        next(bad.reward_head.parameters()).view(-1)[3] = torch.nan
    return weights_to_bytes(bad)


BAD: dict[str, tuple[bytes, str]] = {
    "no model at all": (b"certainly not safetensors", PLAN_JSON),
    "a pickle": (b"\x80\x04K\x01.", PLAN_JSON),
    "a model cut short": (weights_to_bytes(tiny_model(2))[:-100], PLAN_JSON),
    "NaN in the weights": (diverged(), PLAN_JSON),
    "settings that are no JSON": (weights_to_bytes(tiny_model(2)), "{"),
    "settings that are no object": (weights_to_bytes(tiny_model(2)), "[1]"),
    "unknown settings": (weights_to_bytes(tiny_model(2)), '{"samples": 3}'),
    "impossible settings": (weights_to_bytes(tiny_model(2)), '{"num_elites": 100000}'),
    "settings of a wrong type": (weights_to_bytes(tiny_model(2)), '{"num_samples": "many"}'),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_weights_are_refused_and_the_old_ones_stay(hub: Hub, client: PlannerClient, case: str) -> None:
    put(hub, "run", 1)
    before = ask(client)
    refused = metrics.WEIGHTS_REFUSED._value.get()
    payload, plan = BAD[case]
    publish(hub.address, "run", 2, payload, plan, timeout_s=10)
    until(lambda: metrics.WEIGHTS_REFUSED._value.get() == refused + 1)
    after = ask(client)
    assert after.weights_version == 1
    np.testing.assert_array_equal(after.action, before.action)
    put(hub, "run", 3)
    assert ask(client, min_weights_version=3).weights_version == 3
    assert metrics.WEIGHTS_REFUSED._value.get() == refused + 1


def test_a_model_that_is_too_large_for_a_planner_does_not_keep_others_away(hub: Hub) -> None:
    large = weights_to_bytes(tiny_model(1, mlp_dim=512))
    refused = metrics.WEIGHTS_REFUSED._value.get()
    publish(hub.address, "large", 1, large, PLAN_JSON, timeout_s=10)
    put(hub, "run", 2)
    with (
        running_planner(hub, max_model_bytes=len(large) - 1) as service,
        PlannerClient(service.server.address) as client,
    ):
        assert ask(client).weights_version == 2
        assert [served.model_id for served in client.models(timeout_s=5)] == ["run"]
    assert metrics.WEIGHTS_REFUSED._value.get() == refused + 1


class HarmfulHub(WeightsHub):
    """A hub on a bad wire: what its first subscriber gets is changed on the way."""

    harmed = 0

    def Subscribe(  # noqa: N802
        self, request: weights_pb2.SubscribeRequest, context: grpc.ServicerContext
    ) -> Iterator[weights_pb2.SubscribeResponse]:
        for event in super().Subscribe(request, context):
            if event.HasField("chunk") and not self.harmed:
                self.harmed += 1
                event.chunk.data = event.chunk.data[:-1] + b"?"
            yield event


def test_weights_harmed_on_the_way_are_fetched_again() -> None:
    hub = Hub(servicer=HarmfulHub).start()
    refused = metrics.WEIGHTS_REFUSED._value.get()
    put(hub, "run", 1)
    with running_planner(hub) as service, PlannerClient(service.server.address) as client:
        np.testing.assert_allclose(ask(client).action, expected_action(1, 0), atol=1e-5)
    hub.stop()
    assert metrics.WEIGHTS_REFUSED._value.get() == refused + 1


def test_two_models_are_served_side_by_side_and_a_retired_one_is_gone(hub: Hub, client: PlannerClient) -> None:
    put(hub, "a", 4)
    put(hub, "b", 9, plan=json.dumps({**json.loads(PLAN_JSON), "horizon": 5}))
    a, b = ask(client, "a"), ask(client, "b")
    assert (a.weights_version, b.weights_version) == (4, 9)
    assert (a.next_mean.shape, b.next_mean.shape) == ((2, 3, 16), (2, 5, 16))
    np.testing.assert_allclose(a.action, expected_action(4, 0), atol=1e-5)
    retire(hub.address, "a", timeout_s=10)
    until(lambda: [served.model_id for served in client.models(timeout_s=5)] == ["b"])
    with pytest.raises(UnavailableError):
        client.plan("a", *Request.draw(1), explore=False, timeout_s=0.2)
    assert ask(client, "b").weights_version == 9


def test_a_model_that_made_room_comes_back_when_it_is_used(hub: Hub) -> None:
    with running_planner(hub, max_models=1) as service, PlannerClient(service.server.address) as client:
        put(hub, "a", 1)
        assert ask(client, "a").weights_version == 1
        put(hub, "b", 2)
        assert ask(client, "b").weights_version == 2
        assert ask(client, "a").weights_version == 1
        assert [served.model_id for served in client.models(timeout_s=5)] == ["a"]


def test_new_weights_may_have_another_shape(hub: Hub, client: PlannerClient) -> None:
    put(hub, "run", 1)
    first = ask(client)
    put(hub, "run", 2, plan=json.dumps({**json.loads(PLAN_JSON), "horizon": 4}))
    until(lambda: version_served(client, "run") == 2)
    with pytest.raises(InvalidInputError, match=r"prev_mean: got shape \[2, 3, 16\], expected \[2, 4, 16\]"):
        ask(client, prev_mean=first.next_mean)
    assert ask(client).next_mean.shape == (2, 4, 16)


def test_a_request_queued_before_a_change_of_shape_is_told_to_retry(hub: Hub) -> None:
    with running_planner(hub, max_wait_ms=1_000) as service, PlannerClient(service.server.address) as client:
        put(hub, "run", 1)
        until(lambda: version_served(client, "run") == 1)
        longer = json.dumps({**json.loads(PLAN_JSON), "horizon": 4})
        # Waits a second for company; by then the model has another horizon, and the client asks again.
        plan, _ = in_threads(lambda: ask(client), lambda: put(hub, "run", 2, plan=longer))
    assert plan.weights_version == 2
    assert plan.next_mean.shape == (2, 4, 16)


def test_plan_settings_travel_with_the_weights(hub: Hub, client: PlannerClient) -> None:
    plan = PlanConfig(num_samples=32, num_policy_trajectories=2, num_elites=4, iterations=1)
    publish(hub.address, "run", 1, weights_to_bytes(tiny_model(1)), json.dumps(plan.to_dict()), timeout_s=10)
    request = Request.draw(2)
    want = in_process(tiny_model(1), plan).plan(
        torch.from_numpy(request.obs),
        torch.from_numpy(request.task).long(),
        seeds=torch.from_numpy(request.seed.view(np.int64)),
        explore=False,
    )
    np.testing.assert_allclose(ask(client).action, want.action, atol=1e-5)
