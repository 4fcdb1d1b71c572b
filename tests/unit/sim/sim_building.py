"""How the tests of the simulators make one."""

from newt.tasks.registry import get_task
from services.sim import domains
from services.sim.domains.base import SimEnv


def build(task: str, rendering: bool = False) -> SimEnv:
    domain = "noop" if task.startswith("noop") else get_task(task).domain
    return domains.make(domain, task, rendering)
