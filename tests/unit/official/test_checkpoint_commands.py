"""`newt checkpoints` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from commands import Commands
from published_files import SMALL, differences, multitask, single_task

from newt.agent.checkpoints import load_checkpoint
from newt.cli.checkpoints import checkpoints_app
from newt.errors import AlreadyExistsError, InvalidInputError, NotFoundError

COMMANDS = Commands(checkpoints_app)
run, succeed, refused = COMMANDS.run, COMMANDS.succeed, COMMANDS.refused


def test_a_single_task_checkpoint_goes_in_and_comes_out_equal(tmp_path: Path) -> None:
    source, own, again = tmp_path / "walker-walk.pt", tmp_path / "own", tmp_path / "again.pt"
    content = single_task(SMALL, 6).content
    torch.save(content, source)
    assert "--task" in refused(InvalidInputError, "import", source, own)
    assert not own.exists()
    succeed("import", source, own, "--task", "walker-walk")
    refused(AlreadyExistsError, "import", source, own, "--task", "walker-walk")
    succeed("export", own, again)
    assert differences(content, torch.load(again, weights_only=True)) == []
    for path, tasks in ((source, []), (own, ["walker-walk"])):
        shown = json.loads(succeed("inspect", path, "--json"))
        assert (shown["tasks"], shown["updates"], shown["config"]["num_critics"]) == (tasks, 2, 5)
    succeed("import", source, own, "--task", "walker-walk", "--add-images", "--force")
    assert json.loads(succeed("inspect", own, "--json"))["config"]["image_dim"] == 768


def test_a_state_agent_gets_columns_for_images(tmp_path: Path) -> None:
    torch.save(single_task(SMALL, 6).content, tmp_path / "agent.pt")
    succeed("import", tmp_path / "agent.pt", tmp_path / "own", "--task", "walker-walk")
    succeed("add-images", tmp_path / "own", tmp_path / "wide", "--image-dim", "24")
    assert json.loads(succeed("inspect", tmp_path / "wide", "--json"))["config"]["image_dim"] == 24
    assert "got image_dim 24" in refused(InvalidInputError, "add-images", tmp_path / "wide", tmp_path / "wider")
    old, new = load_checkpoint(tmp_path / "own"), load_checkpoint(tmp_path / "wide")
    obs, image, task = torch.randn(5, 128), torch.randn(5, 24), torch.zeros(5, dtype=torch.int64)
    torch.testing.assert_close(new.model().encode(obs, task, image), old.model().encode(obs, task))


def test_inspect_shows_both_formats(tmp_path: Path) -> None:
    torch.save(multitask(SMALL).content, tmp_path / "agent.pt")
    succeed("import", tmp_path / "agent.pt", tmp_path / "own")
    for name, kind in (("agent.pt", "published"), ("own", "newt")):
        shown = succeed("inspect", tmp_path / name)
        assert all(part in shown for part in (kind, "walker-stand", "512 columns", "custom"))


def test_wrong_paths_are_told_before_any_work(tmp_path: Path) -> None:
    refused(InvalidInputError, "import", tmp_path / "absent.pt", tmp_path / "nowhere" / "own")
    refused(NotFoundError, "import", tmp_path / "absent.pt", tmp_path / "own")
    refused(NotFoundError, "export", tmp_path / "absent", tmp_path / "out.pt")
    refused(NotFoundError, "inspect", tmp_path / "absent")
