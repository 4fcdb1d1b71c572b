"""`newt.client.compliance` as tests, for a simulator service of your own.

    from newt.client.compliance_tests import SimServiceCompliance

    class TestMySimulator(SimServiceCompliance):
        @pytest.fixture(scope="class")
        def address(self):
            server = start_my_server()
            yield f"127.0.0.1:{server.port}"
            server.stop()

This module needs pytest, which no extra of ours installs for you.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from newt.client.compliance import OF_SERVICES, OF_TASKS, Subject, choose, look
from newt.client.sim import SimClient
from newt.tasks.registry import Task
from newt.tasks.reports import Criterion


class ComplianceWarning(UserWarning):
    """Something that may be meant so."""


class SimServiceCompliance:
    """Every criterion is a test. Override `address`; and `task`, with `params`, to look at more tasks than one."""

    @pytest.fixture(scope="class")
    def address(self) -> str:
        """host:port of the service."""
        raise NotImplementedError("override the fixture `address`: host:port of your service")

    @pytest.fixture(scope="class")
    def client(self, address: str) -> Iterator[SimClient]:
        """Connected to it."""
        with SimClient(address, timeout_s=30) as client:
            yield client

    @pytest.fixture(scope="class")
    def task(self, client: SimClient) -> Task:
        """The task to look at: of all, the one with the shortest episodes."""
        return min(choose(client), key=lambda task: task.episode_length)

    @pytest.fixture(scope="class")
    def subject(self, client: SimClient, task: Task) -> Iterator[Subject]:
        """With a session that the tests of a task share."""
        subject = Subject(client, task)
        yield subject
        subject.close()

    @pytest.mark.parametrize("criterion", OF_TASKS)
    def test_task(self, subject: Subject, criterion: str) -> None:
        """What depends on the task."""
        self.judge(subject.task, look(subject, criterion))

    @pytest.mark.parametrize("criterion", OF_SERVICES)
    def test_service(self, client: SimClient, criterion: str) -> None:
        """What depends on none."""
        subject = Subject(client, min(choose(client), key=lambda task: task.episode_length))
        self.judge(subject.task, look(subject, criterion))
        subject.close()

    def judge(self, task: Task, found: Criterion) -> None:
        """Fails the test, or warns; override it to be stricter."""
        if found.outcome == "failed":
            pytest.fail(f"{found.task}: {found.name}: {found.detail}\n{found.remedy}", pytrace=False)
        if found.outcome == "warning":
            warnings.warn(
                f"{found.task}: {found.name}: {found.detail}; {found.remedy}", ComplianceWarning, stacklevel=2
            )
