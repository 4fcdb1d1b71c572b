"""A model with large plans and many rows does not keep the planner from other models."""

from __future__ import annotations

import json
import threading
from typing import Any

import numpy as np
import pytest
from planner_rig import PLAN_JSON, Hub, Request, in_threads, running_planner, tiny_model, until, weights_to_bytes

from newt.client.planner import PlannerClient
from newt.client.weights import publish
from newt.errors import UnavailableError
from services.planner.model import LoadedModel
from services.planner.requests import BatchKey
from services.planner.runner import Runner

LARGE = json.dumps({**json.loads(PLAN_JSON), "num_samples": 512, "iterations": 8})


def test_models_take_their_passes_in_rotation(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[str] = []
    begun, go_on = threading.Event(), threading.Event()
    one_pass = Runner._pass

    def watched(self: Runner, inputs: dict[str, Any], model: LoadedModel, key: BatchKey) -> dict[str, Any]:
        passes.append(f"{model.model_id} {len(inputs['obs'])}")
        begun.set()
        assert go_on.wait(30)
        return one_pass(self, inputs, model, key)

    monkeypatch.setattr(Runner, "_pass", watched)
    with running_planner(hub, max_rows=2) as service, PlannerClient(service.server.address) as client:
        weights = weights_to_bytes(tiny_model(1))
        publish(hub.address, "large", 1, weights, LARGE, timeout_s=10)
        for name in ("small", "other"):
            publish(hub.address, name, 1, weights, PLAN_JSON, timeout_s=10)
        until(lambda: len(client.models(timeout_s=5)) == 3, timeout_s=30)

        def ask(model_id: str, rows: int, seed: int) -> Any:
            return client.plan(model_id, *Request.draw(rows, seed), explore=False, timeout_s=60)

        def late(model_id: str) -> Any:
            assert begun.wait(30)
            return ask(model_id, 2, 7)

        def release() -> None:
            until(lambda: service._queue.queued_rows >= 2 * 6 + 4, timeout_s=30)
            go_on.set()

        larges = [lambda seed=seed: ask("large", 6, seed) for seed in range(3)]
        *plans, small, other, _ = in_threads(*larges, lambda: late("small"), lambda: late("other"), release)
    # Rows of the large plan pass one by one; three requests of it were there before the small ones came.
    assert passes[0] == "large 1"
    assert {"small 2", "other 2"} <= set(passes[1:4])
    assert passes.count("large 1") == 18
    np.testing.assert_array_equal(small.action, other.action)
    assert len({plan.action.tobytes() for plan in plans}) == 3


def test_what_is_under_way_when_the_planner_stops_is_told_so(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    one_pass = Runner._pass

    def held(self: Runner, inputs: dict[str, Any], model: LoadedModel, key: BatchKey) -> dict[str, Any]:
        begun.set()
        assert go_on.wait(30)
        return one_pass(self, inputs, model, key)

    monkeypatch.setattr(Runner, "_pass", held)
    with running_planner(hub, max_rows=2) as service, PlannerClient(service.server.address) as client:
        publish(hub.address, "large", 1, weights_to_bytes(tiny_model(1)), LARGE, timeout_s=10)
        until(lambda: bool(client.models(timeout_s=5)), timeout_s=30)

        def ask() -> None:
            with pytest.raises(UnavailableError, match="shutting down"):
                client.plan("large", *Request.draw(8), explore=False, timeout_s=3)

        def stop() -> None:
            assert begun.wait(30)
            service.drain()
            go_on.set()

        in_threads(ask, stop)
