"""Videos of episodes: H.264 in MP4, with task, step, return and success below the picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

# Drawing a frame without a GPU takes 0.1 s and more, so the video of a long episode shows one step in a few.
MAX_FRAMES = 100
_LINE_PX, _MARGIN_PX, _FONT_PX = 15, 3, 12
_HOLD_S = 1  # how long the end stays
_MAX_DENOMINATOR = 1_000_000  # of a frame rate: the encoder takes 32 bits

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Frame:
    """One picture of an episode, and how things stood.

    Attributes:
        picture: uint8[height, width, 3].
        step: Steps played before it.
        reward: Sum of rewards so far.
        success: Success of the last step; NaN while or where it is undefined.
    """

    picture: Picture
    step: int
    reward: float
    success: float


def frame_stride(episode_length: int) -> int:
    """Steps between two frames, so that no video has more than MAX_FRAMES."""
    return -(-episode_length // MAX_FRAMES)


def write_mp4(path: Path, task: str, frames: Sequence[Frame], episode_length: int, steps_per_s: float) -> None:
    """Encodes an episode in real time; the file appears whole or not at all.

    Args:
        path: File to write; its folder is made.
        task: Name to write below the picture.
        frames: Frames in order, at least one, every `frame_stride(episode_length)` steps.
        episode_length: Steps that the episode was planned to have.
        steps_per_s: Steps that are a second, as `newt.tasks.pace.real_time` has it.
    """
    import av  # only where there is a video to write: every collector and evaluator imports this module

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    rate = (Fraction(steps_per_s) / frame_stride(episode_length)).limit_denominator(_MAX_DENOMINATOR)
    shown = [*frames, *[frames[-1]] * math.ceil(_HOLD_S * rate)]
    with av.open(str(partial), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "veryfast"})
        stream.height, stream.width, _ = captioned(frames[0], task, episode_length).shape
        stream.pix_fmt = "yuv420p"  # the one that every browser plays
        for frame in shown:
            picture = av.VideoFrame.from_ndarray(captioned(frame, task, episode_length), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    partial.replace(path)


def captioned(frame: Frame, task: str, episode_length: int) -> Picture:
    """The picture with two lines of text below it, uint8[height, width, 3]; both even, as the encoder wants."""
    height, width, _ = frame.picture.shape
    height, width = height + height % 2, width + width % 2
    success = "" if math.isnan(frame.success) else f"  success {'yes' if frame.success >= 1 else 'no'}"
    canvas = Image.new("RGB", (width, height + 2 * _LINE_PX + 2 * _MARGIN_PX), "black")
    canvas.paste(Image.fromarray(np.ascontiguousarray(frame.picture)))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(_FONT_PX)
    text = f"step {frame.step}/{episode_length}  return {frame.reward:.1f}{success}"
    for line, words in enumerate((task, text)):
        draw.text((_MARGIN_PX, height + _MARGIN_PX + line * _LINE_PX), words, "white", font)
    return np.asarray(canvas)
