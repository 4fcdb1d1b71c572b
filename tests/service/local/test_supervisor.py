"""The local launcher's process handling, on small real processes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from newt.local import control, ports, stack
from newt.local.state import STATE_FILE
from newt.tasks.domains import DOMAINS, installed_domains
from services.learner.settings import LearnerSettings
from services.planner.settings import PlannerSettings
from services.replay.settings import ReplaySettings
from services.sim.settings import SimSettings

ROOT = Path(__file__).parents[3]


def wait_until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


def test_a_taken_fixed_port_is_named_with_the_remedy(tmp_path: Path) -> None:
    import socket

    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            holder.bind((ports.HOST, stack.PORTS["replay"]))
        except OSError:
            pass  # Taken by somebody else: just as good.
        else:
            holder.listen()
        with pytest.raises(OSError, match=rf"replay needs port {stack.PORTS['replay']}.*--any-port"):
            stack.build(stack.StackConfig(tmp_path, ("mujoco",)))


def test_free_ports_are_none_that_outgoing_connections_get() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    given = [ports.free_port() for _ in range(200)]
    assert len(set(given)) == 200
    assert all(1024 <= port < first for port in given)


def environments(home: Path, *domains: str) -> dict[str, dict[str, str]]:
    """What each service of a stack would be started with."""
    specs = stack.build(stack.StackConfig(home, domains, fixed_ports=False))
    return {spec.name: stack.environment(spec) for spec in specs}


def test_services_get_their_own_settings_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {
        "NEWT_SIM_WORKERS": "3",
        "NEWT_REPLAY_REMEMBERED_IDS": "7",
        "NEWT_PLANNER_COMPILE": "true",
        "NEWT_LEARNER_DEVICE": "cuda",
        "NEWT_LEARNER_MAX_CONCURRENT_RUNS": "2",
        "NEWT_LEARNER_IMAGE_ENCODER": "/models/dinov2",
    }
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)
    started = environments(tmp_path, "mujoco", "metaworld")
    assert set(started) == {"redis", "replay", "planner", "learner", "sim-mujoco", "sim-metaworld"}
    for service, environment in started.items():
        prefix = f"NEWT_{service.partition('-')[0].upper()}_"
        own = {name: value for name, value in wanted.items() if name.startswith(prefix)}
        assert {name: value for name, value in environment.items() if name in wanted} == own
        assert all(name.startswith(prefix) for name in environment if name.startswith("NEWT_"))


def test_what_makes_the_stack_one_is_not_taken_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = ("HOST", "PORT", "METRICS_HOST", "METRICS_PORT", "HUB", "HUB_HOST", "HUB_PORT", "REDIS_URL", "REPLAY")
    for service in ("SIM", "REPLAY", "PLANNER", "LEARNER"):
        for name in (*others, "PLANNER", "SIMS", "DATA_DIR", "DOMAINS"):
            monkeypatch.setenv(f"NEWT_{service}_{name}", "elsewhere")
    specs = {
        spec.name: spec for spec in stack.build(stack.StackConfig(tmp_path, ("mujoco", "metaworld"), fixed_ports=False))
    }
    assert len({spec.port for spec in specs.values()}) == len(specs)
    learner, planner = stack.environment(specs["learner"]), stack.environment(specs["planner"])
    assert learner["NEWT_LEARNER_REPLAY"] == specs["replay"].address
    assert learner["NEWT_LEARNER_PLANNER"] == specs["planner"].address
    assert learner["NEWT_LEARNER_PORT"] == str(specs["learner"].port)
    assert planner["NEWT_PLANNER_HUB"] == f"{learner['NEWT_LEARNER_HUB_HOST']}:{learner['NEWT_LEARNER_HUB_PORT']}"
    known = {
        "sim-mujoco": SimSettings,
        "replay": ReplaySettings,
        "planner": PlannerSettings,
        "learner": LearnerSettings,
    }
    for service, settings in known.items():
        prefix = str(settings.model_config["env_prefix"])
        mine = {f"{prefix}{name}".upper() for name in settings.model_fields}
        left = {name for name, value in stack.environment(specs[service]).items() if value == "elsewhere"}
        assert not left & mine


@pytest.mark.parametrize(
    ("asked", "torch_threads", "openmp"), [(None, "1", "1"), ("4", "4", "4"), ("0", "0", "9")], ids=str
)
def test_planner_and_trainers_have_one_thread_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str | None, torch_threads: str, openmp: str
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "9")
    for service in ("planner", "learner"):
        name = f"NEWT_{service.upper()}_TORCH_THREADS"
        if asked is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, asked)
        environment = environments(tmp_path, "mujoco")[service]
        assert (environment[name], environment["OMP_NUM_THREADS"]) == (torch_threads, openmp)
    assert environments(tmp_path, "mujoco")["sim-mujoco"]["OMP_NUM_THREADS"] == "1"


def test_every_domain_has_the_port_that_is_documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: True)  # Somebody may have one of them; nothing is bound here.
    readme = (ROOT / "services" / "sim" / "README.md").read_text()
    documented = {domain: int(port) for domain, port in re.findall(r"^\| `([\w-]+)` \| (\d+) \|", readme, re.MULTILINE)}
    assert set(documented) == set(DOMAINS)
    for domains in (tuple(installed_domains()), ("atari", "dmcontrol"), ("mujoco",)):
        sims = [spec for spec in stack.build(stack.StackConfig(tmp_path, domains)) if spec.name.startswith("sim-")]
        assert {spec.name: spec.port for spec in sims} == {f"sim-{name}": documented[name] for name in domains}
    assert len({*documented.values(), *stack.PORTS.values(), stack.REST_PORT}) == len(DOMAINS) + len(stack.PORTS) + 1
    example = re.search(
        r'RemoteVectorEnv\("walker-walk".*address="127\.0\.0\.1:(\d+)"', (ROOT / "README.md").read_text()
    )
    assert example is not None
    assert int(example[1]) == documented["dmcontrol"]


def test_config_survives_the_command_line(tmp_path: Path) -> None:
    config = stack.StackConfig(tmp_path, ("mujoco",), fixed_ports=False, sim_workers=3)
    assert stack.StackConfig.from_json(config.to_json()) == config


def test_down_without_a_stack_says_so(tmp_path: Path) -> None:
    assert control.down(tmp_path) is False
    assert control.read(tmp_path) is None


def test_starting_fails_with_the_services_own_last_words(tmp_path: Path) -> None:
    # A Redis that cannot start: its data folder is a file.
    (tmp_path / "redis").write_text("not a folder")
    with pytest.raises(control.StackError, match=r"redis exited with status \d+ while starting: .+"):
        control.up(stack.StackConfig(tmp_path, (), fixed_ports=False))


def test_a_process_that_got_a_dead_supervisors_id_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "redis").write_text("not a folder")
    config = stack.StackConfig(tmp_path, (), fixed_ports=False)
    with pytest.raises(control.StackError, match="redis exited"):
        control.up(config)
    # As a supervisor leaves it that was killed, or whose machine was: it ran, and its id is somebody else's by now.
    record = json.loads((tmp_path / STATE_FILE).read_text())
    with subprocess.Popen(["sleep", "60"]) as stranger:
        try:
            for state in ("starting", "running"):
                left = json.dumps({**record, "state": state, "error": None, "pid": stranger.pid})
                (tmp_path / STATE_FILE).write_text(left)
                assert control.read(tmp_path) is None
                assert control.down(tmp_path) is False
                with pytest.raises(control.StackError, match="redis exited"):
                    control.up(config)
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_misspelt_setting_of_a_service_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWT_REPLAY_REMEMBERED_ID", "7")
    with pytest.raises(control.StackError, match=r"replay exited .*unknown setting NEWT_REPLAY_REMEMBERED_ID;"):
        control.up(stack.StackConfig(tmp_path, (), fixed_ports=False))


def test_supervisor_module_runs_as_a_script() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "newt.local.supervisor", "not json"], capture_output=True, text=True, timeout=30
    )
    assert result.returncode != 0
    assert "JSON" in result.stderr
