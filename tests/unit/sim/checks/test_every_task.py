"""Every registered task, for a whole episode, as `newt tasks check` does it: minutes.

ManiSkill's tasks with downloaded meshes run on the stand-ins of conftest.py; everything else is the real thing.
"""

import pytest

from newt.tasks.domains import DOMAINS, installed_domains
from newt.tasks.registry import all_tasks
from newt.tasks.reports import TaskReport
from services.sim.checks.isolation import for_each_task
from services.sim.checks.play import check_task


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("domain", DOMAINS)
def test_every_task_is_as_registered(domain: str) -> None:
    if domain not in installed_domains():
        pytest.skip(f"{domain} is not installed")
    tasks = [task for task in all_tasks() if task.domain == domain]
    results = dict(for_each_task(check_task, tasks, jobs=2, timeout_s=900))
    assert len(results) == len(tasks)
    assert [result for result in results.values() if not isinstance(result, TaskReport) or not result.ok] == []
