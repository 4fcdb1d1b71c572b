"""Videos are as long as their episodes and say what is seen in them."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from newt.videos import MAX_FRAMES, Frame, captioned, frame_stride, write_mp4

RANDOM = np.random.default_rng(0)


def frame(step: int, size: tuple[int, int] = (224, 224), success: float = float("nan"), reward: float = 1.5) -> Frame:
    return Frame(RANDOM.integers(0, 256, (*size, 3), np.uint8), step, reward, success)


@pytest.mark.parametrize(
    ("length", "pace"), [(1, 25), (50, 40), (100, 2.5), (101, 62.5), (500, 50), (500, 100 / 3), (1000, 0.1)]
)
def test_a_video_is_as_long_as_its_episode(tmp_path: Path, length: int, pace: float) -> None:
    frames = [frame(step) for step in range(0, length, frame_stride(length))]
    assert len(frames) <= MAX_FRAMES
    write_mp4(tmp_path / "folder" / "task.mp4", "walker-walk", frames, length, pace)
    with av.open(str(tmp_path / "folder" / "task.mp4")) as container:
        assert container.duration is not None
        seconds = container.duration / av.time_base
        decoded = [picture.to_ndarray(format="rgb24") for picture in container.decode(video=0)]
    # The end stays for a second or the time of one frame, whichever is longer.
    stride_s = frame_stride(length) / pace
    assert length / pace + 0.9 <= seconds <= length / pace + 1 + 2 * stride_s
    assert len(decoded) > len(frames)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["task.mp4"]


@pytest.mark.parametrize("size", [(224, 224), (63, 65)])
def test_the_picture_is_whole_and_the_text_below_it(size: tuple[int, int]) -> None:
    shown = frame(35, size, success=1.0)
    whole = captioned(shown, "walker-walk", 500)
    height, width = size
    assert np.array_equal(whole[:height, :width], shown.picture)
    assert whole.shape[0] % 2 == whole.shape[1] % 2 == 0
    assert (whole[height + height % 2 :] > 200).sum() > 100


def test_step_return_and_success_change_the_text() -> None:
    first = frame(35, success=1.0)
    others = [Frame(first.picture, step, reward, success) for step, reward, success in (
        (36, 1.5, 1.0), (35, 1.6, 1.0), (35, 1.5, 0.0), (35, 1.5, float("nan")),
    )]  # fmt: skip
    texts = {captioned(one, "walker-walk", 500)[224:].tobytes() for one in [first, *others]}
    texts.add(captioned(first, "walker-run", 500)[224:].tobytes())
    assert len(texts) == 6
