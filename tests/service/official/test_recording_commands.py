"""`newt demos import` and `export` of recordings, against a real replay service."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import Commands
from recorded_episodes import episodes, same

from newt.cli.demos import demos_app
from newt.client.replay import ReplayClient
from newt.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from newt.official.demos import write_demos
from newt.recordings.npz import write_npz
from newt.wire.episodes import Episode

pytestmark = pytest.mark.timeout(120)

COMMANDS = Commands(demos_app)
succeed, refused = COMMANDS.succeed, COMMANDS.refused


def stored(replay: str, demo_set: str) -> list[Episode]:
    with ReplayClient(replay) as client:
        return list(client.read_episodes(demo_set=demo_set))


def test_a_set_goes_out_and_comes_in_equal(replay: str, tmp_path: Path) -> None:
    made = [*episodes("walker-walk", 3), *episodes("walker-run", 2)]
    with ReplayClient(replay) as client:
        for episode in made:
            client.append(episode, demo_set="mine")
    both, run = tmp_path / "both.npz", tmp_path / "run.npz"
    succeed("export", both, "--set", "mine", "--replay", replay)
    succeed("export", run, "--set", "mine", "--task", "walker-run", "--replay", replay)
    assert "exists" in refused(AlreadyExistsError, "export", both, "--set", "mine", "--replay", replay)
    options = ("--set", "copy", "--replay", replay)
    succeed("import", both, *options)
    assert same(stored(replay, "copy"), made)
    succeed("import", run, both, *options)  # again: adds nothing
    assert same(stored(replay, "copy"), made)
    refused(NotFoundError, "export", tmp_path / "x.npz", "--task", "hopper-hop", *options)
    refused(NotFoundError, "export", tmp_path / "x.npz", "--set", "none", "--replay", replay)
    refused(InvalidInputError, "export", tmp_path / "x", "--format", "csv", *options)
    assert "--task" in refused(InvalidInputError, "export", tmp_path / "x.pt", *options)
    assert not list(tmp_path.glob("*x*"))


@pytest.mark.parametrize("kind", ["minari", "lerobot"])
def test_folders_go_out_and_come_in_equal(replay: str, tmp_path: Path, kind: str) -> None:
    made = episodes("walker-walk", 3)
    with ReplayClient(replay) as client:
        for episode in made:
            client.append(episode, demo_set=f"to-{kind}")
    export = ("export", tmp_path / "walks", "--set", f"to-{kind}", "--format", kind, "--replay", replay)
    succeed(*export)
    refused(AlreadyExistsError, *export)
    succeed(*export, "--force")
    succeed("import", tmp_path / "walks", "--set", f"from-{kind}", "--replay", replay)
    assert same(stored(replay, f"from-{kind}"), made)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").touch()
    assert "no " in refused(AlreadyExistsError, "export", mine, *export[2:], "--force")
    assert [path.name for path in mine.iterdir()] == ["thesis.tex"]


def test_a_map_and_the_accept_rule_on_the_command_line(replay: str, tmp_path: Path) -> None:
    (made,) = episodes("walker-walk", 1)
    T = made.transitions
    np.savez(
        tmp_path / "mine.npz",
        x=np.tile(made.obs[:-1], (3, 1)),
        actions=np.tile(made.action, (3, 1)) * 2,
        reward=np.concatenate([made.reward, made.reward, made.reward / 10]),
        episode_ends=[T, 2 * T, 3 * T],
    )
    columns = tmp_path / "columns.toml"
    columns.write_text('[columns]\nobs = "x"\n[actions]\nlow = -2\nhigh = 2\n')
    options = ("--set", "mapped", "--task", "walker-walk", "--replay", replay)
    said = succeed("import", tmp_path / "mine.npz", "--columns", columns, *options)
    assert "1 episodes are not good enough" in said
    found = stored(replay, "mapped")
    assert len(found) == 2
    np.testing.assert_array_equal(found[0].obs, made.obs[:-1])
    columns.write_text('[columns]\nobz = "x"\n')
    assert "columns.obz" in refused(InvalidInputError, "import", tmp_path / "mine.npz", "--columns", columns, *options)


def test_nothing_is_stored_of_an_import_with_a_wrong_file(replay: str, tmp_path: Path) -> None:
    write_npz(tmp_path / "good.npz", episodes("walker-walk", 2))
    write_demos(tmp_path / "walker-walk.pt", episodes("walker-walk", 1))
    with np.load(tmp_path / "good.npz") as good:
        np.savez(tmp_path / "wrong.npz", **{**good, "reward": np.full_like(good["reward"], np.inf)})
    files = [tmp_path / name for name in ("good.npz", "walker-walk.pt", "wrong.npz")]
    message = refused(InvalidInputError, "import", *files, "--set", "whole", "--replay", replay)
    assert "wrong.npz: episode 0: reward: got inf" in message
    with ReplayClient(replay) as client:
        assert "whole" not in [held.name for held in client.list_demo_sets()]
