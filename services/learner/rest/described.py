"""Requests that name tasks know those that simulators describe."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi.concurrency import run_in_threadpool

from newt.tasks.registry import know
from services.learner.processes.learner import Learner


def knows_tasks(learner: Learner) -> Callable[[], Awaitable[None]]:
    """A dependency of routes: by the time that the body is read, all tasks of the simulators are known.

    They are asked in a thread, and known in the context of the request alone.
    """

    async def ask() -> None:
        know(await run_in_threadpool(learner.served.described))

    return ask
