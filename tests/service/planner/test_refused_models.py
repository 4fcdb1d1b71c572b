"""Whatever is published under a model's name, other models are served, and the bad one says why it is not."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from planner_rig import PLAN_JSON, Hub, Request, running_hub, running_planner, tiny_model, until, weights_to_bytes
from safetensors.torch import load, save

from newt.agent.blobs import digest
from newt.agent.headers import read_metadata as metadata
from newt.client.planner import PlannerClient
from newt.client.weights import publish, retire
from newt.errors import PreconditionError, UnavailableError
from newt.tasks.registry import all_tasks
from newt.wire.chunks import Weights
from newt.wire.probe import check
from services.learner.playing.actor import Actor, Model
from services.learner.waiting import RunFailedError
from services.planner import metrics, model, subscriber
from services.planner.device import Device
from services.planner.model import LoadedModel
from services.planner.service import SERVICE, PlannerService

PAYLOAD = weights_to_bytes(tiny_model(1))
DOCUMENT: dict[str, Any] = json.loads(metadata(PAYLOAD)["newt"])
PLAN: dict[str, Any] = json.loads(PLAN_JSON)

nonsense = st.sampled_from(
    [0, -1, 2**63, 2**64, 10**12, 10**400, 0.5, math.inf, math.nan, "", "\0", "١٢", "x" * 10_000, None, True, [], {}]
) | st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@st.composite
def changed(draw: st.DrawFn, document: dict[str, Any]) -> dict[str, Any]:
    """The document with one of its values, however deep, replaced or removed."""
    copy = json.loads(json.dumps(document))
    here: Any = copy
    while True:
        key = draw(st.sampled_from(sorted(here) if isinstance(here, dict) else list(range(len(here)))))
        if isinstance(here[key], dict | list) and here[key] and draw(st.booleans()):
            here = here[key]
            continue
        if draw(st.integers(0, 4)):
            here[key] = draw(nonsense)
        else:
            del here[key]
        return copy


def harmed(tensor: torch.Tensor, how: str) -> torch.Tensor:
    if how in ("nan", "inf", "huge"):
        value = {"nan": torch.nan, "inf": -torch.inf, "huge": 3e38}[how]
        return torch.full_like(tensor, value)
    return {
        "half": tensor.half(),
        "whole numbers": tensor.long(),
        "flat": tensor.flatten(),
        "longer": torch.cat([tensor, tensor]),
        "empty": tensor[:0],
    }[how].contiguous()


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    """Weights with a correct digest and one thing wrong; or bytes that are no weights."""
    tensors, document = load(PAYLOAD), DOCUMENT
    kind = draw(st.sampled_from(["document", "tensor", "lost", "other", "bytes"]))
    if kind == "bytes":
        cut = draw(st.integers(1, len(PAYLOAD) - 1))
        return draw(st.binary(min_size=1, max_size=200) | st.just(PAYLOAD[:cut]) | st.just(PAYLOAD[cut:]))
    if kind == "document":
        document = draw(changed(DOCUMENT))
    else:
        name = draw(st.sampled_from(sorted(tensors)))
        tensor = tensors.pop(name)
        if kind == "tensor":
            how = st.sampled_from(["nan", "inf", "huge", "half", "whole numbers", "flat", "longer", "empty"])
            tensors[name] = harmed(tensor, draw(how))
        elif kind == "other":
            tensors[f"{name}x"] = tensor
    text = json.dumps(document)
    return save(tensors, {"newt": text, "sha256": digest(text, tensors)})


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Hub, PlannerService, PlannerClient]]:
    """A planner that serves the model "steady", and whose tests publish "run"."""
    with running_hub() as hub, running_planner(hub) as planner, PlannerClient(planner.server.address) as client:
        publish(hub.address, "steady", 1, PAYLOAD, PLAN_JSON, timeout_s=10)
        yield hub, planner, client


versions = iter(range(1, 1_000_000))


def known(client: PlannerClient) -> int:
    """The newest version of "run" that the planner has judged."""
    served = [m.weights_version for m in client.models(timeout_s=5) if m.model_id == "run"]
    text = client.refused(timeout_s=5).get("run", "version 0:")
    return max([*served, int(text.split(":")[0].removeprefix("version "))])


def judge(hub: Hub, client: PlannerClient, payload: bytes, plan: str) -> str | None:
    """Publishes "run"; returns why the planner refuses it, None if it does not."""
    version = next(versions)
    publish(hub.address, "run", version, payload, plan, timeout_s=10)
    until(lambda: known(client) == version, timeout_s=30)
    assert ask(client, "steady").weights_version == 1
    reason = client.refused(timeout_s=5).get("run")
    if reason is None:
        assert np.isfinite(ask(client, "run", min_weights_version=version).action).all()
        return None
    with pytest.raises(PreconditionError, match=f"weights version {version} was refused: "):
        ask(client, "run", min_weights_version=version)
    return reason


def ask(client: PlannerClient, model_id: str, **options: Any) -> Any:
    return client.plan(model_id, *Request.draw(2), explore=False, timeout_s=30, **options)


quickly = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@quickly
@given(plan=changed(PLAN).map(json.dumps) | nonsense.map(json.dumps) | st.text(max_size=20))
@example(plan='{"num_samples": 1000000000000}')
@example(plan='{"horizon": 10000000}')
@example(plan='{"max_std": Infinity}')
@example(plan="[" * 100_000)
@example(plan='{"horizon":' * 100_000)
def test_no_plan_settings_stop_the_planner(served: tuple[Hub, PlannerService, PlannerClient], plan: str) -> None:
    hub, _, client = served
    judge(hub, client, PAYLOAD, plan)


@quickly
@given(payload=payloads())
def test_no_weights_stop_the_planner(served: tuple[Hub, PlannerService, PlannerClient], payload: bytes) -> None:
    hub, _, client = served
    judge(hub, client, payload, PLAN_JSON)


def test_a_refused_model_is_shown_and_heals(served: tuple[Hub, PlannerService, PlannerClient]) -> None:
    hub, planner, client = served
    retire(hub.address, "run", timeout_s=10)
    until(lambda: known(client) == 0)
    assert "num_samples must be at least 2" in str(judge(hub, client, PAYLOAD, '{"num_samples": 1}'))
    with pytest.raises(PreconditionError, match="num_samples"):  # not: no weights yet, for ever
        ask(client, "run")
    assert metrics.REFUSED_MODELS._value.get() == 1
    assert check(planner.server.address, SERVICE, timeout_s=5) is None
    assert judge(hub, client, PAYLOAD, PLAN_JSON) is None
    assert metrics.REFUSED_MODELS._value.get() == 0


def test_a_planner_without_memory_for_a_model_tries_again(
    served: tuple[Hub, PlannerService, PlannerClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, _, client = served
    load_model, failures = model.load, [MemoryError("no room"), torch.OutOfMemoryError("none on the device")]

    def full(weights: Weights, device: Device) -> LoadedModel:
        if failures:
            raise failures[0]
        return load_model(weights, device)

    monkeypatch.setattr(model, "load", full)
    monkeypatch.setattr(subscriber, "_SHORTEST_RESYNC_S", 0.2)
    publish(hub.address, "late", 1, PAYLOAD, PLAN_JSON, timeout_s=10)
    for reason in ("no room", "none on the device"):
        until(lambda reason=reason: reason in client.refused(timeout_s=5).get("late", ""))
        with pytest.raises(UnavailableError, match=reason):  # and makes the planner ask for it again
            client.plan("late", *Request.draw(1), explore=False, timeout_s=0.5)
        failures.pop(0)
        with contextlib.suppress(UnavailableError):
            client.plan("late", *Request.draw(1), explore=False, timeout_s=0.5)
    assert ask(client, "late").weights_version == 1


def test_a_run_whose_weights_are_refused_fails_with_the_reason(
    served: tuple[Hub, PlannerService, PlannerClient],
) -> None:
    hub, _, client = served
    publish(hub.address, "doomed", 1, PAYLOAD, '{"iterations": 1000000000}', timeout_s=10)
    until(lambda: "doomed" in client.refused(timeout_s=5))
    task = dataclasses.replace(all_tasks()[0], name="reach")
    actor = Actor(client, Model("doomed", ("reach", "walk", "swim")), [task], np.random.default_rng(0))
    with pytest.raises(RunFailedError, match=r"refuses to act: .*iterations must be at least 1 and at most 1000, got"):
        actor.act("planner", np.zeros((1, 128), np.float32), np.ones(1, bool), explore=True, env_step=0)
