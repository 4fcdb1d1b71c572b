"""Files as replies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fastapi.responses import FileResponse

from newt.errors import NotFoundError

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,200}")

Responses = dict[int | str, dict[str, Any]]


def binary(media_type: str, description: str) -> Responses:
    """How the API's description says that a route replies with a file."""
    return {
        200: {"description": description, "content": {media_type: {"schema": {"type": "string", "format": "binary"}}}}
    }


VIDEO = binary("video/mp4", "The video")
CHECKPOINT = binary("application/octet-stream", "The checkpoint, as safetensors")


def video_response(folder: Path, name: str, missing: str) -> FileResponse:
    """A file of this folder, and no other. Raises NotFoundError with the message `missing`."""
    if not _NAME.fullmatch(name) or not (folder / name).is_file():
        raise NotFoundError(missing)
    return FileResponse(folder / name, media_type="video/mp4", filename=name)
