"""Videos of evaluations: H.264 in MP4."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

# Drawing a frame without a GPU takes 0.1 s and more, so a video shows one step in a few.
MAX_FRAMES = 50
FRAMES_PER_S = 12


def frame_stride(episode_length: int) -> int:
    """Steps between two frames, so that no video has more than MAX_FRAMES."""
    return -(-episode_length // MAX_FRAMES)


def write_mp4(path: Path, frames: Sequence[npt.NDArray[np.uint8]]) -> None:
    """Encodes frames, uint8[height, width, 3] each; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    with av.open(str(partial), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_S, options={"preset": "veryfast"})
        stream.height, stream.width, _ = frames[0].shape
        stream.pix_fmt = "yuv420p"  # the one that every browser plays
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    partial.replace(path)
