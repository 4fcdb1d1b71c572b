"""Small pictures of tasks. Those of ours come with the package: a little way into an episode of random actions.

`newt tasks sheet --tiles newt/tasks/tiles` draws them. Tasks whose meshes are not ours to ship have none.
"""

from __future__ import annotations

import io
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

import numpy as np
import numpy.typing as npt

TILE_PX = 160
"""Width and height."""


def has_picture(name: str) -> bool:
    """Whether the package has a picture of this task."""
    return name in _packaged()


def packaged_picture(name: str) -> bytes:
    """The picture of one of our tasks, as WebP. Raises KeyError unless `has_picture`."""
    return _packaged()[name].read_bytes()


@cache
def _packaged() -> dict[str, Traversable]:
    folder = resources.files("newt.tasks") / "tiles"
    return {file.name.removesuffix(".webp"): file for file in folder.iterdir() if file.name.endswith(".webp")}


def tile(frame: npt.NDArray[np.uint8]) -> bytes:
    """A small picture of a frame, as WebP.

    Args:
        frame: uint8[H, W, 3].
    """
    from PIL import Image  # not where only names are asked for

    stream = io.BytesIO()
    image = Image.fromarray(frame).resize((TILE_PX, TILE_PX), Image.Resampling.LANCZOS)
    image.save(stream, "WEBP", quality=70, method=6)
    return stream.getvalue()
