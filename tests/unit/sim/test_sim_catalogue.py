import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from newt.errors import NotFoundError
from newt.tasks.registry import get_task
from services.sim.domains import DOMAINS, Catalogue
from services.sim.settings import SimSettings

ROOT = Path(__file__).parents[3]


def test_tasks_come_from_the_registry_in_its_order() -> None:
    catalogue = Catalogue(["mujoco", "dmcontrol"])
    assert next(iter(catalogue.tasks)) == "walker-stand"
    assert len(catalogue.tasks) == 21 + 6
    task, facts = catalogue.get("mujoco-ant"), get_task("mujoco-ant")
    assert (task.obs_dim, task.action_dim, task.episode_length) == (
        facts.obs_dim,
        facts.action_dim,
        facts.episode_length,
    )


def test_unknown_names_are_refused_with_a_hint() -> None:
    with pytest.raises(NotFoundError, match="walker-walk"):
        Catalogue(["dmcontrol"]).get("walker-wlak")
    with pytest.raises(NotFoundError, match="on this server"):
        Catalogue(["dmcontrol"]).get("og-ant")
    with pytest.raises(NotFoundError, match=r"known are .*dmcontrol"):
        Catalogue(["dmcontrl"])


def test_the_test_domain_must_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEWT_SIM_DOMAINS", raising=False)
    assert "noop" not in SimSettings().domains
    monkeypatch.setenv("NEWT_SIM_DOMAINS", "noop, mujoco")
    assert SimSettings().domains == ("noop", "mujoco")


def test_settings_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match="workers"):
        SimSettings(workers=0)
    monkeypatch.setenv("NEWT_SIM_WORKER", "3")
    with pytest.raises(ValueError, match="NEWT_SIM_WORKER"):
        SimSettings()


@pytest.mark.parametrize(
    ("task", "domain", "foreign"),
    [
        ("mujoco-ant", "mujoco", ("dm_control", "metaworld")),
        ("walker-walk", "dmcontrol", ("gymnasium", "metaworld")),
        ("giraffe-run", "dmcontrol-ext", ("gymnasium", "metaworld")),
        ("mw-reach", "metaworld", ("dm_control",)),
        ("pygame-pong", "miniarcade", ("pygame", "mujoco", "dm_control", "metaworld", "PIL")),
        ("lunarlander-land", "box2d", ("mujoco", "dm_control", "gymnasium", "pygame", "PIL")),
        ("rd-push-red", "robodesk", ("gymnasium", "metaworld")),
        ("atari-pong", "atari", ("dm_control", "metaworld", "mujoco", "PIL")),
        ("og-antball", "ogbench", ("dm_control", "gymnasium", "metaworld", "ogbench")),
        ("ms-cartpole-swingup", "maniskill", ("dm_control", "metaworld", "ogbench", "robodesk", "pygame")),
        ("noop", "noop", ("mujoco", "dm_control", "metaworld", "PIL")),
    ],
)
def test_a_domain_imports_no_other(task: str, domain: str, foreign: tuple[str, ...]) -> None:
    if missing := DOMAINS[domain].missing_packages():
        pytest.skip(f"needs {', '.join(missing)}")
    ours = (
        "OpenGL.GL",
        "grpc._cython",
        *(() if domain == "maniskill" else ("torch",)),
    )  # ManiSkill computes with torch.
    code = (
        f"import sys; import services.sim.worker; from services.sim import domains\n"
        f"domains.make({domain!r}, {task!r}, False).reset(0)\n"
        f"print([name for name in {(*foreign, *ours)!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "MUJOCO_GL": "disable"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "[]"
