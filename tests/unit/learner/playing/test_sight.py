"""Image features step by step, with a real encoder."""

from pathlib import Path

import numpy as np
import pytest
from image_encoders import TINY_DIM, save_tiny_dinov2

from newt.client.steps import Observation, Step
from newt.vision import ImageEncoder
from services.learner.playing.sight import Sight, Vision
from services.learner.settings import LearnerSettings
from services.learner.waiting import RunFailedError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_dinov2(tmp_path_factory.mktemp("dinov2"))


def frame(value: int) -> np.ndarray:
    return np.random.default_rng(value).integers(0, 256, (3, 224, 224), np.uint8)


def shown(*values: int) -> Observation:
    count = len(values)
    rgb = np.stack([frame(value) for value in values])
    return Observation(np.zeros((count, 128), "f4"), rgb, None, np.zeros(count, "u8"), np.zeros(count, "i4"))


def step(now: tuple[int, ...], ended: dict[int, int]) -> Step:
    zeros, flags = np.zeros(len(now), np.float32), np.zeros(len(now), np.bool_)
    rows = np.array(sorted(ended), np.int32)
    last = np.stack([frame(ended[row]) for row in rows]) if ended else None
    return Step(
        observation=shown(*now),
        reward=zeros,
        terminated=flags,
        truncated=flags,
        success=zeros,
        score=zeros,
        corrected_score=zeros,
        final_rows=rows,
        final_obs=np.zeros((len(rows), 128), "f4"),
        final_rgb=last,
        crashed=flags,
    )


def test_features_follow_auto_resets(folder: Path) -> None:
    encoder = ImageEncoder(folder)
    sight = Sight(Vision(encoder, 2), 2)
    of = {value: encoder.encode(frame(value)[None])[0] for value in range(10)}

    def expect(got: np.ndarray, *rows: tuple[int, int]) -> None:
        np.testing.assert_allclose(got, [np.concatenate([of[a], of[b]]) for a, b in rows], atol=1e-4)

    expect(sight.begin([0, 1], shown(0, 1)), (0, 0), (1, 1))
    now, reached = sight.step(step((2, 3), {}))
    expect(now, (0, 2), (1, 3))
    expect(reached, (0, 2), (1, 3))
    # Row 1 ends with frame 5 and shows frame 6 of its next episode.
    now, reached = sight.step(step((4, 6), {1: 5}))
    expect(now, (2, 4), (6, 6))
    expect(reached, (2, 4), (3, 5))
    now, _ = sight.step(step((7, 8), {}))
    expect(now, (4, 7), (6, 8))
    expect(sight.look(shown(9, 0)), (7, 9), (8, 0))
    assert sight.encoder_name == encoder.name


def test_without_images_there_are_no_columns() -> None:
    sight = Sight(None, 3)
    assert sight.begin([0, 1, 2], shown(0, 0, 0)).shape == (3, 0)
    now, reached = sight.step(step((0, 0, 0), {1: 0}))
    assert (now.shape, reached.shape, sight.encoder_name) == ((3, 0), (3, 0), "")


def test_the_encoder_must_be_the_models(folder: Path) -> None:
    settings = LearnerSettings(image_encoder=str(folder))
    vision = Vision.load(settings, 3 * TINY_DIM)
    assert (vision.frames, vision.image_dim) == (3, 3 * TINY_DIM)
    assert Vision.load(settings, TINY_DIM, 1, known_as=vision.encoder.name).frames == 1
    with pytest.raises(RunFailedError, match=f"takes 768 columns.*set vision.feature_dim to {TINY_DIM}"):
        Vision.load(settings, 768, 1)
    with pytest.raises(RunFailedError, match="trained with the image encoder 'dinov2-768@abc'"):
        Vision.load(settings, TINY_DIM, known_as="dinov2-768@abc")
    with pytest.raises(RunFailedError, match="hf download"):
        Vision.load(LearnerSettings(image_encoder=str(folder / "nothing")), TINY_DIM)
