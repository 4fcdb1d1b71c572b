"""Frames of published demonstrations: PNG strips `{task}-0.png`, `{task}-1.png`, ..., one 224x224 frame per row.

The frames of all episodes lie side by side in the file's order, an episode's first frame included; a strip ends where
it would become too wide. There may be more frames than rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from newt.errors import CorruptDataError, InvalidInputError, NotFoundError
from newt.vision import ImageEncoder
from newt.wire.episodes import Episode

SIDE = 224
BATCH = 256


def with_strip_features(episodes: Sequence[Episode], folder: Path, encoder: ImageEncoder) -> list[Episode]:
    """Adds the features of a task's strips to its demonstrations.

    Args:
        episodes: Episodes of one task, at least one, in the file's order from its first episode on.
        folder: Folder of the strips.
        encoder: Makes the features.

    Raises:
        NotFoundError: There is no strip of the task.
        CorruptDataError: A strip cannot be read.
        InvalidInputError: A strip has another shape, or there are fewer frames than rows.
    """
    task = episodes[0].task
    rows = sum(len(episode.obs) for episode in episodes)
    parts, count = [], 0
    for frames in read_strips(folder, task):
        parts.append(encoder.encode(frames[: rows - count]))
        count += len(parts[-1])
        if count == rows:
            break
    if count < rows:
        raise InvalidInputError(
            str(folder / f"{task}-*.png"), f"expected a frame for each of the {rows} rows of {task}, got {count}"
        )
    features, ends = np.concatenate(parts), np.cumsum([len(episode.obs) for episode in episodes])
    return [
        replace(episode, image=part, image_encoder=encoder.name)
        for episode, part in zip(episodes, np.split(features, ends[:-1]), strict=True)
    ]


def read_strips(folder: Path, task: str) -> Iterator[npt.NDArray[np.uint8]]:
    """A task's frames, uint8[n, 3, 224, 224] with n up to 256 at a time. Raises as `with_strip_features`."""
    if not (folder / f"{task}-0.png").is_file():
        raise NotFoundError(f"no strips of {task} in {folder}: expected {task}-0.png, {task}-1.png, ...")
    number = 0
    while (path := folder / f"{task}-{number}.png").is_file():
        strip = _read(path)
        for low in range(0, strip.shape[1], BATCH * SIDE):
            part = strip[:, low : low + BATCH * SIDE].reshape(SIDE, -1, SIDE, 3)
            yield np.ascontiguousarray(part.transpose(1, 3, 0, 2))
        number += 1


def _read(path: Path) -> npt.NDArray[np.uint8]:
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None  # a whole strip has more pixels than the library takes for a sane picture
    try:
        with Image.open(path) as image:
            strip = np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise CorruptDataError(f"{path}: cannot be read as a picture: {error}") from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    if strip.shape[0] != SIDE or strip.shape[1] % SIDE:
        raise InvalidInputError(
            str(path), f"expected {SIDE} rows and a multiple of {SIDE} columns, got {strip.shape[0]} x {strip.shape[1]}"
        )
    return strip
