"""Routes of checkpoints: those of runs, and those that were brought in from elsewhere."""

from __future__ import annotations

import anyio.to_thread
from fastapi import APIRouter, Request
from fastapi.responses import FileResponse

from newt.errors import PreconditionError
from newt.runs.record import CheckpointList, ImportedCheckpoint, ImportedCheckpointList
from services.learner.checkpoints.folder import CheckpointFolder
from services.learner.processes.learner import Learner
from services.learner.rest.errors import DISK_ERRORS, ERROR
from services.learner.rest.files import CHECKPOINT, Responses

_BODY = {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
_UPLOAD: Responses = {**DISK_ERRORS, 413: {**ERROR, "description": "Larger than this learner takes"}}


def checkpoint_routes(learner: Learner) -> APIRouter:
    """Builds the routes."""
    router = APIRouter(tags=["checkpoints"])
    settings, runs, library = learner.settings, learner.records.runs, learner.library

    @router.get("/runs/{run_id}/checkpoints")
    def list_checkpoints(run_id: str) -> CheckpointList:
        """Checkpoints, oldest first; before them files that cannot be used, with the reason."""
        runs.get(run_id)
        return CheckpointList(checkpoints=folder(run_id).list())

    @router.get("/runs/{run_id}/checkpoints/{name}", response_class=FileResponse, responses=CHECKPOINT)
    def download_checkpoint(run_id: str, name: str) -> FileResponse:
        """One checkpoint as safetensors, with its settings in the metadata; `newest` and `best` are names too."""
        runs.get(run_id)
        path = folder(run_id).path(folder(run_id).resolve(name))
        return FileResponse(path, media_type="application/octet-stream", filename=f"{run_id}-{path.name}")

    @router.delete("/runs/{run_id}/checkpoints/{name}", status_code=204, responses=DISK_ERRORS)
    def delete_checkpoint(run_id: str, name: str) -> None:
        """Removes a checkpoint of a run that has ended, or one that cannot be used, at any time."""
        state = runs.get(run_id).state
        if not state.finished and name in [item.name for item in folder(run_id).list() if item.broken is None]:
            raise PreconditionError(
                f"run {run_id} is {state} and keeps its checkpoints; cancel it, or wait for its end"
            )
        folder(run_id).remove(name)

    @router.get("/checkpoints")
    def list_imported() -> ImportedCheckpointList:
        """Checkpoints that were brought in; requests name them `imported/NAME`."""
        return ImportedCheckpointList(checkpoints=library.imported())

    @router.put("/checkpoints/{name}", status_code=201, responses=_UPLOAD, openapi_extra={"requestBody": _BODY})
    async def upload(name: str, request: Request) -> ImportedCheckpoint:
        """Takes in a checkpoint file of this project: the body is the file. It is checked before it has the name."""
        with library.receive(name, settings.max_checkpoint_bytes) as incoming:
            async for piece in request.stream():
                await anyio.to_thread.run_sync(incoming.write, piece)
            return await anyio.to_thread.run_sync(incoming.accept)

    @router.delete("/checkpoints/{name}", status_code=204, responses=DISK_ERRORS)
    def delete_imported(name: str) -> None:
        """Removes a checkpoint that was brought in; what was started from it has its own copy."""
        library.remove(name)

    def folder(run_id: str) -> CheckpointFolder:
        return CheckpointFolder(settings.folder.run(run_id))

    return router
