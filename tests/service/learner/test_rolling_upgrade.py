"""One service after the other is replaced by another version's while a run trains, and replaced back.

The version before is the tag of the last release, or the commit in PREVIOUS while there is none: its code from git's
history, on the libraries of today.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from learner_stack import LearnerStack, wait_until
from tiny_agents import PLAN, SIZES

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[3]
PREVIOUS = "510030e7a6c94f01913d303a99f542816b82761d"
"""The first whose records carry a schema: those of before refuse what they do not know, and cannot be gone back to."""
ORDER = ("sim", "planner", "replay", "learner")
INTERVAL = 20
RUN: dict[str, Any] = {
    "tasks": ["mujoco-reacher"],
    "preset": "laptop",
    "model": {"size": "XS", **SIZES},
    "plan": PLAN,
    "schedule": {
        "total_env_steps": 1_000_000,
        "seed_env_steps": 100,
        "updates_per_env_step": 0.05,
        "checkpoint_every_updates": INTERVAL,
        "publish_every_s": 0.5,
    },
    "replay": {"batch_size": 16},
    "demos": {"scripted_episodes": 0},
    "evaluation": {"episodes_per_task": 0, "videos": False},
}


def git(*arguments: str) -> bytes:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, timeout=60).stdout


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the version before."""
    try:
        tags = git("tag", "--merged", "HEAD", "--list", "v*", "--sort=-version:refname").decode().split()
        code = git("archive", tags[0] if tags else PREVIOUS, "newt", "services")
    except (OSError, subprocess.CalledProcessError) as error:
        told = error.stderr.decode().strip() if isinstance(error, subprocess.CalledProcessError) else error
        pytest.skip(f"needs git's history, of which a shallow clone and an exported tree have none: {told}")
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=BytesIO(code)) as archive:
        archive.extractall(folder, filter="data")
    return folder


@contextlib.contextmanager
def running(code: Path) -> Iterator[None]:
    """What is started within runs the code of a folder, and so do its children."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(code))
        patch.chdir(code)
        found = subprocess.check_output([sys.executable, "-c", "import newt; print(newt.__file__)"], text=True)
        assert Path(found.strip()).parents[1] == code.resolve()
        yield


class RollingStack(LearnerStack):
    """Services that each run the code of one folder or another."""

    def start(self, name: str) -> None:
        """Starts a service's process, with settings that both versions know: images bring those of their own."""
        self.settings["learner"].pop("METRICS_PORT", None)
        super().start(name)

    def use(self, name: str, code: Path) -> None:
        """Replaces a service by the same of other code, as an orchestrator does: SIGTERM, then the next one."""
        self.processes[name].send_signal(signal.SIGTERM)
        self.processes[name].wait(60)
        with running(code):
            self.start(name)
        if name == "learner":
            wait_until(self._answers, "the learner answers again", 180)


@pytest.fixture
def stack(before: Path, tmp_path: Path) -> Iterator[RollingStack]:
    """The version before."""
    with running(before):
        stack = RollingStack(tmp_path, ("sim", "replay", "planner"))
    try:
        stack.wait_ready()
        yield stack
    finally:
        stack.stop()


def goes_on(stack: RollingStack, run_id: str) -> dict[str, Any]:
    """New episodes, new updates, and none forgotten but those since a checkpoint."""
    begin = stack.get(f"/runs/{run_id}")["progress"]
    run = stack.follow(
        run_id,
        lambda run: (
            run["progress"]["env_steps"] > begin["env_steps"] and run["progress"]["updates"] > begin["updates"] + 5
        ),
    )
    assert run["state"] == "training", run["error"]
    return run


def test_a_run_goes_on_through_an_upgrade_and_back(stack: RollingStack, before: Path) -> None:
    run_id = stack.submit(RUN)
    stack.follow(run_id, lambda run: run["progress"]["updates"] > INTERVAL)
    steps = [goes_on(stack, run_id)["progress"]["env_steps"]]
    for name, code in [*((name, ROOT) for name in ORDER), *((name, before) for name in reversed(ORDER))]:
        stack.use(name, code)
        run = goes_on(stack, run_id)
        steps.append(run["progress"]["env_steps"])
    assert steps == sorted(steps)
    listed = stack.get("/runs")
    assert ([run["id"] for run in listed["runs"]], listed["broken"]) == ([run_id], [])
    assert stack.get(f"/runs/{run_id}/checkpoints")["checkpoints"][-1]["broken"] is None
    stack.http.post(f"/runs/{run_id}/cancel")
    wait_until(lambda: stack.get(f"/runs/{run_id}")["state"] == "cancelled", "cancelled")
