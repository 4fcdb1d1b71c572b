"""Contact sheets: one picture of every task of a domain, a little way into a random episode."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from itertools import islice

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from newt.tasks.registry import Task
from services.sim import domains
from services.sim.checks.play import random_actions
from services.sim.domains.base import MissingAssetError

MAX_SHEET_BYTES = 300_000

_COLUMNS = 8
_TILE_SIZES = (192, 160, 144, 128, 112, 96, 80)  # Pixels; the largest whose sheet is small enough.
_LABEL_HEIGHT = 14
_GAP = 4
_BACKGROUND, _EMPTY, _INK = (255, 255, 255), (225, 225, 225), (40, 40, 40)
_MISSING = "meshes to be downloaded"


def picture(task: Task, seed: int = 0) -> npt.NDArray[np.uint8] | None:
    """A frame of the task a little way into an episode of random actions, uint8[224, 224, 3].

    None if the task needs files that are not on this machine.
    """
    try:
        env = domains.make(task.domain, task.name, rendering=True)
    except MissingAssetError:
        return None
    try:
        env.reset(seed)
        for action in islice(random_actions(task, seed), max(5, task.episode_length // 20)):
            env.step(action)
        return env.render()
    finally:
        env.close()


def sheet(pictures: Mapping[str, npt.NDArray[np.uint8] | None]) -> bytes:
    """A PNG of at most `MAX_SHEET_BYTES` (if that is possible at all) with the pictures and their names below.

    Args:
        pictures: Pictures by task name, in order: uint8[224, 224, 3], or None for a task whose files are missing.
    """
    encoded = b""
    for size in _TILE_SIZES:
        canvas = _compose(pictures, size)
        for image in (canvas, canvas.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)):
            stream = io.BytesIO()
            image.save(stream, "PNG", optimize=True)
            encoded = stream.getvalue()
            if len(encoded) <= MAX_SHEET_BYTES:
                return encoded
    return encoded


def _compose(pictures: Mapping[str, npt.NDArray[np.uint8] | None], size: int) -> Image.Image:
    columns = min(_COLUMNS, math.ceil(math.sqrt(len(pictures)) * 1.3))
    rows = math.ceil(len(pictures) / columns)
    step_x, step_y = size + _GAP, size + _LABEL_HEIGHT + _GAP
    canvas = Image.new("RGB", (columns * step_x + _GAP, rows * step_y + _GAP), _BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    for number, (name, frame) in enumerate(pictures.items()):
        x, y = _GAP + number % columns * step_x, _GAP + number // columns * step_y
        if frame is None:
            pen.rectangle((x, y, x + size - 1, y + size - 1), _EMPTY)
            pen.text((x + size / 2, y + size / 2), _MISSING, _INK, _font(pen, _MISSING, size), anchor="mm")
        else:
            canvas.paste(Image.fromarray(frame).resize((size, size), Image.Resampling.LANCZOS), (x, y))
        pen.text((x + size / 2, y + size + 1), name, _INK, _font(pen, name, size), anchor="ma")
    return canvas


def _font(pen: ImageDraw.ImageDraw, text: str, width: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The largest font in which the text is no wider than a picture."""
    for points in (11, 10, 9, 8, 7):
        font = ImageFont.load_default(points)
        if pen.textlength(text, font) <= width:
            break
    return font
