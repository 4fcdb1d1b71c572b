"""What a newcomer does with the wheel, in an empty folder: up, train, look, evaluate, download, down; and the tour."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from installed_wheel import environment, install

from newt.local import control

SMALL = (
    "schedule.total_env_steps=600",
    "schedule.seed_env_steps=200",
    "schedule.pretrain_updates=20",
    "schedule.updates_per_env_step=0.05",
    "demos.scripted_episodes=2",
    "evaluation.episodes_per_task=1",
    "evaluation.videos=false",
    "replay.batch_size=16",
)


OWN = (
    "schedule.total_env_steps=200",
    "schedule.seed_env_steps=100",
    "schedule.pretrain_updates=2",
    "schedule.updates_per_env_step=0.02",
    "demos.scripted_episodes=1",
    "evaluation.episodes_per_task=0",
    "replay.batch_size=16",
)
TOUR = (
    'tasks=["mujoco-reacher"]',
    'demos={"scripted_episodes": 2}',
    "schedule.seed_env_steps=100",
    "schedule.pretrain_updates=5",
    "schedule.updates_per_env_step=0.05",
    "evaluation.episodes_per_task=1",
    "replay.batch_size=16",
)


def newt(home: Path, *arguments: str, timeout_s: float = 170) -> subprocess.CompletedProcess[str]:
    """Calls the command that the wheel beside `home` has installed, in that empty folder."""
    return subprocess.run(
        [str(home.parent / "venv" / "bin" / "newt"), *arguments],
        env=environment(NEWT_HOME=str(home), COLUMNS="200"),
        cwd=home.parent / "empty",
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's environment and an empty folder."""
    folder = tmp_path_factory.mktemp("newt")
    programs = install(folder)
    (folder / "empty").mkdir()
    where = [str(programs / "python"), "-c", "import newt, services; print(*newt.__path__, *services.__path__)"]
    found = subprocess.run(where, env=environment(), cwd=folder / "empty", capture_output=True, text=True, timeout=60)
    assert all(path.startswith(str(folder)) for path in found.stdout.split())
    return folder


@pytest.fixture(scope="module")
def home(installed: Path) -> Iterator[Path]:
    folder = installed / "home"
    result = newt(folder, "up", "--any-port", "--domain", "mujoco", "--domain", "metaworld")
    assert result.returncode == 0, result.stdout + result.stderr
    yield folder
    down = newt(folder, "down")
    assert down.returncode == 0, down.stdout + down.stderr
    assert newt(folder, "status").returncode == 1


@pytest.fixture(scope="module")
def run_id(home: Path) -> str:
    """A small but complete run, started by `newt train`."""
    settings = [argument for value in SMALL for argument in ("--set", value)]
    result = newt(home, "train", "mw-drawer-close", "mujoco-reacher", "--preset", "laptop", *settings)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "succeeded" in result.stdout
    progress = [line for line in result.stdout.splitlines() if " | " in line]
    assert max(map(len, progress)) < 100
    assert "normalised score" in result.stdout[result.stdout.index(progress[-1]) :]
    first_line = result.stdout.splitlines()[0]
    return first_line.split()[1].rstrip(":")


def url(home: Path) -> str:
    state = control.read(home)
    assert state is not None
    return state.rest_url


@pytest.mark.slow
def test_status_shows_every_service_ready(home: Path) -> None:
    result = newt(home, "status")
    assert result.returncode == 0, result.stdout
    for name in ("redis", "replay", "planner", "learner", "sim-mujoco", "sim-metaworld"):
        assert any(name in line and "ready" in line for line in result.stdout.splitlines())
    assert any("planner" in line and " cpu " in line for line in result.stdout.splitlines())


@pytest.mark.slow
def test_a_run_shows_its_three_milestones(home: Path, run_id: str) -> None:
    result = newt(home, "runs", "show", run_id)
    assert result.returncode == 0, result.stderr
    rows = {line.split("│")[1].strip(): line for line in result.stdout.splitlines() if line.count("│") == 7}
    cells = [cell.strip() for cell in rows["mujoco-reacher"].split("│")[2:5]]
    assert all(0 <= float(cell) <= 1 for cell in cells)
    assert run_id in newt(home, "runs").stdout


@pytest.mark.slow
def test_a_checkpoint_comes_home_and_can_be_inspected(home: Path, run_id: str, tmp_path: Path) -> None:
    names = httpx.get(f"{url(home)}/runs/{run_id}/checkpoints", timeout=10).json()["checkpoints"]
    target = tmp_path / "newest"
    result = newt(home, "runs", "checkpoints", run_id, "--download", names[-1]["name"], "--to", str(target))
    assert result.returncode == 0, result.stderr
    assert target.stat().st_size == names[-1]["size_bytes"]
    inspected = newt(home, "checkpoints", "inspect", "--json", str(target))
    assert inspected.returncode == 0, inspected.stderr
    assert "mw-drawer-close" in json.dumps(json.loads(inspected.stdout))


@pytest.mark.slow
def test_a_checkpoint_is_evaluated_again(home: Path, run_id: str) -> None:
    result = newt(home, "eval", run_id, "mujoco-reacher", "--episodes", "1", "--mode", "policy")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "mujoco-reacher" in result.stdout


