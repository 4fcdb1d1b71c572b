"""A run whose updates are compiled: begun without code, gone on with it, also after a death.

The trainers trace without generating code, which takes minutes, and not at a low priority: what is tested is when they
change.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from learner_stack import LearnerStack, wait_until
from stored_runs import stored_stack, submit

from newt.agent.checkpoints import load_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1500)]

MANY = 1_000_000  # more than it makes before it is cancelled
TRACED = """
import sys
if "services.learner.training.trainer" in sys.orig_argv:
    from newt.agent import code_maker
    from services.learner.training.update_code import UpdateCode
    code_maker.NICENESS = 0
    UpdateCode.backend = "aot_eager"
"""


def events(directory: Path, name: str) -> list[dict[str, object]]:
    lines = (json.loads(line) for line in (directory / "logs" / "trainer.log").read_text().splitlines())
    return [line for line in lines if line.get("event") == name]


def newest(stack: LearnerStack, run_id: str) -> dict[str, object]:
    """What the newest stored checkpoint says of itself; nothing before there is one."""
    folder = Path(stack.get(f"/runs/{run_id}")["directory"]) / "checkpoints"
    checkpoints = stack.get(f"/runs/{run_id}/checkpoints")["checkpoints"]
    return load_checkpoint(folder / f"{checkpoints[-1]['name']}.safetensors").info if checkpoints else {}


def test_code_comes_at_a_checkpoint_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(TRACED)  # which Python imports when it starts
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    with stored_stack(tmp_path) as stack:
        run_id = submit(stack, MANY, 80, compile=True)
        directory = Path(stack.get(f"/runs/{run_id}")["directory"])
        # Said in a stored checkpoint, not only in the log: who dies between the two goes on from the one before.
        wait_until(lambda: bool(newest(stack, run_id).get("compiled")), "a checkpoint made with code", 1200)
        (used,) = events(directory, "code_used")
        stack.kill_child(run_id, "trainer")
        wait_until(lambda: bool(events(directory, "resumed")), "the next trainer", 100)
        (resumed,) = events(directory, "resumed")
        assert int(str(resumed["updates"])) >= int(str(used["updates"])) > 0
        stored = stack.get(f"/runs/{run_id}")["progress"]["pretrain_updates"]
        stack.follow(run_id, lambda run: run["progress"]["pretrain_updates"] > stored + 100, 300)
        assert newest(stack, run_id)["compiled"] is True
        assert len(events(directory, "code_used")) == 1  # it went on with what it had
