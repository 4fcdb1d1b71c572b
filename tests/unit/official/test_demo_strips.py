"""Features of published strips of frames."""

from pathlib import Path

import numpy as np
import pytest
from image_encoders import save_tiny_dinov2
from PIL import Image

from newt.errors import CorruptDataError, InvalidInputError, NotFoundError
from newt.official.strips import read_strips, with_strip_features
from newt.vision import ImageEncoder
from newt.wire.episodes import Episode

FRAMES = np.random.default_rng(3).integers(0, 256, (9, 3, 224, 224), np.uint8)


def write_strip(path: Path, frames: np.ndarray) -> None:
    Image.fromarray(np.concatenate(list(frames.transpose(0, 2, 3, 1)), axis=1)).save(path)


def episode(number: int, transitions: int) -> Episode:
    obs = np.zeros((transitions + 1, 4), np.float32)
    return Episode(f"e{number}", "reach", obs, obs[1:, :1], obs[1:, 0])


def test_every_row_gets_the_features_of_its_frame(tmp_path: Path) -> None:
    encoder = ImageEncoder(save_tiny_dinov2(tmp_path / "encoder"))
    write_strip(tmp_path / "reach-0.png", FRAMES[:5])
    write_strip(tmp_path / "reach-1.png", FRAMES[5:])
    expected = encoder.encode(FRAMES)
    first, second = with_strip_features([episode(0, 2), episode(1, 3)], tmp_path, encoder)
    np.testing.assert_allclose(first.image, expected[:3], atol=1e-4)
    np.testing.assert_allclose(second.image, expected[3:7], atol=1e-4)  # what is left over belongs to no row
    assert first.image_encoder == second.image_encoder == encoder.name
    with pytest.raises(InvalidInputError, match="each of the 10 rows of reach, got 9"):
        with_strip_features([episode(0, 9)], tmp_path, encoder)


def test_long_strips_come_in_batches(tmp_path: Path) -> None:
    many = np.concatenate([FRAMES] * 30)  # 270 frames, as wide as a picture may not be without being told
    write_strip(tmp_path / "reach-0.png", many)
    parts = list(read_strips(tmp_path, "reach"))
    assert [len(part) for part in parts] == [256, 14]
    np.testing.assert_array_equal(np.concatenate(parts), many)


def test_wrong_strips_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"reach-0\.png"):
        list(read_strips(tmp_path, "reach"))
    (tmp_path / "reach-0.png").write_bytes(b"no picture")
    with pytest.raises(CorruptDataError, match=r"reach-0\.png"):
        list(read_strips(tmp_path, "reach"))
    Image.new("RGB", (300, 224)).save(tmp_path / "reach-0.png")
    with pytest.raises(InvalidInputError, match="224 x 300"):
        list(read_strips(tmp_path, "reach"))
