"""Agents that the planner serves from files: swapped, refused and forgotten as the files change."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from agent_files import small_model, write_agent
from planner_rig import PLAN_JSON, Hub, running_planner, tiny_model, until, version_served, weights_to_bytes
from typer.testing import CliRunner

from newt.agent import Agent
from newt.cli.main import app
from newt.client import RemoteAgent
from newt.client.planner import PlannerClient
from newt.client.weights import publish, retire
from newt.errors import AlreadyExistsError, CorruptDataError, InvalidInputError, NotFoundError
from newt.local.models import ServedModels
from services.planner.service import PlannerService


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"  # made when the first model comes


@pytest.fixture
def planner(hub: Hub, folder: Path) -> Iterator[PlannerService]:
    with running_planner(hub, models_dir=str(folder), max_models=2) as service:
        yield service


@pytest.fixture
def models(folder: Path, planner: PlannerService) -> ServedModels:
    return ServedModels(folder, planner.server.address)


def names(client: PlannerClient) -> list[str]:
    return sorted(model.model_id for model in client.models(timeout_s=5))


def test_a_file_is_served_as_the_agent_in_it(models: ServedModels, client: PlannerClient, tmp_path: Path) -> None:
    path = write_agent(tmp_path / "checkpoint-40_050")
    first = models.serve("walker", path, timeout_s=20)
    obs = np.linspace(-1, 1, 24)

    def same() -> None:
        local = Agent.load(path, device="cpu", precision="float32", seed=2)
        with RemoteAgent("walker", models.planner, seed=2) as remote:
            assert remote.facts == local.facts
            for _ in range(2):
                np.testing.assert_allclose(remote.act(obs, "walk"), local.act(obs, "walk"), atol=1e-5)

    same()
    write_agent(path, small_model(1))  # the trainer's way: all of the new file at once
    until(lambda: version_served(client, "walker") > first)
    same()


def test_it_outlives_the_hub_and_a_name_belongs_to_one(
    models: ServedModels, client: PlannerClient, hub: Hub, tmp_path: Path
) -> None:
    version = models.serve("walker", write_agent(tmp_path / "agent"), timeout_s=20)
    publish(hub.address, "run", 1, weights_to_bytes(tiny_model()), PLAN_JSON, timeout_s=10)
    publish(hub.address, "walker", 2**40, weights_to_bytes(tiny_model()), PLAN_JSON, timeout_s=10)
    until(lambda: "run" in names(client))
    with pytest.raises(AlreadyExistsError, match="run is the model of a run"):
        models.serve("run", tmp_path / "agent", timeout_s=20)
    retire(hub.address, "walker", timeout_s=10)
    hub.kill()
    hub.start()  # knows no model, and says so
    until(lambda: "run" not in names(client))
    assert version_served(client, "walker") == version


def test_what_cannot_be_used_is_refused_and_what_was_served_goes_on(
    models: ServedModels, client: PlannerClient, tmp_path: Path
) -> None:
    good, bad = write_agent(tmp_path / "good"), tmp_path / "bad"
    bad.write_bytes(good.read_bytes()[:-100])
    with pytest.raises(CorruptDataError, match=r"refuses walker: version \d+: .* expected a complete"):
        models.serve("walker", bad, timeout_s=20)
    assert models.names() == []
    version = models.serve("walker", good, timeout_s=20)
    with pytest.raises(CorruptDataError, match="refuses walker"):
        models.serve("walker", bad, timeout_s=20)
    assert version_served(client, "walker") >= version
    with RemoteAgent("walker", models.planner) as agent:
        agent.act(np.zeros(5), "reach")
    with pytest.raises(NotFoundError, match="no such file"):
        models.serve("walker", tmp_path / "none", timeout_s=20)
    with pytest.raises(InvalidInputError, match="NAME"):
        models.serve("../walker", good, timeout_s=20)


def test_one_that_had_to_make_room_comes_back_when_asked_for(
    models: ServedModels, client: PlannerClient, tmp_path: Path
) -> None:
    path = write_agent(tmp_path / "agent")
    models.serve("a", path, timeout_s=20)
    with RemoteAgent("a", models.planner) as agent:
        for name in ("b", "c"):
            models.serve(name, path, timeout_s=20)
        assert names(client) == ["b", "c"]
        agent.act(np.zeros(5), "reach")  # waits for it
        assert "a" in names(client)


def test_the_command(models: ServedModels, client: PlannerClient, folder: Path, tmp_path: Path) -> None:
    def newt(*arguments: str) -> str:
        where = ["--folder", str(folder), "--planner", models.planner]
        result = CliRunner().invoke(app, ["serve", *arguments, *where], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    write_agent(run / "checkpoints" / "0.safetensors")
    file = write_agent(tmp_path / "checkpoint-40_050")
    assert "serves no model" in newt()
    shown = newt(str(file), f"newest={run}")
    assert "checkpoint-40_050 is served" in shown
    assert names(client) == ["checkpoint-40_050", "newest"]
    listed = {model["name"]: model for model in json.loads(newt("--json"))}
    assert listed["newest"]["tasks"] == ["reach", "walk", "swim"]
    newer = write_agent(run / "checkpoints" / "25_000.safetensors", small_model(1))
    os.utime(newer, (2**32, 2**32))
    until(lambda: version_served(client, "newest") > listed["newest"]["version"])
    assert "is no longer served" in newt("--stop", "newest")
    assert names(client) == ["checkpoint-40_050"]
    with pytest.raises(NotFoundError, match="there are: checkpoint-40_050"):
        newt("--stop", "newest")
    with pytest.raises(InvalidInputError, match="given twice"):
        newt(str(file), f"checkpoint-40_050={run}")
