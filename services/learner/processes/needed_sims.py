"""Which simulators the active work needs: for containers on demand, and for alerts that know a stop from a crash."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from newt.runs.facts import tasks_of
from newt.runs.record import Run
from newt.wire.addresses import bare_host, is_ip
from services.learner.records.store import Records


def needed_domains(unfinished: Iterable[Run], records: Records) -> set[str]:
    """Domains of all active runs and of the evaluations under way; names of services for simulators of other people.

    Args:
        unfinished: The runs that have not ended.
        records: The evaluations are read from them.

    Raises:
        UnavailableError: Redis does not answer.
    """
    tasks = [task for run in unfinished if run.state.active for task in run.spec.task_list()]
    for job in records.evaluations.list_open().records:
        tasks += tasks_of(job.request.tasks or (), job.task_facts)
    return {task.domain for task in tasks}


def needed_hosts(domains: set[str], addresses: Mapping[str, str]) -> dict[str, bool]:
    """Whether each simulator is needed, by the first label of its host: what Prometheus calls the service.

    >>> needed_hosts({"atari"}, {"atari": "dns:///sim-atari.newt:50060", "box2d": "sim-box2d:50051"})
    {'sim-atari': True, 'sim-box2d': False}
    """
    needed: dict[str, bool] = {}
    for domain, address in addresses.items():
        host = bare_host(address.rpartition("/")[2].rpartition(":")[0])
        service = host if is_ip(host) else host.partition(".")[0]
        needed[service] = needed.get(service, False) or domain in domains
    return needed
