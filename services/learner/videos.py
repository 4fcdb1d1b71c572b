"""Videos of evaluations: H.264 in MP4."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt

MAX_FRAMES = 125
FRAMES_PER_S = 25


def frame_stride(episode_length: int) -> int:
    """Steps between two frames, so that no video has more than MAX_FRAMES."""
    return -(-episode_length // MAX_FRAMES)


def write_mp4(path: Path, frames: Sequence[npt.NDArray[np.uint8]]) -> None:
    """Encodes frames, uint8[height, width, 3] each; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    height, width, _ = frames[0].shape
    writer = imageio_ffmpeg.write_frames(
        str(partial),
        (width, height),
        fps=FRAMES_PER_S,
        codec="libx264",
        pix_fmt_out="yuv420p",  # the one that every browser plays
        output_params=["-f", "mp4", "-movflags", "+faststart", "-preset", "veryfast"],
        ffmpeg_log_level="error",
    )
    writer.send(None)
    try:
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
    finally:
        writer.close()
    partial.replace(path)
