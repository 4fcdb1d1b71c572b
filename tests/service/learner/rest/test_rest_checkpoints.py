"""Checkpoints through the API: what cannot be used is refused or shown as broken, and never stands in the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from api_server import Api
from checkpoint_files import ANYTHING, changed, places, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load as unpack
from tiny_agents import write_agent

TASK = "mujoco-reacher"
Content = tuple[dict[str, Any], dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("agent") / "agent"
    write_agent(path, [TASK])
    return path


@pytest.fixture(scope="module")
def content(agent: Path) -> Content:
    data = agent.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return json.loads(header["__metadata__"]["newt"]), unpack(data)


@pytest.fixture(scope="module")
def run_id(api: Api, agent: Path) -> str:
    """A run with one good checkpoint; another is in the imported ones."""
    assert api.http.put("/checkpoints/good", content=agent.read_bytes()).status_code == 201
    found = str(api.http.post("/runs", json={"tasks": [TASK]}).json()["id"])
    folder = api.learner.settings.folder.run(found) / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "0.safetensors").write_bytes(agent.read_bytes())
    return found


@given(data=st.data())
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_header_in_any_folder(api: Api, run_id: str, content: Content, tmp_path: Path, data: st.DataObject) -> None:
    document, tensors = content
    where = data.draw(st.sampled_from(list(places(document))))
    file = write(tmp_path / "x", changed(document, where, data.draw(ANYTHING)), tensors)
    put = api.http.put("/checkpoints/any", content=file.read_bytes())
    assert put.status_code in (201, 422), put.text
    listed = {item["name"]: item for item in api.http.get("/checkpoints").json()["checkpoints"]}
    assert set(listed) == ({"good", "any"} if put.status_code == 201 else {"good"})
    if put.status_code == 201:
        assert listed["any"]["broken"] is None
        assert api.http.delete("/checkpoints/any").status_code == 204
    else:
        assert put.json()["fields"][0]["field"] == "file"
    # It may also be there already: brought by an older version, or by hand.
    imported, own = api.learner.settings.folder.imported, api.learner.settings.folder.run(run_id) / "checkpoints"
    for folder, path, good, reference in (
        (imported, "/checkpoints", "good", "imported/any"),
        (own, f"/runs/{run_id}/checkpoints", "0", f"{run_id}/any"),
    ):
        (folder / "any.safetensors").write_bytes(file.read_bytes())
        reply = api.http.get(path)
        assert reply.status_code == 200
        found = {item["name"]: item["broken"] for item in reply.json()["checkpoints"]}
        assert (set(found), found[good]) == ({good, "any"}, None)
        start_run, evaluate = {"tasks": [TASK], "init_from": reference}, {"checkpoint": reference}
        for route, body in (("/runs", start_run), ("/evaluations", evaluate)) if put.status_code == 422 else ():
            reply = api.http.post(route, json=body)
            assert 400 <= reply.status_code < 500, reply.text
            assert len(reply.content) < 4000
    for path in ("/checkpoints/any", f"/runs/{run_id}/checkpoints/any"):
        assert api.http.delete(path).status_code in (204, 409), path
    (api.learner.settings.folder.run(run_id) / "checkpoints" / "any.safetensors").unlink(missing_ok=True)


@pytest.mark.parametrize("name", ["noise", "spaces and ü", "%41"])
def test_a_broken_file_is_shown_and_can_be_deleted(api: Api, run_id: str, name: str) -> None:
    for folder, path in (
        (api.learner.settings.folder.imported, "/checkpoints"),
        (api.learner.settings.folder.run(run_id) / "checkpoints", f"/runs/{run_id}/checkpoints"),
    ):
        (folder / f"{name}.safetensors").write_bytes(b"noise")
        found = {item["name"]: item["broken"] for item in api.http.get(path).json()["checkpoints"]}
        assert "safetensors" in found.pop(name)
        assert list(found.values()) == [None]
        quoted = name.replace("%", "%25").replace(" ", "%20")
        assert api.http.delete(f"{path}/{quoted}").status_code == 204
        assert name not in api.http.get(path).text


def test_a_run_keeps_its_checkpoints_until_it_has_ended(api: Api, run_id: str, agent: Path) -> None:
    refused = api.http.delete(f"/runs/{run_id}/checkpoints/0")
    assert (refused.status_code, "keeps its checkpoints" in refused.text) == (409, True)
    folder = api.learner.settings.folder.run(run_id) / "checkpoints"
    (folder / "5.safetensors").write_bytes(agent.read_bytes())
    api.http.post(f"/runs/{run_id}/cancel")
    assert api.http.delete(f"/runs/{run_id}/checkpoints/5").status_code == 204
    assert api.http.delete(f"/runs/{run_id}/checkpoints/5").status_code == 404