@pytest.mark.slow
def test_a_checkpoint_moves_and_is_evaluated_open_loop(home: Path, run_id: str, tmp_path: Path) -> None:
    file, report = tmp_path / "agent", tmp_path / "report.json"
    assert newt(home, "runs", "checkpoints", run_id, "--download", "newest", "--to", str(file)).returncode == 0
    uploaded = newt(home, "checkpoints", "upload", str(file), "mine")
    assert uploaded.returncode == 0, uploaded.stderr
    assert "imported/mine" in newt(home, "checkpoints", "list").stdout
    task, text = "mujoco-inverted-pendulum", "A cart with a pole. Keep the pole upright."  # not one of the run's tasks
    options = ["--mode", "open-loop", "--plan-steps", "6", "--episodes", "1", "--instruction", f"{task}={text}"]
    result = newt(home, "eval", "imported/mine", task, *options, "--out", str(report))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "100 %" in result.stdout
    written = json.loads(report.read_text())
    assert written["instructions"] == {task: text}
    assert [episode["length"] for episode in written["episodes"]] == [6, 6]
    assert newt(home, "checkpoints", "delete", "mine").returncode == 0
    assert "there are: none" in newt(home, "eval", "imported/mine", task).stderr


@pytest.mark.slow
def test_nonsense_is_refused_in_one_line_that_names_the_field(home: Path) -> None:
    for arguments, complaint in (
        (["train", "walker-wlak"], "walker-walk"),
        (["train", "mujoco-reacher", "--set", "schedule.total_env_steps=-1"], "schedule.total_env_steps"),
        (["train", "mujoco-reacher", "--set", "train.lr=fast"], "lr"),
        (["train", "mujoco-reacher", "--set", "colour=red"], "colour"),
        (["train", "mujoco-ant", "--algorithm", "bc"], "algorithm.name"),
        (["train", "rd-push-red"], "simulator"),
        (["runs", "show", "no-such-run"], "no-such-run"),
    ):
        result = newt(home, *arguments)
        assert result.returncode == 1
        assert complaint in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_run_on_a_domain_that_is_not_served_fails_with_the_remedy(home: Path) -> None:
    # The stack has no DMControl simulator: the API may refuse at once, or the run fails with the cause.
    reply = httpx.post(f"{url(home)}/runs", json={"tasks": ["walker-walk"], "preset": "laptop"}, timeout=10)
    text = reply.text
    if reply.status_code == 201:
        run = reply.json()["id"]
        deadline = time.monotonic() + 120
        while (record := httpx.get(f"{url(home)}/runs/{run}", timeout=10).json())["state"] != "failed":
            assert time.monotonic() < deadline, record
            time.sleep(0.5)
        text = record["error"]
    assert "dmcontrol" in text


@pytest.mark.slow
def test_a_backup_of_the_running_stack_goes_into_another_home(home: Path, run_id: str, tmp_path: Path) -> None:
    made = newt(home, "backup", str(tmp_path / "backup"))
    assert made.returncode == 0, made.stderr
    refused = newt(home, "restore", str(tmp_path / "backup"))
    assert refused.returncode == 1
    assert "a stack runs already" in refused.stderr
    restored = newt(home, "restore", str(tmp_path / "backup"), "--home", str(tmp_path / "other"))
    assert restored.returncode == 0, restored.stderr
    assert restored.stdout.splitlines()[0].removeprefix("restored ") == made.stdout.rstrip().partition("backup: ")[2]
    assert (tmp_path / "other" / "data" / "runs" / run_id / "checkpoints" / "0.safetensors").is_file()


@pytest.mark.slow
def test_a_finished_run_is_deleted(home: Path, run_id: str) -> None:
    result = newt(home, "runs", "delete", run_id, "--yes")
    assert result.returncode == 0, result.stderr
    assert run_id not in newt(home, "runs").stdout
    assert run_id in newt(home, "runs", "delete", run_id, "--yes").stderr


def test_without_a_stack_the_command_says_how_to_start_one(installed: Path) -> None:
    result = newt(installed / "elsewhere", "runs")
    assert result.returncode == 1
    assert "newt up" in result.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_tour_leaves_everything_in_one_folder(installed: Path) -> None:
    settings = [argument for value in TOUR for argument in ("--set", value)]
    # By its former name, which works as well.
    result = newt(installed / "elsewhere", "demo", "--env-steps", "200", *settings, timeout_s=280)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "newt tour" in result.stdout.splitlines()[0]
    (folder,) = (installed / "empty" / "runs").iterdir()
    assert folder.name.startswith("tour-")
    found = {path.name.partition("-")[0] for path in folder.iterdir()}
    pictures = {f"{name}.{kind}" for name in ("losses", "scores") for kind in ("png", "svg", "csv")}
    assert found == {"checkpoint", "results.json", "stack", "videos", *pictures}
    assert list((folder / "videos").glob("*.mp4"))
    assert json.loads((folder / "results.json").read_text())["tasks"]["mujoco-reacher"]["final"]
    assert {path.name for path in (installed / "empty").iterdir()} == {"runs"}


