"""`newt demos` as a user types it, against a real replay service."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import Commands

from newt.cli.demos import demos_app
from newt.client.replay import ReplayClient
from newt.errors import AlreadyExistsError, InvalidInputError, NotFoundError, UnavailableError
from newt.official.demos import read_demos, write_demos
from newt.tasks.registry import get_task
from newt.wire.episodes import Episode

pytestmark = pytest.mark.timeout(120)


COMMANDS = Commands(demos_app)
run, succeed, refused = COMMANDS.run, COMMANDS.succeed, COMMANDS.refused


def demos(task: str, count: int, length: int) -> list[Episode]:
    facts = get_task(task)
    random = np.random.default_rng(len(task))
    return [
        Episode(
            str(i),
            task,
            random.standard_normal((length + 1, facts.obs_dim), np.float32),
            random.random((length, facts.action_dim), np.float32),
            random.random(length, np.float32),
        )
        for i in range(count)
    ]


def test_demos_go_in_and_come_out_equal(replay: str, tmp_path: Path) -> None:
    walker, reacher = tmp_path / "walker-walk.pt", tmp_path / "reacher-easy.pt"
    write_demos(walker, demos("walker-walk", 3, 20))
    write_demos(reacher, demos("reacher-easy", 2, 30))
    options = ("--set", "published", "--replay", replay)
    succeed("import", walker, reacher, *options)
    with ReplayClient(replay) as client:
        (demo_set,) = client.list_demo_sets("published")
        counts = {task.task: (task.episodes, task.rows) for task in demo_set.tasks}
        assert counts == {"walker-walk": (3, 63), "reacher-easy": (2, 62)}
        succeed("import", walker, *options)  # again: adds nothing
        (again,) = client.list_demo_sets("published")
        assert again.size_bytes == demo_set.size_bytes
    out = tmp_path / "out.pt"
    succeed("export", out, "--task", "walker-walk", *options)
    before, after = read_demos(walker, get_task("walker-walk")), read_demos(out, get_task("walker-walk"))
    assert [e.episode_id for e in after] == [e.episode_id for e in before]  # digests of every number
    assert "exists" in refused(AlreadyExistsError, "export", out, "--task", "walker-walk", *options)
    refused(NotFoundError, "export", tmp_path / "x.pt", "--task", "hopper-hop", *options)
    assert not (tmp_path / "x.pt").exists()


def test_wrong_demo_files_are_refused_and_what_came_before_is_told(replay: str, tmp_path: Path) -> None:
    good, wrong = tmp_path / "walker-stand.pt", tmp_path / "walker-walk.pt"
    write_demos(good, demos("walker-stand", 1, 5))
    write_demos(wrong, demos("cheetah-run", 1, 5)[:1])
    wrong.rename(tmp_path / "reacher-easy.pt")
    options = ("--set", "partly", "--replay", replay)
    result = run("import", good, tmp_path / "reacher-easy.pt", *options)
    assert isinstance(result.exception, InvalidInputError)
    assert "reacher-easy" in str(result.exception)
    assert "Stopped here" in result.output
    assert "did you mean" in refused(InvalidInputError, "import", tmp_path / "walker-wlak.pt", *options)
    refused(InvalidInputError, "import", good, "--set", "a/b", "--replay", replay)
    refused(InvalidInputError, "import", good, good, "--task", "walker-stand", *options)


def test_without_a_stack_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWT_HOME", str(tmp_path))
    monkeypatch.delenv("NEWT_REPLAY", raising=False)
    assert "newt up" in refused(UnavailableError, "list")
    assert "newt up" in refused(UnavailableError, "export", tmp_path / "x.pt", "--task", "walker-walk", "--set", "s")
