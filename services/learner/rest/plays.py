"""Routes of plays: somebody watches an agent act, or plays, in one simulator."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from fastapi import APIRouter, Depends, Response
from fastapi.responses import StreamingResponse

from newt.runs.plays import Play, PlayChanges, PlayImagine, PlayRequest, PlayReset
from services.learner.processes.learner import Learner
from services.learner.processes.plays import LAST_EVENTS
from services.learner.rest.described import knows_tasks
from services.learner.rest.errors import DISK_ERRORS
from services.learner.rest.events import HEARTBEAT_S, STREAM, message
from services.learner.rest.files import binary

_RECORDING = binary("application/octet-stream", "The recording, as NumPy's npz")


def play_routes(learner: Learner) -> APIRouter:
    """Builds the routes."""
    router = APIRouter(tags=["plays"])
    keeper = learner.plays

    @router.post("/plays", status_code=201, responses=DISK_ERRORS, dependencies=[Depends(knows_tasks(learner))])
    def start_play(request: PlayRequest) -> Play:
        """Starts a play: a model, the scripted expert, random actions or your own in one simulator.

        It stands still until a client follows its events, and ends when none does for `lease_s`.
        """
        return keeper.submit(request)

    @router.get("/plays/{play_id}")
    def get_play(play_id: str) -> Play:
        """A play that is under way."""
        return keeper.get(play_id)

    @router.get("/plays/{play_id}/events", response_class=StreamingResponse, responses=STREAM)
    async def get_play_events(play_id: str) -> StreamingResponse:
        """Server-sent events, for one client at a time: the last one to ask.

        `step`: how things are after each step, reset and change; `picture` is a JPEG in base64, at most 15 times per
        second. `imagined`: what the world model expects of the next steps. `problem`: what went wrong. `ended`, `taken`
        by another client: the last one.
        """
        keeper.get(play_id)
        return StreamingResponse(stream(play_id), media_type="text/event-stream")

    @router.patch("/plays/{play_id}")
    def change_play(play_id: str, changes: PlayChanges) -> Play:
        """Changes who acts, what the model is told, the pace; pauses and goes on; sends the actions of `keys`."""
        return keeper.change(play_id, changes)

    @router.post("/plays/{play_id}/step")
    def step_play(play_id: str) -> Play:
        """Makes one step, and pauses."""
        return keeper.step(play_id)

    @router.post("/plays/{play_id}/reset")
    def reset_play(play_id: str, how: PlayReset) -> Play:
        """Starts an episode."""
        return keeper.reset(play_id, how)

    @router.post("/plays/{play_id}/imagine")
    def imagine_in_play(play_id: str, how: PlayImagine) -> Play:
        """Unrolls the world model open loop from the present state, then takes the same actions and pauses.

        The event `imagined` has rewards and values (the critics' mean) that are expected; the `step`s have what came.
        """
        return keeper.imagine(play_id, how)

    @router.get("/plays/{play_id}/recording", response_class=Response, responses=_RECORDING)
    def get_recording(play_id: str) -> Response:
        """What was played of this episode so far: a recording that `newt demos import` reads."""
        content, task = keeper.recording(play_id), keeper.get(play_id).task
        name = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in task)
        headers = {"Content-Disposition": f'attachment; filename="{name}.npz"', "Cache-Control": "no-store"}
        return Response(content, media_type="application/octet-stream", headers=headers)

    @router.delete("/plays/{play_id}", status_code=204)
    def end_play(play_id: str) -> None:
        """Ends a play, and gives its simulator back."""
        keeper.end(play_id)

    async def stream(play_id: str) -> AsyncIterator[str]:
        with keeper.watched(play_id) as viewer:
            while True:
                event = await viewer.next(HEARTBEAT_S)
                if event is None:
                    yield ": nothing new\n\n"
                    continue
                kind = event.pop("event")
                yield message(kind, json.dumps(event))
                if kind in LAST_EVENTS:
                    return

    return router
