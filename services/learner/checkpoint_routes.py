"""REST routes of checkpoints that were brought in from elsewhere."""

from __future__ import annotations

import tempfile

import anyio.to_thread
from fastapi import APIRouter, Request

from newt.runs.record import ImportedCheckpoint, ImportedCheckpointList
from services.learner.library import CheckpointLibrary

PIECE_BYTES = 1 << 20


def checkpoint_routes(library: CheckpointLibrary) -> APIRouter:
    """Builds the routes."""
    router = APIRouter()

    @router.get("/checkpoints")
    def list_imported() -> ImportedCheckpointList:
        """Checkpoints that were brought in; requests name them `imported/NAME`."""
        return ImportedCheckpointList(checkpoints=library.imported())

    @router.put("/checkpoints/{name}", status_code=201)
    async def upload(name: str, request: Request) -> ImportedCheckpoint:
        """Takes in a checkpoint file of this project: the body is the file."""
        with tempfile.TemporaryFile() as received:
            async for piece in request.stream():
                await anyio.to_thread.run_sync(received.write, piece)
            received.seek(0)
            pieces = iter(lambda: received.read(PIECE_BYTES), b"")
            return await anyio.to_thread.run_sync(library.add, name, pieces)

    @router.delete("/checkpoints/{name}", status_code=204)
    def delete_imported(name: str) -> None:
        """Removes a checkpoint that was brought in; what was started from it has its own copy."""
        library.remove(name)

    return router
