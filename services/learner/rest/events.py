"""Server-sent events: a client is told what happens, when it happens, and need not ask again and again."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated, NamedTuple
from weakref import WeakValueDictionary

import anyio.to_thread
from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse

from newt.errors import ExhaustedError, NewtError, NotFoundError, UnavailableError
from services.learner.processes.learner import Learner
from services.learner.records import keys
from services.learner.records.changes import Changes
from services.learner.rest.files import Responses

# Of Redis' streams, with no more digits than it takes.
POSITION = "[0-9]{1,18}-[0-9]{1,18}"
# Between two looks at a record that nobody said has changed: the word may be lost while Redis starts again.
HEARTBEAT_S = 15.0
# A run's processes tell their progress about once a second each.
LEAST_INTERVAL_S = 0.5
PATIENCE_S = 60.0
RETRY_S = 1.0
MAX_CLIENTS = 256

STREAM: Responses = {
    200: {"description": "Server-sent events", "content": {"text/event-stream": {"schema": {"type": "string"}}}}
}


class Look(NamedTuple):
    """How things are with a record.

    Attributes:
        state: As JSON.
        ended: Whether nothing will change any more.
    """

    state: str
    ended: bool


class SharedLooks:
    """Looks at records for many who follow them: those who ask at about the same time share one look.

    What one is told is never older than the question: who asks while somebody looks waits for the next look.
    """

    def __init__(self) -> None:
        self._next: dict[str, asyncio.Future[Look]] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def look(self, record: str, look: Callable[[], Look]) -> Look:
        """How things are now. Raises what `look` does."""
        coming = self._next.get(record)
        if coming is None:
            coming = self._next[record] = asyncio.ensure_future(self._look(record, look))
            coming.add_done_callback(lambda done: done.exception())  # heard, also if all have left
        return await asyncio.shield(coming)  # one who leaves does not end it for the others

    async def _look(self, record: str, look: Callable[[], Look]) -> Look:
        async with self._locks.setdefault(record, asyncio.Lock()):
            del self._next[record]
            return await anyio.to_thread.run_sync(look)


def event_routes(learner: Learner, changes: Changes) -> APIRouter:
    """Builds the routes."""
    router = APIRouter()
    records, streams = learner.records, _Streams(changes)

    @router.get("/runs/{run_id}/events", tags=["runs"], response_class=StreamingResponse, responses=STREAM)
    async def get_run_events(
        run_id: str,
        after: Annotated[
            str, Query(pattern=f"^(-|{POSITION})$", description="Id of the last event that was seen.")
        ] = "-",
        last_event_id: Annotated[str | None, Header(pattern=f"^{POSITION}$")] = None,
    ) -> StreamingResponse:
        """Server-sent events: everything that happened, then what happens, and `progress` about once a second.

        The stream ends when the run has ended, or with the event `deleted`.
        """
        position = last_event_id or after

        def look() -> Look:
            run = records.runs.get(run_id)
            state = json.dumps({"state": run.state.value, **run.progress.model_dump(mode="json")})
            return Look(state, run.state.finished)

        def news() -> list[str]:
            nonlocal position
            events = records.history.events(run_id, position)
            position = events[-1].id if events else position
            return [message(event.kind, event.model_dump_json(), event.id) for event in events]

        await anyio.to_thread.run_sync(records.runs.get, run_id)
        return streams.respond(keys.record("run", run_id), look, news)

    @router.get(
        "/evaluations/{job_id}/events", tags=["evaluations"], response_class=StreamingResponse, responses=STREAM
    )
    async def get_evaluation_events(job_id: str) -> StreamingResponse:
        """Server-sent events: `progress` with the whole record, now and whenever it changes, until it has ended."""

        def look() -> Look:
            job = records.evaluations.get(job_id)
            return Look(job.model_dump_json(), not job.under_way)

        await anyio.to_thread.run_sync(look)
        return streams.respond(keys.record(records.evaluations.kind, job_id), look)

    @router.get("/demos/{name}/events", tags=["demonstrations"], response_class=StreamingResponse, responses=STREAM)
    async def get_collection_events(name: str) -> StreamingResponse:
        """Server-sent events of a collection: `progress` with its record, now and when it changes, until it ends."""

        def look() -> Look:
            collection = records.demos.get(name)
            return Look(collection.model_dump_json(), not collection.under_way)

        await anyio.to_thread.run_sync(look)
        return streams.respond(keys.record(records.demos.kind, name), look)

    return router


class _Streams:
    """Streams for a bounded number of clients."""

    def __init__(self, changes: Changes) -> None:
        self._changes, self._looks = changes, SharedLooks()
        self._clients = 0

    def respond(self, record: str, look: Callable[[], Look], news: Callable[[], list[str]] = list) -> StreamingResponse:
        """Tells one client what `look` finds whenever the record changes, and the news, which are its own.

        Raises ExhaustedError.
        """
        if self._clients >= MAX_CLIENTS:
            raise ExhaustedError(f"{MAX_CLIENTS} clients follow events already, which is the limit; try again later")
        return StreamingResponse(self._stream(record, look, news), media_type="text/event-stream")

    async def _stream(self, record: str, look: Callable[[], Look], news: Callable[[], list[str]]) -> AsyncIterator[str]:
        self._clients += 1
        try:
            with self._changes.watch(record) as watch:
                last, changed, answered = "", True, time.monotonic()
                while True:
                    try:
                        found = await self._looks.look(record, look)  # before the news, so that the last are not lost
                        messages = await anyio.to_thread.run_sync(news)
                    except UnavailableError as error:
                        if time.monotonic() - answered > PATIENCE_S:
                            return
                        yield f": {error}\n\n".replace("\n", " ", 1)
                        await asyncio.sleep(RETRY_S)
                        continue
                    except NotFoundError:
                        yield message("deleted", "{}")
                        return
                    except NewtError as error:  # the record has become unreadable
                        yield message("broken", json.dumps({"message": str(error)}))
                        return
                    answered = time.monotonic()
                    for told in messages:
                        yield told
                    if found.state != last:
                        last = found.state
                        yield message("progress", last)
                    elif not changed:
                        yield ": nothing new\n\n"  # a comment, so that no proxy takes the silence for death
                    if found.ended and not messages:
                        return
                    if not messages:  # else there may be more than one look shows
                        await asyncio.sleep(LEAST_INTERVAL_S)
                        changed = await watch.changed(HEARTBEAT_S)
        finally:
            self._clients -= 1


def message(event: str, data: str, event_id: str = "") -> str:
    """One event, as it is sent."""
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}event: {event}\ndata: {data}\n\n"
