"""Planners that record: versions of a model take turns in two of them, and none is written over while it is used."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator

import pytest
import torch
from structlog.testing import capture_logs

from newt.agent.checkpoints import weights_to_bytes
from newt.agent.config import ModelConfig, PlanConfig
from newt.agent.planning import PlanResult
from newt.agent.task_table import TaskTable
from newt.agent.world_model import WorldModel
from newt.errors import CorruptDataError
from newt.wire.chunks import Weights
from services.planner.device import Device, choose_device
from services.planner.model import LoadedModel, load
from services.planner.settings import PlannerSettings

PLAN = PlanConfig(num_samples=16, num_policy_trajectories=4, num_elites=4, iterations=1)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(version: int, action_dim: int = 4, nan: bool = False) -> Weights:
    generator = torch.Generator().manual_seed(version)
    table = TaskTable.build(["reach"], torch.ones(1, 8), [action_dim], [0.99])
    sizes = {"latent_dim": 16, "encoder_dim": 16, "mlp_dim": 16, "language_dim": 8}
    model = WorldModel(ModelConfig.from_size("XS", **sizes), table, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        if nan:  # passes the look at the weights, and no trial
            model.encoder.layers[0].weight.fill_(1e38)
    return Weights("run", version, weights_to_bytes(model), json.dumps(PLAN.to_dict()))


def device(*, graphs: bool = True) -> Device:
    return choose_device(
        PlannerSettings(
            device="cpu", precision="float32", torch_threads=1, pad="always", max_rows=4, graphs=graphs, compile=False
        )
    )


def plan(model: LoadedModel, rows: int = 3) -> PlanResult:
    obs = torch.randn(rows, 128, generator=torch.Generator().manual_seed(1))
    return model.planner.plan(obs, torch.zeros(rows, dtype=torch.int64), seeds=torch.arange(rows))


def assert_plans_as(model: LoadedModel, version: int, action_dim: int = 4) -> None:
    expected = plan(load(weights(version, action_dim), device(graphs=False)))
    torch.testing.assert_close(plan(model).value, expected.value, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(plan(model).action, expected.action, rtol=1e-4, atol=1e-5)


def test_versions_take_turns_and_only_the_first_two_are_recorded() -> None:
    own = device()
    planners, recorded = [], []
    model = None
    for version in range(1, 6):
        with capture_logs() as logs:
            model = load(weights(version), own)  # the one before is used until this one is there
        recorded.append(sorted(entry["work"] for entry in logs if entry["event"] == "recorded"))
        planners.append(id(model.planner))
        assert_plans_as(model, version)
    sizes = [f"plan of {rows} rows and 3 steps" for rows in (1, 2, 4)]
    assert recorded == [sizes, sizes, [], [], []]
    assert planners == [planners[0], planners[1]] * 2 + planners[:1]


def test_what_a_batch_plans_with_is_not_written_over() -> None:
    own = device()
    in_use = load(weights(1), own)
    before = plan(in_use)
    newest = load(weights(2), own)
    for version in (3, 4, 5):
        newest = load(weights(version), own)
    assert torch.equal(plan(in_use).action, before.action)
    assert_plans_as(in_use, 1)
    assert_plans_as(newest, 5)


def test_weights_that_are_refused_give_their_planner_back() -> None:
    own = device()
    good = load(weights(1), own)
    for _ in range(3):
        with pytest.raises(CorruptDataError):
            load(weights(2, nan=True), own)
    gc.collect()
    with capture_logs() as logs:
        newer = load(weights(3), own)
    # What was refused had come as far as its trials of one row.
    assert [entry["work"] for entry in logs] == [f"plan of {rows} rows and 3 steps" for rows in (2, 4)]
    assert_plans_as(good, 1)
    assert_plans_as(newer, 3)


def test_tasks_with_more_actions_are_another_kind() -> None:
    """Columns that no task of a recording has are not drawn in it."""
    own = device()
    model = load(weights(1, action_dim=4), own)
    for version in (2, 3):
        model = load(weights(version, action_dim=12), own)
        assert_plans_as(model, version, action_dim=12)


def test_nothing_is_kept_of_a_model_that_is_gone() -> None:
    own = device()
    assert own.spares is not None
    model = load(weights(1), own)
    newer = load(weights(2), own)
    del model
    assert len(own.spares._spare) == 1
    del newer
    assert own.spares._spare == {}
    assert not own.spares._lent