@pytest.mark.slow
def test_a_stranger_trains_on_a_task_of_their_own(installed: Path) -> None:
    """From an empty folder: a file to begin with, its check, a video, a run; nothing of ours is edited."""
    home = installed / "own-home"
    begun = newt(home, "env", "init", "my_reacher")
    assert begun.returncode == 0, begun.stderr
    check = newt(home, "env", "check", "./my_reacher", "--steps", "100", "--episodes", "1", "--json")
    assert check.returncode == 0, check.stdout + check.stderr
    assert json.loads(check.stdout)["tasks"][0]["name"] == "my-reacher"
    played = newt(home, "env", "play", "./my_reacher", "--agent", "expert")
    assert played.returncode == 0, played.stderr
    assert (installed / "empty" / "my_reacher-expert.mp4").stat().st_size > 1_000
    small = [argument for value in OWN for argument in ("--set", value)]
    run = newt(home, "train", "./my_reacher", "mujoco-reacher", "--preset", "laptop", *small, timeout_s=400)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 tasks" in run.stdout
    assert "succeeded" in run.stdout
    assert newt(home, "status").returncode == 1  # the services lived as long as the command


BREAKING = """
import gymnasium, numpy as np
from newt.own import OwnTask, Returns


class Env(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-9, 9, (2,))
    action_space = gymnasium.spaces.Box(-1, 1)

    def __init__(self, breaks):
        self.breaks = breaks

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.np_random.uniform(-1, 1, 2), {}

    def step(self, action):
        self.steps += 1
        if self.breaks and self.steps == 7:
            raise OSError("no arm")
        return self.np_random.uniform(-1, 1, 2), float(action[0]), False, False, {}


TASKS = [
    OwnTask(name=name, make=lambda breaks=breaks: Env(breaks), goal="Move the arm to the right.", episode_length=10,
            score=Returns(0, 10), expert=lambda env, obs: np.ones(1))
    for name, breaks in (("whole-arm", False), ("broken-arm", True))
]
"""


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_task_that_only_crashes_costs_the_other_nothing(installed: Path) -> None:
    """Nor does it that neither can be drawn."""
    home = installed / "broken-home"
    (installed / "empty" / "arms").mkdir()
    (installed / "empty" / "arms" / "env.py").write_text(BREAKING)
    small = [argument for value in (*OWN, "evaluation.episodes_per_task=1") for argument in ("--set", value)]
    run = newt(home, "train", "./arms", "--preset", "laptop", *small, timeout_s=450)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "waiting on" in run.stdout
    rows = {line.split("│")[1].strip(): line for line in run.stdout.splitlines() if line.count("│") >= 5}
    scores = {name: [cell.strip() for cell in rows[name].split("│")[2:5]] for name in ("whole-arm", "broken-arm")}
    assert scores["broken-arm"] == ["-", "-", "-"]
    assert all(0 <= float(score) <= 1 for score in scores["whole-arm"])
    log = (home / "logs" / "sim-arms.log").read_text()
    assert "OSError: no arm" in log
    crash = next((home / "crashes").glob("*.npz"))
    assert crash.name in log
    again = newt(home, "env", "replay", str(crash))
    assert again.returncode == 1
    assert "now: OSError: no arm" in again.stdout


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_an_agent_plays_while_its_run_goes_on(installed: Path) -> None:
    home = installed / "live-home"
    assert newt(home, "env", "init", "live_reacher").returncode == 0
    small = [argument for value in (*OWN, "schedule.total_env_steps=1000000") for argument in ("--set", value)]
    command = [str(installed / "venv" / "bin" / "newt"), "train", "./live_reacher", "--preset", "laptop", *small]
    variables = environment(NEWT_HOME=str(home), COLUMNS="200")
    with subprocess.Popen(
        command, env=variables, cwd=installed / "empty", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as train:
        try:
            run = wait_for_checkpoint(home, train)
            played = newt(home, "env", "play", "./live_reacher", "--agent", run)
            assert played.returncode == 0, played.stderr
            assert "live-reacher: 50 steps" in played.stdout
            assert (installed / "empty" / f"live_reacher-{run}.mp4").stat().st_size > 1_000
            assert httpx.get(f"{url(home)}/runs/{run}", timeout=10).json()["state"] == "training"
        finally:
            train.send_signal(signal.SIGINT)
            train.communicate(timeout=100)
    assert newt(home, "status").returncode == 1


def wait_for_checkpoint(home: Path, train: subprocess.Popen[str]) -> str:
    """The id of the only run, once it has one."""
    deadline = time.monotonic() + 170
    while True:
        assert train.poll() is None, train.stdout.read() if train.stdout else ""
        assert time.monotonic() < deadline
        state = control.read(home)
        if state is not None and state.state == "running":
            with contextlib.suppress(httpx.TransportError):
                for run in httpx.get(f"{state.rest_url}/runs", timeout=10).json()["runs"]:
                    address = f"{state.rest_url}/runs/{run['id']}/checkpoints"
                    if httpx.get(address, timeout=10).json()["checkpoints"]:
                        return str(run["id"])
        time.sleep(0.3)
