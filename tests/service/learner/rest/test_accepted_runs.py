"""Whatever POST /runs accepts can be stored, read back, costed, sent to replay and the planner, and started.

The requests come from the schema itself: some of its settings, each at, just beyond or far beyond its bounds, or of
another type altogether.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from api_server import Api, build, serving
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from newt.agent.config import MAX_PARAMETERS, PlanConfig
from newt.errors import NotFoundError
from newt.local import redis_server
from newt.runs.record import Run
from newt.runs.spec import RunSpec
from newt.wire.chunks import check_model_id
from newt.wire.v1 import replay_pb2
from services.learner.collecting.collector import Collector
from services.learner.records.writer import RunWriter
from services.learner.seeds import derive
from services.learner.waiting import StopFlag
from services.learner.worker.connections import Services
from services.learner.worker.main import Context
from services.replay.checks import check_sample
from services.replay.service import ReplayService
from services.replay.settings import ReplaySettings

DOMAINS = ("mujoco", "dmcontrol", "metaworld", "box2d")
BASE = {"tasks": ["mujoco-reacher"]}
TASKS = st.sampled_from([["walker-walk"], ["mw-*"], ["dmcontrol", "mujoco"], ["box2d"], ["mw-reach", "walker-run"]])
EXTREMES: list[Any] = [
    *(math.inf, -math.inf, math.nan, 0, -1, 0.5, 1e-320, 1e25, 2**31, 2**53 + 1, 2**63, 2**64, 10**30, 10**400),
    *("", "-", "--help", "\0", "١٢", "x" * 63, "x" * 100_000, "../../etc", "a\n", "_.-"),
    *(None, True, [], {}, ["x"] * 2_000, [[[]]], {"a": {}}),
]


@cache
def leaves() -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    """Path and schema of every setting."""
    schema = RunSpec.model_json_schema()

    def walk(path: tuple[str, ...], node: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
        if "properties" in node:
            for name, below in node["properties"].items():
                yield from walk((*path, name), below)
        else:
            yield path, node

    return list(walk((), schema))


def within(node: dict[str, Any]) -> list[Any]:
    """Values that a setting may have: its bounds, above all."""
    values: list[Any] = list(node.get("enum", []))
    for option in node.get("anyOf", []):
        values += within(option)
    values += [node[name] for name in ("minimum", "maximum", "default") if name in node]
    step = 1 if node.get("type") == "integer" else 1e-9
    if "exclusiveMinimum" in node:
        values.append(node["exclusiveMinimum"] + step)
    if "exclusiveMaximum" in node:
        values.append(node["exclusiveMaximum"] - step)
    if node.get("type") == "boolean":
        values += [True, False]
    if "maxLength" in node:
        values += [sign * node["maxLength"] for sign in "x-"]
    return values


def beyond(node: dict[str, Any]) -> list[Any]:
    """Values next to those, and others."""
    near = [value for option in node.get("anyOf", []) for value in beyond(option)[: -len(EXTREMES)]]
    for name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        if name in node:
            near += [node[name] - 1, node[name], node[name] + 1]
    return [*near, *EXTREMES]


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """The body of a POST /runs."""
    body: dict[str, Any] = {"tasks": draw(TASKS)}
    if draw(st.booleans()):
        body["preset"] = "laptop"
    for path, node in draw(st.lists(st.sampled_from(leaves()), min_size=1, max_size=4)):
        value = draw(st.sampled_from(within(node) * bool(draw(st.integers(0, 4))) or beyond(node)))
        here = body
        for name in path[:-1]:
            here = here.setdefault(name, {})
        here[path[-1]] = value
    return body


@dataclass
class Stack:
    """An API, and the replay service that its collectors would use."""

    api: Api
    services: Services

    def post(self, body: dict[str, Any]) -> Run | None:
        """The run, or None if the request was refused as it should be."""
        reply = self.api.http.post("/runs", content=json.dumps(body), headers={"content-type": "application/json"})
        if reply.status_code == 201:
            return Run.model_validate(reply.json())
        assert reply.status_code in (404, 422), reply.text
        assert len(reply.text) < 30_000
        if reply.status_code == 422:
            assert reply.json()["fields"][0]["field"], reply.text
        return None


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home: Path = tmp_path_factory.mktemp("accepted")
    redis = redis_server.start(home / "redis")
    replay = ReplayService(ReplaySettings(port=0, redis_url=redis.url, redis_check_s=0.1))  # type: ignore[arg-type]
    replay.server.start()
    replay.start()
    learner = build(redis.url, home / "data", sims=dict.fromkeys(DOMAINS, "127.0.0.1:9"), replay=replay.server.address)
    services = Services.connect(learner.settings, ["mujoco"], StopFlag(), limit_s=20.0)
    try:
        with serving(learner) as api, services:
            yield Stack(api, services)
    finally:
        replay.drain()
        replay.server.stop(grace_s=1)
        replay.close()
        redis.stop()


def can_be_run(stack: Stack, run: Run, asked: RunSpec) -> None:
    spec = run.spec
    # Stored, and read back: by the API, and by the processes.
    stored = stack.api.learner.records.runs.get(run.id)
    assert Run.model_validate(stack.api.http.get(f"/runs/{run.id}").json()) == stored == run
    assert RunSpec.model_validate_json(spec.model_dump_json()) == spec
    assert RunSpec.model_validate(json.loads(json.dumps(spec.model_dump(mode="json")))) == spec
    assert spec == asked.model_copy(update={"tasks": [task.name for task in asked.task_list()]})
    # Its id is a name everywhere.
    assert not run.id.startswith("-")
    assert len(run.id) <= 64
    check_model_id(run.id)
    with pytest.raises(NotFoundError):
        stack.api.learner.library.resolve(run.id, "init_from")
    # Costed.
    assert spec.model_settings().parameters() <= MAX_PARAMETERS
    assert spec.pretrain_updates() + spec.online_updates() <= 2**53
    for derived in (spec.seed_env_steps(), spec.eval_every_env_steps(), spec.lead_limit_steps(), spec.num_envs()):
        assert 0 <= derived <= 2**53
    assert 0 <= derive(spec.seed, "collector", 1) < 2**63
    # Replay takes it, as the collector sends it, and gives batches of that size.
    writer = RunWriter(stack.api.learner.records, run.id, run.attempt)
    context = Context(stack.api.learner.settings, run, writer, StopFlag())
    pace = Collector(context, stack.services)._prepare([])
    assert pace.is_over() != spec.learns_online()  # without an online phase there is nothing to collect
    config = stack.services.replay.get_buffer(run.id).config
    part = spec.replay.batch_size // spec.resources.processes
    batch = replay_pb2.SampleRequest(batch_size=part, horizon=spec.train.horizon, demo_fraction=spec.demo_fraction())
    check_sample(batch, config.to_proto(run.id))
    # The planner takes its settings as the trainer publishes them.
    plan = PlanConfig.from_dict(json.loads(json.dumps(spec.plan_settings().to_dict())))
    assert plan == spec.plan_settings()
    plan.check_memory(spec.model_settings())


accepted = 0


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(body=requests())
@example(body={**BASE, "preset": "laptop", "plan": {"temperature": math.inf}})
@example(body={**BASE, "plan": {"max_std": math.inf}})
@example(body={**BASE, "schedule": {"total_env_steps": 10**400}, "preset": "laptop"})
@example(body={**BASE, "schedule": {"total_env_steps": 10**12}, "seed": 2**63 - 1})
@example(body={**BASE, "replay": {"capacity_rows": 2**48, "max_lead_updates": 2**53}})
@example(body={**BASE, "algorithm": {"name": "tdmpc2"}})
@example(body={**BASE, "algorithm": {"name": "bc"}})
@example(body={**BASE, "algorithm": {"language": False, "task_embedding_dim": 4096}})
@example(body={**BASE, "name": "-.-"})
@example(body={**BASE, "name": "A" * 64})
@example(body={"tasks": ["mw-*"], "collect": {"envs_per_task": 256}, "schedule": {"total_env_steps": 2**53}})
@example(body={**BASE, "model": {"size": "XL"}, "train": {"horizon": 16}, "plan": {"horizon": 16}})
@example(body={**BASE, "replay": {"batch_size": 65_536}, "resources": {"processes": 64}})
def test_what_is_accepted_can_be_run(stack: Stack, body: dict[str, Any]) -> None:
    global accepted
    run = stack.post(body)
    if run is None:
        return
    accepted += 1
    can_be_run(stack, run, RunSpec.model_validate(body))


def test_enough_was_accepted_and_all_of_it_is_listed(stack: Stack) -> None:
    assert accepted > 30
    listed = stack.api.http.get("/runs").json()
    assert len(listed["runs"]) == accepted
    assert listed["broken"] == []
