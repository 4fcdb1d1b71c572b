"""Simulators that raise, die or hang, clients that vanish, servers that are killed."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import numpy.typing as npt
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY
from sim_running import RunningServer

from newt.client import AutoReset, ObsMode, SimClient, SimSession, Step
from newt.errors import InvalidInputError, LostError, PreconditionError, UnavailableError
from newt.local.ports import free_port
from newt.wire.channels import connect
from newt.wire.tensors import encode
from newt.wire.v1 import sim_pb2
from services.sim.checks.crash import again
from services.sim.domains.gl_backends import VERDICT_VARIABLE
from services.sim.domains.noop import BAD_SEED, DIE, HANG, HANG_SEED, NOT_A_NUMBER, RAISE, SLOW, TERMINATE
from services.sim.seeds import mix
from services.sim.session import Session
from services.sim.trail import MAX_FILES

Start = Callable[..., RunningServer]
ROOT = Path(__file__).parents[3]
A = 16


def orders(*first: float) -> npt.NDArray[np.float32]:
    """Actions whose first columns are these."""
    action = np.zeros((len(first), A), np.float32)
    action[:, 0] = first
    return action


def open_faulty(client: SimClient, rows: int, auto_reset: AutoReset = AutoReset.SAME_STEP) -> SimSession:
    return client.open(["noop-faulty"] * rows, range(rows), auto_reset=auto_reset)


def not_finite(task: str) -> float:
    return REGISTRY.get_sample_value("newt_sim_not_finite_episodes_total", {"task": task}) or 0.0


def wait_replaced(server: RunningServer, index: int) -> None:
    """Waits until another process stands where one that was killed stood."""
    deadline = time.monotonic() + 10
    while server.service.pool.pids[index] == server.pids[index] or not server.service.pool.healthy:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def check_crashed(step: Step, before: npt.NDArray[np.float32], rows: list[int]) -> None:
    """The contract for rows whose simulator died, and that the others did not notice."""
    others = [row for row in range(len(before)) if row not in rows]
    assert np.flatnonzero(step.crashed).tolist() == rows
    assert np.isnan(step.reward[rows]).all()
    assert step.truncated[rows].all()
    assert not step.terminated.any()
    assert step.final_rows.tolist() == rows
    np.testing.assert_array_equal(step.final_obs, before[rows])
    assert (step.observation.episode_step[rows] == 0).all()
    assert (step.observation.obs[rows, 0] != before[rows, 0]).all()
    assert not step.truncated[others].any()
    assert np.isfinite(step.reward[others]).all()
    assert (step.observation.episode_step[others] > 0).all()


@pytest.mark.parametrize("order", [RAISE, NOT_A_NUMBER])
def test_an_exception_costs_one_episode(start: Start, order: float) -> None:
    server = start()
    counted = not_finite("noop-faulty")
    with SimClient(server.address, 10) as client, open_faulty(client, 4) as session:
        session.reset()
        before = session.step(orders(0, 0, 0, 0)).observation.obs
        check_crashed(session.step(orders(0, order, 0, 0)), before, [1])
        assert not session.step(orders(0, 0, 0, 0)).crashed.any()
    assert server.service.pool.pids == server.pids
    assert not_finite("noop-faulty") - counted == (order == NOT_A_NUMBER)


@pytest.mark.parametrize("order", [RAISE, NOT_A_NUMBER])
def test_what_led_to_a_crash_can_be_stepped_again(start: Start, order: float, tmp_path: Path) -> None:
    server = start(crash_dir=str(tmp_path / "crashes"))
    with SimClient(server.address, 10) as client, open_faulty(client, 2) as session:
        session.reset()
        for first in (0.1, 0.2, order):
            session.step(orders(0, first))
        for _ in range(30):
            session.step(orders(order, 0))
    files = sorted((tmp_path / "crashes").iterdir(), key=lambda path: path.stat().st_mtime)
    assert len(files) == MAX_FILES  # the newest
    session_file = again(files[-1], None)
    assert session_file["now"] == session_file["recorded"]
    assert (session_file["steps"], session_file["differs"]) == (1, None)


def test_a_long_trail_is_stepped_again_and_a_mended_task_is_seen(start: Start, tmp_path: Path) -> None:
    server = start(crash_dir=str(tmp_path))
    with SimClient(server.address, 10) as client, open_faulty(client, 1) as session:
        session.reset()
        for first in (0.1, 0.2, 0.3, NOT_A_NUMBER):
            session.step(orders(first))
    (file,) = tmp_path.iterdir()
    found = again(file, None)
    assert "observation column" in found["recorded"]
    assert (found["steps"], found["now"], found["differs"]) == (4, found["recorded"], None)
    with np.load(file) as stored:
        parts = dict(stored)
    parts["actions"][3] = 0  # as if the code had been mended
    parts["last_obs"][1, 0] += 1
    np.savez(tmp_path / "mended.npz", **parts)
    found = again(tmp_path / "mended.npz", None)
    assert (found["now"], found["differs"]) == ("", 1)
    (tmp_path / "none.npz").write_bytes(file.read_bytes()[:99])
    with pytest.raises(InvalidInputError, match="expected a crash"):
        again(tmp_path / "none.npz", None)


def test_an_episode_that_starts_without_numbers_is_left_out(start: Start) -> None:
    """The row plays on with the next seed of its sequence; other rows do not notice."""
    origin = next(seed for seed in range(100_000) if mix(seed, 1) % BAD_SEED == 0)
    server = start()
    with SimClient(server.address, 10) as client, client.open(["noop-faulty"] * 2, [origin, 5]) as session:
        session.reset()
        step = session.step(orders(TERMINATE, 0))
        assert np.isfinite(step.observation.obs).all()
        assert step.final_rows.tolist() == [0]
        assert step.reward[0] == TERMINATE  # of the episode that has ended well
        assert step.observation.episode_seed.tolist() == [mix(origin, 2), mix(5, 0)]
        session.step(orders(0, 0))
        # Whoever asks for that very episode is told that it cannot be had, and may ask for another one.
        with pytest.raises(LostError, match="not finite"):
            session.reset(rows=[0], seeds=[BAD_SEED])
        assert np.isfinite(session.reset().obs).all()
        assert not session.step(orders(0, 0)).crashed.any()
    assert server.service.pool.pids == server.pids


def test_a_session_that_nobody_waits_for_is_not_built_to_the_end(start: Start) -> None:
    server = start(workers=1)
    service = server.service
    tasks = [sim_pb2.SimTask(name="noop", domain="noop", obs_dim=24, action_dim=6)] * 8
    asked: list[bool] = []

    def wanted() -> bool:
        asked.append(len(asked) < 3)
        return asked[-1]

    with pytest.raises(UnavailableError, match="did not wait"):
        Session(
            tasks,
            range(8),
            rgb=False,
            same_step=True,
            with_expert=False,
            pool=service.pool,
            timeout_s=10,
            wanted=wanted,
        )
    assert asked == [True, True, True, False]
    with SimClient(server.address, 10) as client, client.open(["noop"] * 2, range(2)) as session:
        session.reset()
        assert not session.step(orders(0, 0)).crashed.any()
    assert service.pool.pids == server.pids


def test_a_dying_worker_takes_only_its_own_instances_along(start: Start) -> None:
    server = start()
    with (
        SimClient(server.address, 20) as client,
        open_faulty(client, 4) as session,
        client.open(["noop"] * 4, range(4)) as neighbour,
    ):
        session.reset()
        neighbour.reset()
        before = session.step(orders(0, 0, 0, 0)).observation
        neighbour_before = neighbour.step(orders(0, 0, 0, 0)).observation.obs
        step = session.step(orders(DIE, 0, 0, 0))
        check_crashed(step, before.obs, [0, 2])  # Rows alternate between the two workers.
        assert step.observation.episode_seed[1] == before.episode_seed[1]
        # The neighbour learns of its own loss with its next step, and then goes on.
        check_crashed(neighbour.step(orders(0, 0, 0, 0)), neighbour_before, [0, 2])
        assert not neighbour.step(orders(0, 0, 0, 0)).crashed.any()
        assert not session.step(orders(0, 0, 0, 0)).crashed.any()
    assert server.service.pool.pids[0] != server.pids[0]
    assert server.service.pool.pids[1] == server.pids[1]


def test_the_seed_sequence_survives_a_crash(start: Start) -> None:
    server = start()
    with SimClient(server.address, 20) as client, open_faulty(client, 1) as session:
        undisturbed = [session.reset().episode_seed[0] for _ in range(4)]
    with SimClient(server.address, 20) as client, open_faulty(client, 1) as session:
        seen = [session.reset().episode_seed[0]]
        seen += [session.step(orders(order)).observation.episode_seed[0] for order in (DIE, RAISE, TERMINATE)]
    assert seen == undisturbed


def test_kill_9_in_the_middle_of_a_step(start: Start) -> None:
    server = start()
    with SimClient(server.address, 20) as client, open_faulty(client, 4) as session:
        before = session.reset().obs
        session.send(orders(0, HANG, 0, 0))
        time.sleep(0.3)
        os.kill(server.pids[1], signal.SIGKILL)
        check_crashed(session.receive(), before, [1, 3])


def test_kill_9_between_two_steps(start: Start) -> None:
    server = start()
    with SimClient(server.address, 20) as client, open_faulty(client, 2) as session:
        before = session.reset().obs
        os.kill(server.pids[0], signal.SIGKILL)
        check_crashed(session.step(orders(0, 0)), before, [0])


def test_a_hung_simulator_is_killed(start: Start) -> None:
    server = start(step_timeout_s=0.5)
    with SimClient(server.address, 20) as client, open_faulty(client, 2) as session:
        before = session.reset().obs
        check_crashed(session.step(orders(HANG, 0)), before, [0])
    assert not psutil.pid_exists(server.pids[0])


def test_a_reset_that_blocks_is_an_error_that_names_the_task(start: Start) -> None:
    server = start(step_timeout_s=0.5)
    with SimClient(server.address, 20) as client, client.open(["noop-faulty", "noop"], [0, 0]) as session:
        words = "attempt to reset them; the last time, with noop-faulty in it, .* did not return in time"
        with pytest.raises(LostError, match=words):  # its neighbour, in a worker of its own, is not in it
            session.reset(seeds=[HANG_SEED, 3])
        session.reset(seeds=[3, 3])  # another seed, and it goes on
        assert session.step(np.zeros((2, 16), np.float32)).reward.tolist() == [0, 0]


def test_long_work_of_many_instances_is_not_a_hang(start: Start) -> None:
    server = start(step_timeout_s=0.6, workers=1)
    with SimClient(server.address, 20) as client, open_faulty(client, 8) as session:
        session.reset()
        assert not session.step(orders(*[SLOW] * 8)).crashed.any()
    assert server.service.pool.pids == server.pids


def test_crash_without_auto_reset(start: Start) -> None:
    server = start()
    with SimClient(server.address, 20) as client, open_faulty(client, 2, AutoReset.DISABLED) as session:
        session.reset()
        for order in (RAISE, DIE):
            before = session.step(orders(0, 0)).observation
            step = session.step(orders(order, 0))
            assert step.crashed.tolist() == [True, False]
            assert step.final_rows.tolist() == [0]
            np.testing.assert_array_equal(step.final_obs[0], before.obs[0])
            np.testing.assert_array_equal(step.observation.obs[0], before.obs[0])
            with pytest.raises(PreconditionError, match="row 0"):
                session.step(orders(0, 0))
            assert session.reset(rows=[0]).episode_step[0] == 0


def test_a_reset_hides_no_crash_of_other_rows(start: Start) -> None:
    server = start(workers=1)
    with SimClient(server.address, 20) as client, open_faulty(client, 3) as session:
        session.reset()
        before = session.step(orders(0, 0, 0)).observation
        os.kill(server.pids[0], signal.SIGKILL)
        partly = session.reset(rows=[1])
        assert partly.episode_step.tolist() == [1, 0, 1]
        np.testing.assert_array_equal(partly.obs[[0, 2]], before.obs[[0, 2]])
        check_crashed(session.step(orders(0, 0, 0)), partly.obs, [0, 2])


def test_drawing_dead_simulators_is_an_error_until_the_next_step(start: Start) -> None:
    server = start(workers=1)
    with SimClient(server.address, 20) as client, open_faulty(client, 1) as session:
        session.reset()
        os.kill(server.pids[0], signal.SIGKILL)
        with pytest.raises(LostError, match="next Step"):
            session.render()
        assert session.step(orders(0)).crashed.all()
        assert session.render().shape == (1, 224, 224, 3)


def test_crash_with_frames(start: Start) -> None:
    server = start()
    with (
        SimClient(server.address, 20) as client,
        client.open(["noop-faulty"] * 2, [0, 1], obs_mode=ObsMode.STATE_RGB) as session,
    ):
        session.reset()
        for order in (RAISE, DIE):
            before = session.step(orders(0, 0)).observation.rgb
            step = session.step(orders(order, 0))
            assert before is not None
            assert step.final_rgb is not None
            assert step.observation.rgb is not None
            np.testing.assert_array_equal(step.final_rgb[0], before[0])
            assert (step.observation.rgb[0] != before[0]).any()


def test_too_many_deaths_stop_the_restarts(start: Start) -> None:
    server = start(max_restarts_per_minute=2, workers=1)
    health = health_pb2_grpc.HealthStub(connect(server.address))

    def state() -> int:
        return health.Check(health_pb2.HealthCheckRequest(service="newt.v1.SimService"), timeout=5).status

    assert state() == health_pb2.HealthCheckResponse.SERVING
    with SimClient(server.address, 20) as client, open_faulty(client, 1) as session:
        session.reset()
        for _ in range(2):
            assert session.step(orders(DIE)).crashed.all()
        with pytest.raises(UnavailableError, match=r"(?s)2 workers died within 60 s.*SIGSEGV"):
            session.step(orders(DIE))
        deadline = time.monotonic() + 10
        while state() == health_pb2.HealthCheckResponse.SERVING:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        # The step is still under way, and goes on as soon as a worker may be started.
        server.service.pool._restarts._spent.clear()
        assert session.receive().crashed.all()
        assert not session.step(orders(0)).crashed.any()


def test_workers_share_the_file_of_what_draws_also_with_one_that_replaces_another(start: Start) -> None:
    server = start()

    def verdicts() -> list[tuple[int, int]]:
        found = []
        for pid in server.service.pool.pids:
            number = psutil.Process(pid).environ()[VERDICT_VARIABLE].removeprefix("/proc/self/fd/")
            file = os.stat(f"/proc/{pid}/fd/{number}")
            found.append((file.st_dev, file.st_ino))
        return found

    assert len(set(verdicts())) == 1
    before = verdicts()
    os.kill(server.pids[0], signal.SIGKILL)
    wait_replaced(server, 0)
    assert verdicts() == before


def test_a_dead_idle_worker_is_replaced_unasked(start: Start) -> None:
    server = start()
    os.kill(server.pids[1], signal.SIGKILL)
    wait_replaced(server, 1)


def test_task_termination(start: Start) -> None:
    server = start()
    with SimClient(server.address, 10) as client, open_faulty(client, 2) as session:
        session.reset()
        step = session.step(orders(TERMINATE, 0))
        assert step.terminated.tolist() == [True, False]
        assert not step.truncated.any()
        assert step.final_rows.tolist() == [0]
        assert step.final_obs[0, 1] == 1
        assert step.observation.episode_step.tolist() == [0, 1]


def test_a_lease_ends_when_nobody_calls(start: Start) -> None:
    server = start()
    with SimClient(server.address, 10) as client:
        idle = client.open(["noop"] * 3, range(3), lease_s=1.0)
        kept = client.open(["noop"], [0], lease_s=1.0, keep_alive=True)
        assert idle.lease_s == 1.0
        idle.reset()
        kept.reset()
        deadline = time.monotonic() + 10
        while server.service.sessions.used_instances > 1:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for call in (idle.reset, idle.renew, lambda: idle.step(orders(0, 0, 0))):
            with pytest.raises(PreconditionError, match="lease has expired"):
                call()
        idle.close()
        kept.step(orders(0))
        kept.close()


def test_leases_are_bounded(start: Start) -> None:
    server = start(max_lease_s=5, default_lease_s=2)
    with SimClient(server.address, 10) as client:
        for asked, granted in ((0, 2), (3, 3), (1e9, 5)):
            with client.open(["noop"], [0], lease_s=asked) as session:
                assert session.lease_s == granted
                assert session.renew() == granted


def test_a_vanished_client_gives_its_instances_back(start: Start) -> None:
    server = start()
    code = (
        "import sys, os, numpy as np; from newt.client import SimClient\n"
        "session = SimClient(sys.argv[1], 10).open(['noop'] * 2, [0, 1], lease_s=0.5, keep_alive=True)\n"
        "session.reset(); session.step(np.zeros((2, 16), np.float32)); print('up', flush=True)\n"
        "session.send(np.zeros((2, 16), np.float32)); import time; time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, server.address], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as vanishing:
        assert vanishing.stdout is not None
        assert vanishing.stdout.readline() == "up\n"
        assert server.service.sessions.used_instances == 2
        vanishing.kill()
    deadline = time.monotonic() + 10
    while server.service.sessions.used_instances:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_caller_that_gives_up_can_repeat_its_step(start: Start) -> None:
    server = start(step_timeout_s=1.0)
    with SimClient(server.address, 20) as client, open_faulty(client, 1) as session:
        session.reset()
        request = sim_pb2.StepRequest(session_id=session._id, step_number=1)
        request.action.CopyFrom(encode(orders(HANG)))
        with pytest.raises(grpc.RpcError) as caught:
            client.stub.Step(request, timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
        reply = client.stub.Step(request, timeout=20)
        assert np.frombuffer(reply.errors.data, np.int32).tolist() == [sim_pb2.ENV_ERROR_CRASHED]


def test_a_step_beyond_the_deadline_costs_one_episode(start: Start) -> None:
    """As the learner asks for it: a simulator hangs for longer than the client waits."""
    server = start(step_timeout_s=2.0)
    with SimClient(server.address, 0.7) as client, open_faulty(client, 2) as session:
        before = session.reset().obs
        session.send(orders(HANG, 0))
        with pytest.raises(UnavailableError, match=r"did not answer within 0\.7 s"):
            session.receive()
        with pytest.raises(RuntimeError, match="under way"):  # Its number would get the old result.
            session.send(orders(0, 0))
        check_crashed(session.receive(60), before, [0])
        after = session.step(orders(0, 0)).observation
        assert after.episode_step.tolist() == [1, 2]
    assert not psutil.pid_exists(server.pids[0])


def test_a_reset_gives_up_the_step_under_way(start: Start) -> None:
    server = start()
    with SimClient(server.address, 20) as client, open_faulty(client, 2) as session:
        session.reset()
        for action in (orders(0, 0), orders(0, 7)):  # The second one is refused.
            session.send(action)
            assert session.reset().episode_step.tolist() == [0, 0]
            assert not session.stepping
        assert session.step(orders(0, 0)).observation.episode_step.tolist() == [1, 1]


@pytest.fixture
def launch() -> Iterator[Callable[..., "Program"]]:
    """Starts programs; none outlives its test."""
    programs: list[Program] = []

    def launcher(**environment: str) -> Program:
        programs.append(Program(environment))
        return programs[-1]

    yield launcher
    for program in programs:
        program.process.kill()
        program.end()


class Program:
    """The service as people start it."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "services.sim"],
            cwd=ROOT,
            env={
                **os.environ,
                "NEWT_SIM_DOMAINS": "noop",
                "NEWT_SIM_PORT": "0",
                "NEWT_SIM_WORKERS": "2",
                "NEWT_SIM_LIGHT_ROWS": "1",
                **environment,
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(iter(self.process.stderr.readline, ""))

    def wait_for(self, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for line in list(self.lines):
                if match := re.search(pattern, line):
                    return match
            time.sleep(0.05)
        raise AssertionError(f"no {pattern!r} in {self.lines}")

    def wait_ready(self) -> str:
        address = self.wait_for(r'"address": "([^"]+)"')[1]
        self.wait_for('"event": "ready"')
        return address

    def end(self) -> int:
        code = self.process.wait(30)
        self._reader.join(30)
        return code


def wait_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive


@pytest.mark.parametrize("busy", [False, True])
def test_no_orphans_after_the_server_was_killed(launch: Callable[..., Program], busy: bool, tmp_path: Path) -> None:
    shared_before = set(os.listdir("/dev/shm"))
    program = launch(TMPDIR=str(tmp_path))
    with SimClient(program.wait_ready(), 10) as client:
        session = open_faulty(client, 2)
        session.reset()
        if busy:
            session.send(orders(HANG, HANG))
            time.sleep(0.3)
        children = psutil.Process(program.process.pid).children(recursive=True)
        assert len(children) == 2
        program.process.kill()
        assert program.end() == -signal.SIGKILL
        wait_gone(children)
    assert set(os.listdir("/dev/shm")) <= shared_before
    assert not os.listdir(tmp_path)


def test_orderly_stop_and_a_report_of_what_died(launch: Callable[..., Program]) -> None:
    program = launch()
    with SimClient(program.wait_ready(), 10) as client:
        session = open_faulty(client, 2)
        session.reset()
        assert session.step(orders(DIE, 0)).crashed[0]
        program.wait_for(r"SIGSEGV.*Fatal Python error.*worker_died")
        children = psutil.Process(program.process.pid).children(recursive=True)
        program.process.terminate()
        assert program.end() == 0
        wait_gone(children)


def test_a_full_disk_under_the_log_ends_nothing(tmp_path: Path) -> None:
    """Also with HOME and the working directory gone."""
    gone = tmp_path / "gone"
    gone.mkdir()
    port = free_port()
    settings = {"DOMAINS": "noop", "PORT": str(port), "WORKERS": "1", "DEFAULT_LEASE_S": "1"}
    environment = {**os.environ, **{f"NEWT_SIM_{key}": value for key, value in settings.items()}, "HOME": "/proc/none"}
    environment["PYTHONPATH"] = str(ROOT)
    with open("/dev/full", "wb") as full:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"rmdir {gone}; exec {sys.executable} -m services.sim"],
            cwd=gone,
            env=environment,
            stderr=full,
        )
    try:
        with SimClient(f"127.0.0.1:{port}", 10) as client:
            for _ in range(2):
                session = open_faulty(client, 2)
                session.reset()
                for _ in range(60):  # More words than the pipe between the processes holds.
                    assert session.step(orders(RAISE, 0)).crashed.tolist() == [True, False]
                deadline = time.monotonic() + 10
                while client.stub.Describe(sim_pb2.DescribeRequest(), timeout=5).used_instances:
                    assert time.monotonic() < deadline, "nobody looks for leases that are over"
                    time.sleep(0.2)
        process.terminate()
        process.wait(20)
    finally:
        process.kill()


def test_a_port_in_use_is_one_clear_line(launch: Callable[..., Program]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        program = launch(NEWT_SIM_PORT=str(taken.getsockname()[1]))
        assert program.end() == 1
    assert program.lines[-1].startswith("sim: cannot start: newt.v1.SimService: cannot bind 127.0.0.1:")
    assert not any("Traceback" in line for line in program.lines)


def test_bad_settings_are_one_clear_message(launch: Callable[..., Program]) -> None:
    program = launch(NEWT_SIM_WORKERS="many")
    assert program.end() == 2
    assert "bad settings" in program.lines[0]
    program = launch(NEWT_SIM_DOMAINS="dmcontrl")
    assert program.end() == 1
    assert "no domain 'dmcontrl'" in program.lines[-1]
