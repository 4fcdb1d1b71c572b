"""What every domain's tasks must do through the service, whoever wrote the domain.

The suite that we ship, on a task of each domain of the table, with short episodes; and what holds of our
server alone.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sim_running import RunningServer
from typer.testing import CliRunner

from newt.cli.main import app
from newt.client import ObsMode, SimClient
from newt.client.compliance import OF_SERVICES, OF_TASKS, Subject, choose, look
from newt.client.compliance_tests import SimServiceCompliance
from newt.errors import ExhaustedError, InvalidInputError, NotFoundError
from newt.tasks.registry import Task
from newt.tasks.reports import Criterion
from newt.wire.v1 import sim_pb2
from services.sim.domains import DOMAINS
from services.sim.session import Session
from services.sim.sessions import Sessions

A = 16
OWN_TASKS = Path(__file__).parents[2] / "support" / "own_tasks"
WARNED = {("atari", "seeds")}  # Its episodes all start and go on the same.


OBSERVE = Session._observe


class DescribedTask:
    """Not the service, but what it says of a task."""


def checked(address: str, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    result = CliRunner().invoke(app, ["env", "check", "--address", address, "--json", *arguments])
    if isinstance(result.exception, Exception):
        raise result.exception
    # The server in this process may log before and behind it.
    found, _ = json.JSONDecoder().raw_decode(result.output[result.output.index("{\n") :])
    return result.exit_code, found["criteria"]


@pytest.fixture(scope="module")
def small() -> Iterator[RunningServer]:
    server = RunningServer(sources=(str(OWN_TASKS),))
    yield server
    server.close()


class TestOurs(SimServiceCompliance):
    @pytest.fixture(scope="class")
    def address(self, all_domains: RunningServer) -> str:
        return all_domains.address

    @pytest.fixture(scope="class", params=list(DOMAINS))
    def task(self, request: pytest.FixtureRequest, client: SimClient) -> Task:
        tasks = [task for task in client.describe() if request.param in (task.name, task.domain)]
        return min(tasks, key=lambda task: (task.episode_length, task.obs_dim))

    def judge(self, task: Task, found: Criterion) -> None:
        super().judge(task, found)
        assert (found.outcome == "warning") == ((task.domain, found.name) in WARNED), found


def test_the_command_looks_at_a_service_by_its_address(small: RunningServer) -> None:
    code, found = checked(small.address, "--task", "noop-short", "--task", "own-point")
    assert code == 0
    assert {criterion["task"] for criterion in found} == {"noop-short", "own-point"}
    assert len(found) == 2 * len(OF_TASKS) + len(OF_SERVICES)
    with pytest.raises(NotFoundError, match="no-such-task"):
        checked(small.address, "--task", "no-such-task")
    with pytest.raises(InvalidInputError, match="SOURCE"):
        CliRunner().invoke(app, ["env", "check"], catch_exceptions=False)


def test_every_domain_has_a_task_to_look_at(client: SimClient) -> None:
    assert {task.domain for task in choose(client)} == set(DOMAINS)
    assert [task.name for task in choose(client, ["mw-push"])] == ["mw-push"]


def _shows_more(session: Session, observation: sim_pb2.Observation) -> None:
    session._block.obs[:, 100] = 1.0
    OBSERVE(session, observation)


@pytest.mark.parametrize(
    ("owner", "method", "lie", "criterion", "words"),
    [
        (Session, "_observe", _shows_more, "first observation", "columns from 3 on are not 0"),
        (Session, "_checked", lambda self, tensor: self._block.action, "bad actions", "an action of nan was accepted"),
        (
            Session,
            "_mask",
            lambda self, name, rows: np.ones(self._rows, np.bool_),
            "rows alone",
            "episode_step is [0, 0",
        ),
        (
            Session,
            "render",
            lambda self, rows: self._block.frames,
            "reset first",
            "Render before the first reset was acc",
        ),
        (Sessions, "renew", lambda self, session_id: 1.0, "unknown names", "a closed session was accepted"),
        (DescribedTask, "has_expert", False, "description", "otherwise"),
        (DescribedTask, "episode_length", 4, "episode ends", "goes on after episode_length, 4 steps"),
        (DescribedTask, "has_success", False, "steps", "has_success=False"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_a_service_that_does_otherwise_is_found_out(
    small: RunningServer,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    method: str,
    lie: object,
    criterion: str,
    words: str,
) -> None:
    client = SimClient(small.address, timeout_s=30)
    (task,) = choose(client, ["noop-short"])
    if owner is DescribedTask:
        task = replace(task, **{method: lie})
    else:
        monkeypatch.setattr(owner, method, lie)
    subject = Subject(client, task)
    found = look(subject, criterion)
    subject.close()
    client.close()
    assert found.outcome == "failed"
    assert found.required
    assert words in found.detail


class TestRequests:
    """What depends on no domain."""

    def test_unknown_task(self, client: SimClient) -> None:
        with pytest.raises(NotFoundError, match="walker-walk"):
            client.open(["walker-wlk"], [0])

    def test_errors_say_where_and_how_much(self, client: SimClient) -> None:
        with client.open(["noop-short"] * 2, [0, 1]) as session:
            session.reset()
            action = np.zeros((2, A), np.float32)
            action[1, 1] = 1.5
            with pytest.raises(InvalidInputError, match=r"value 1\.5 at row 1, column 1") as caught:
                session.step(action)
            assert caught.value.field == "action"
        with pytest.raises(InvalidInputError, match=r"envs.*at most \d+"):
            client.open(["noop"] * 600, [0] * 600, obs_mode=ObsMode.STATE_RGB)

    def test_instance_limit(self, client: SimClient) -> None:
        used = client.stub.Describe(sim_pb2.DescribeRequest(), timeout=10).used_instances
        free = 64 - used
        with client.open(["noop"] * (free - 4), range(free - 4)):
            with pytest.raises(ExhaustedError, match=f"limit is 64 instances .*, {60} are in use, 5 more"):
                client.open(["noop"] * 5, range(5))
            with client.open(["noop"] * 4, range(4)):
                pass
        with client.open(["noop"] * free, range(free)) as session:
            assert session.reset().obs.shape == (free, 128)

    def test_mixed_tasks_in_one_session(self, client: SimClient) -> None:
        names = ["mw-reach", "noop-short", "mujoco-ant", "walker-walk"]
        with client.open(names, range(4)) as session:
            session.reset()
            step = session.step(np.zeros((4, A), np.float32))
            widths = [int(np.flatnonzero(row)[-1]) + 1 for row in step.observation.obs]
            assert all(width <= task.obs_dim for width, task in zip(widths, session.tasks, strict=True))
            assert np.isnan(step.success).tolist() == [not task.has_success for task in session.tasks]

    def test_steps_overlap_between_sessions(self, client: SimClient) -> None:
        with client.open(["noop"], [0]) as one, client.open(["noop"], [0]) as two:
            one.reset()
            two.reset()
            still = np.zeros((1, A), np.float32)
            one.send(still)
            two.send(still)
            np.testing.assert_array_equal(one.receive().observation.obs, two.receive().observation.obs)

    def test_describe_counts_instances(self, client: SimClient) -> None:
        def describe() -> sim_pb2.DescribeResponse:
            return client.stub.Describe(sim_pb2.DescribeRequest(), timeout=10)

        before = describe()
        assert (before.max_instances, before.workers) == (64, 2)
        with client.open(["noop"] * 3, range(3)):
            assert describe().used_instances == before.used_instances + 3
        assert describe().used_instances == before.used_instances
