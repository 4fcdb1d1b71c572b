"""The tasks that the configured simulators describe, beside those of our own table."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import grpc
import structlog

from newt.tasks.registry import Described, Task, table_tasks
from newt.wire.channels import Channels
from newt.wire.tasks import from_message, problem
from newt.wire.v1 import sim_pb2, sim_pb2_grpc

ASK_TIMEOUT_S = 1.0
CACHE_S = 2.0

log = structlog.get_logger(__name__)


class ServedTasks:
    """Asks simulators what they play; what one has said stays known while it is away, for as long as we live.

    Args:
        sims: gRPC target of each simulator by name.
    """

    def __init__(self, sims: Mapping[str, str]) -> None:
        self._sims = dict(sims)
        self._channels = Channels()
        self._said: dict[str, list[Task]] = {}
        self._lock = threading.Lock()
        self._known: tuple[float, Described] | None = None

    def described(self) -> Described:
        """What simulators describe that is not in our table; answers are kept for two seconds."""
        with self._lock:
            if self._known is None or time.monotonic() - self._known[0] > CACHE_S:
                self._ask()
                self._known = (time.monotonic(), merge(self._said, self._sims))
            return self._known[1]

    def _ask(self) -> None:
        targets = list(dict.fromkeys(self._sims.values()))  # one service may play several domains
        if not targets:
            return
        with ThreadPoolExecutor(len(targets)) as pool:
            for target, tasks in zip(targets, pool.map(self._describe, targets), strict=True):
                for name in (name for name, other in self._sims.items() if other == target and tasks is not None):
                    self._said[name] = tasks or []

    def _describe(self, target: str) -> list[Task] | None:
        """The tasks of a simulator; None if it does not answer."""
        try:
            stub = sim_pb2_grpc.SimServiceStub(self._channels.to(target))
            reply = stub.Describe(sim_pb2.DescribeRequest(), timeout=ASK_TIMEOUT_S)
        except grpc.RpcError as error:
            log.debug("simulator_not_asked", target=target, error=str(error))
            return None
        return [from_message(task) for task in reply.tasks]


def merge(said: Mapping[str, list[Task]], sims: Mapping[str, str]) -> Described:
    """Puts together what simulators say.

    A task belongs to the simulator of its domain; if there is none of this name, to the one that describes it.

    Args:
        said: Tasks by simulator.
        sims: gRPC target of each simulator.
    """
    owners: dict[str, list[Task]] = {}
    table = table_tasks()
    for simulator, tasks in said.items():
        for task in tasks:
            if task.name in table and task.domain == table[task.name].domain:
                continue  # ours, though its domain may have no simulator here
            if task.domain == simulator or task.domain not in sims:
                owners.setdefault(task.name, []).append(replace(task, domain=simulator))
    found: dict[str, Task] = {}
    refused: dict[str, str] = {}
    for name, tasks in owners.items():
        ours = table.get(name)
        others = [task.domain for task in tasks if ours is None or task.domain != ours.domain]
        if ours is not None and not others:
            continue
        if ours is not None or len(others) > 1:
            *_, other = others
            first = f"Newt's own task of {ours.domain}" if ours is not None else f"a task of the simulator {others[0]}"
            refused[name] = (
                f"{name!r} is the name of {first}, and of a task of the simulator {other} at {sims[other]}; give the "
                "latter another name"
            )
        elif (what := problem(tasks[0])) is not None:
            refused[name] = f"{name!r} of the simulator {others[0]} cannot be used: {what}; mend what it describes"
        else:
            found[name] = tasks[0]
    return Described(found, refused)
