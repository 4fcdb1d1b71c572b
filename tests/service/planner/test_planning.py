"""What the planner answers: the same as planning in the process, whoever else asks at the same time."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from planner_rig import (
    PLAN,
    PLAN_JSON,
    TASKS,
    Hub,
    Request,
    in_process,
    in_threads,
    running_planner,
    tiny_model,
    weights_to_bytes,
)

from newt.agent.planning import PlanResult
from newt.client.planner import Plan, PlannerClient
from newt.client.weights import publish
from newt.errors import InvalidInputError
from services.planner import metrics

MODEL = tiny_model(1)


@pytest.fixture(autouse=True)
def weights(hub: Hub) -> None:
    publish(hub.address, "run", 1, weights_to_bytes(MODEL), PLAN_JSON, timeout_s=10)


def expected(request: Request, env_step: int | None = None, **options: object) -> PlanResult:
    return planned(request, constraint_weight=PLAN.constraint_weight(env_step), **options)


def planned(request: Request, **options: object) -> PlanResult:
    return in_process(MODEL).plan(
        torch.from_numpy(request.obs),
        torch.from_numpy(request.task).long(),
        seeds=torch.from_numpy(request.seed.view(np.int64)),
        **options,
    )


def assert_same(got: Plan, want: PlanResult) -> None:
    np.testing.assert_allclose(got.action, want.action, atol=1e-5)
    np.testing.assert_allclose(got.next_mean, want.next_mean, atol=1e-5)
    np.testing.assert_allclose(got.value, want.value, rtol=1e-4, atol=1e-4)


def test_a_plan_is_the_agents_plan(client: PlannerClient) -> None:
    request = Request.draw(5)
    got = client.plan("run", *request, explore=False, timeout_s=10, want_sequence=True)
    want = expected(request, explore=False)
    assert_same(got, want)
    np.testing.assert_allclose(got.sequence, want.sequence, atol=1e-5)
    np.testing.assert_allclose(got.sequence[:, 0], got.action, atol=1e-5)
    assert (got.weights_version, got.batch_rows) == (1, 5)
    assert got.compute_seconds > 0


def test_the_warm_start_travels_with_the_request(client: PlannerClient) -> None:
    request = Request.draw(3)
    prev_mean = np.random.default_rng(1).uniform(-1, 1, (3, PLAN.horizon, 16)).astype(np.float32)
    first = np.array([True, False, False])
    got = client.plan("run", *request, explore=True, prev_mean=prev_mean, first=first, timeout_s=10)
    assert_same(got, expected(request, prev_mean=torch.from_numpy(prev_mean), first=torch.from_numpy(first)))
    cold = client.plan("run", *request, explore=True, timeout_s=10)
    same = np.abs(got.next_mean - cold.next_mean).max((1, 2)) < 1e-5
    assert same.tolist() == [True, False, False]


@pytest.mark.parametrize("env_step", [None, 0, 7_000_000, 12_000_000])
def test_the_constraint_follows_the_runs_env_step(client: PlannerClient, env_step: int | None) -> None:
    request = Request.draw(2)
    got = client.plan("run", *request, explore=False, env_step=env_step, timeout_s=10)
    assert_same(got, expected(request, explore=False, env_step=env_step))


def test_weights_act_as_they_were_trained_to(hub: Hub, client: PlannerClient) -> None:
    """No env step: that of the weights. By row: guided tasks follow the policy, the others do not."""
    info = {"env_steps": 7_000_000, "guided_tasks": [TASKS[0], TASKS[2]]}
    publish(hub.address, "trained", 1, weights_to_bytes(MODEL, info), PLAN_JSON, timeout_s=10)
    request = Request.draw(6)
    request.task = np.array([0, 1, 2, 0, 1, 2], np.int32)
    guided = torch.tensor([1.0, 0, 1, 1, 0, 1])
    for options, weight in (
        ({}, 0.5 * guided),
        ({"env_step": 0}, guided),
        ({"env_step": 10_000_000}, 0.2 * guided),
        ({"constraint_weight": 0}, 0 * guided),
        ({"constraint_weight": 0.3}, torch.full((6,), 0.3)),
        ({"constraint_weight": [0, 1, 0, 1, 0, 1], "env_step": 0}, torch.tensor([0.0, 1, 0, 1, 0, 1])),
    ):
        got = client.plan("trained", *request, explore=False, timeout_s=10, **options)
        assert_same(got, planned(request, explore=False, constraint_weight=weight))
    free = client.plan("trained", *request, explore=False, timeout_s=10, constraint_weight=0)
    trained = client.plan("trained", *request, explore=False, timeout_s=10)
    same = np.abs(free.next_mean - trained.next_mean).max((1, 2)) < 1e-5
    assert same.tolist() == [False, True, False, False, True, False]


def test_another_horizon_can_be_asked_for(client: PlannerClient) -> None:
    request = Request.draw(2)
    got = client.plan("run", *request, explore=False, horizon=7, want_sequence=True, timeout_s=10)
    assert got.next_mean.shape == got.sequence.shape == (2, 7, 16)
    assert_same(got, expected(request, explore=False, horizon=7))


def test_exploring_adds_noise_and_evaluation_does_not(client: PlannerClient) -> None:
    request = Request.draw(4)
    explored = client.plan("run", *request, explore=True, timeout_s=10)
    evaluated = client.plan("run", *request, explore=False, timeout_s=10)
    np.testing.assert_allclose(explored.next_mean, evaluated.next_mean, atol=1e-5)
    assert not np.allclose(explored.action, evaluated.action)


@pytest.mark.parametrize("explore", [False, True])
def test_the_policy_alone_can_act(client: PlannerClient, explore: bool) -> None:
    request = Request.draw(3)
    got = client.plan("run", *request, explore=explore, mode="policy", timeout_s=10)
    want = in_process(MODEL).policy(
        torch.from_numpy(request.obs),
        torch.from_numpy(request.task).long(),
        seeds=torch.from_numpy(request.seed.view(np.int64)),
        explore=explore,
    )
    np.testing.assert_allclose(got.action, want, atol=1e-5)
    assert got.next_mean is None
    assert got.sequence is None
    assert np.isnan(got.value).all()


def test_company_does_not_change_a_plan_and_is_planned_together(hub: Hub) -> None:
    requests = [Request.draw(rows, seed=rows) for rows in (1, 2, 3, 5, 8)]
    explore = [True, False, True, False, True]
    env_steps = [None, 0, 5_000_000, None, 3]
    before = metrics.EXECUTIONS._value.get(), metrics.ROWS._value.get()
    # Long enough for all five to meet, and the batch is due as soon as their 19 rows are there.
    with (
        running_planner(hub, max_wait_ms=10_000, max_rows=19) as service,
        PlannerClient(service.server.address) as client,
    ):
        crowd = in_threads(
            *(
                lambda i=i: client.plan("run", *requests[i], explore=explore[i], env_step=env_steps[i], timeout_s=30)
                for i in range(5)
            )
        )
    assert [plan.batch_rows for plan in crowd] == [19] * 5
    assert (metrics.EXECUTIONS._value.get() - before[0], metrics.ROWS._value.get() - before[1]) == (1, 19)
    with running_planner(hub) as service, PlannerClient(service.server.address) as client:
        for i in range(5):
            alone = client.plan("run", *requests[i], explore=explore[i], env_step=env_steps[i], timeout_s=30)
            assert alone.batch_rows == len(requests[i].obs)
            for name in ("action", "next_mean", "value"):
                np.testing.assert_allclose(getattr(crowd[i], name), getattr(alone, name), rtol=1e-4, atol=1e-4)


def test_requests_of_different_kinds_are_planned_apart(hub: Hub) -> None:
    request = Request.draw(2)
    publish(hub.address, "other", 5, weights_to_bytes(tiny_model(2)), PLAN_JSON, timeout_s=10)
    with running_planner(hub, max_wait_ms=300) as service, PlannerClient(service.server.address) as client:
        kinds = [
            {"model_id": "run"},
            {"model_id": "other"},
            {"model_id": "run", "horizon": 5},
            {"model_id": "run", "mode": "policy"},
        ]
        plans = in_threads(
            *(
                lambda kind=kind: client.plan(
                    obs=request.obs, task=request.task, seed=request.seed, explore=False, timeout_s=30, **kind
                )
                for kind in kinds
            )
        )
    assert [plan.batch_rows for plan in plans] == [2] * 4
    assert [plan.weights_version for plan in plans] == [1, 5, 1, 1]
    assert not np.allclose(plans[0].action, plans[1].action)
    assert_same(plans[0], expected(request, explore=False))


@pytest.mark.parametrize("pad", ["never", "always"])
def test_a_request_larger_than_a_batch_is_split_and_put_together(hub: Hub, pad: str) -> None:
    request = Request.draw(11)
    with running_planner(hub, max_rows=4, pad=pad) as service, PlannerClient(service.server.address) as client:
        got = client.plan("run", *request, explore=True, timeout_s=30)
    assert_same(got, expected(request))
    assert got.batch_rows == 11


def test_clients_in_a_closed_loop_share_batches(hub: Hub) -> None:
    before = metrics.REQUESTS._value.get(), metrics.EXECUTIONS._value.get()
    start = threading.Barrier(4)
    with running_planner(hub, max_wait_ms=20) as service, PlannerClient(service.server.address) as client:

        def loop(worker: int) -> list[Plan]:
            start.wait(10)
            return [
                client.plan("run", *Request.draw(2, seed=100 * worker + step), explore=True, timeout_s=30)
                for step in range(10)
            ]

        plans = in_threads(*(lambda w=w: loop(w) for w in range(4)))
    requests, executions = metrics.REQUESTS._value.get() - before[0], metrics.EXECUTIONS._value.get() - before[1]
    assert requests == 40
    assert executions < 40
    assert max(plan.batch_rows for own in plans for plan in own) > 2


def test_a_bad_request_fails_alone(hub: Hub) -> None:
    good, bad = Request.draw(2), Request.draw(2)
    bad.obs[1, 7] = np.nan
    with running_planner(hub, max_wait_ms=200) as service, PlannerClient(service.server.address) as client:

        def ask_badly() -> InvalidInputError:
            with pytest.raises(InvalidInputError) as caught:
                client.plan("run", *bad, explore=False, timeout_s=30)
            return caught.value

        plan, error = in_threads(
            lambda: client.plan("run", *good, explore=False, timeout_s=30),
            ask_badly,
        )
    assert error.field == "obs"
    assert "[1, 7]" in str(error)
    assert_same(plan, expected(good, explore=False))


def test_an_id_that_no_model_can_have_is_not_waited_for(client: PlannerClient) -> None:
    with pytest.raises(InvalidInputError) as caught:
        client.plan("", *Request.draw(1), explore=False, timeout_s=30)
    assert caught.value.field == "model_id"


def test_the_models_are_listed(client: PlannerClient) -> None:
    client.plan("run", *Request.draw(1), explore=False, timeout_s=10)
    (model,) = client.models(timeout_s=10)
    assert (model.model_id, model.weights_version, model.tasks, model.horizon) == ("run", 1, TASKS, PLAN.horizon)
    assert model.parameters == sum(
        p.numel() for name, p in MODEL.named_parameters() if not name.startswith("target_critics")
    )


def test_it_says_what_it_computes_on(client: PlannerClient) -> None:
    told = client.computing(timeout_s=10)
    assert told is not None
    assert (told.device, told.precision, told.compiled) == ("cpu", "float32", False)


def test_a_model_with_image_input(hub: Hub, client: PlannerClient) -> None:
    model = tiny_model(3, image_dim=12)
    publish(hub.address, "sees", 1, weights_to_bytes(model), PLAN_JSON, timeout_s=10)
    request, image = Request.draw(3), np.random.default_rng(0).standard_normal((3, 12), np.float32)
    got = client.plan("sees", *request, image=image, explore=False, timeout_s=10)
    want = in_process(model).plan(
        torch.from_numpy(request.obs),
        torch.from_numpy(request.task).long(),
        seeds=torch.from_numpy(request.seed.view(np.int64)),
        image=torch.from_numpy(image),
        explore=False,
    )
    assert_same(got, want)
    with pytest.raises(InvalidInputError) as caught:
        client.plan("sees", *request, explore=False, timeout_s=10)
    assert caught.value.field == "image"


@pytest.mark.parametrize(
    ("field", "value"),
    [("task", np.array([0.5, 1.0])), ("task", np.array([2**31, 0])), ("seed", np.array([-1, 0])), ("obs", ["a", "b"])],
)
def test_the_client_refuses_values_that_would_change_on_the_way(
    client: PlannerClient, field: str, value: object
) -> None:
    request = Request.draw(2)
    setattr(request, field, value)
    with pytest.raises(InvalidInputError) as caught:
        client.plan("run", *request, explore=False, timeout_s=10)
    assert caught.value.field == field


def test_bfloat16_plans_nearly_the_same(hub: Hub) -> None:
    request = Request.draw(8)
    with (
        running_planner(hub, precision="bfloat16") as service,
        PlannerClient(service.server.address) as client,
    ):
        got = client.plan("run", *request, explore=False, timeout_s=30)
    want = expected(request, explore=False)
    assert np.abs(got.next_mean - want.next_mean.numpy()).mean() < 0.05
    assert not np.array_equal(got.value, want.value.numpy())
