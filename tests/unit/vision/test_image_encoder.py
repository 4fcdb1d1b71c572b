"""The image encoder against transformers' own forward pass and preprocessing."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from image_encoders import TINY_DIM, save_tiny_dinov2
from safetensors.torch import load_file, save_file
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from newt.tasks.encoders import EncoderUnavailableError
from newt.vision import FeatureHistory, ImageEncoder, stacked


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_dinov2(tmp_path_factory.mktemp("dinov2"))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> ImageEncoder:
    return ImageEncoder(folder)


def frames(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 224, 224), np.uint8)


def test_features_are_those_of_the_library(folder: Path, encoder: ImageEncoder) -> None:
    given = frames(3)
    # Preprocessing of the library too, as facebook/dinov2-base configures it, but without resizing and cropping.
    processor = transformers.BitImageProcessorPil(
        do_resize=False, do_center_crop=False, image_mean=IMAGENET_DEFAULT_MEAN, image_std=IMAGENET_DEFAULT_STD
    )
    model = transformers.Dinov2Model.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = model(**processor(list(given), return_tensors="pt"))
    got = encoder.encode(given)
    assert got.shape == (3, TINY_DIM)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected.last_hidden_state[:, 0].numpy(), atol=1e-5)
    # The class token behind the final norm is what the library calls the pooled output.
    np.testing.assert_allclose(got, expected.pooler_output.numpy(), atol=1e-5)
    assert np.std(got, axis=0).min() > 0  # different frames, different features


def test_a_frame_does_not_depend_on_its_company(encoder: ImageEncoder) -> None:
    given = frames(300)
    together = encoder.encode(given)
    np.testing.assert_allclose(together[[0, 256, 299]], encoder.encode(given[[0, 256, 299]]), atol=1e-4)


def test_threads_share_batches_and_get_their_own(encoder: ImageEncoder) -> None:
    given = [frames(2, seed) for seed in range(6)]
    expected = [encoder.encode(part) for part in given]
    got: list[np.ndarray | None] = [None] * len(given)

    def ask(i: int) -> None:
        got[i] = encoder.encode(given[i])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(given))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for mine, own in zip(got, expected, strict=True):
        np.testing.assert_allclose(mine, own, atol=1e-4)


def test_wrong_frames_are_refused(encoder: ImageEncoder) -> None:
    for wrong in (
        frames(1).astype(np.float32),
        np.zeros((2, 224, 224, 3), np.uint8),
        np.zeros((3, 224, 224), np.uint8),
    ):
        with pytest.raises(ValueError, match="expected frames uint8"):
            encoder.encode(wrong)


def test_the_name_tells_weights_apart(folder: Path, encoder: ImageEncoder, tmp_path: Path) -> None:
    assert encoder.name.startswith(f"dinov2-{TINY_DIM}@")
    assert ImageEncoder(folder).name == encoder.name
    assert ImageEncoder(save_tiny_dinov2(tmp_path, seed=1)).name != encoder.name


def test_absent_weights_are_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(EncoderUnavailableError, match="hf download facebook/dinov2-base"):
        ImageEncoder(tmp_path / "nothing")
    with pytest.raises(EncoderUnavailableError, match="no image encoder weights at someone/no-such-encoder"):
        ImageEncoder("someone/no-such-encoder")


def test_incomplete_weights_are_not_made_up(tmp_path: Path) -> None:
    save_tiny_dinov2(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["layernorm.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(EncoderUnavailableError, match=r"lacks 1 weights \(layernorm.weight"):
        ImageEncoder(tmp_path)


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    transformers.ViTModel(
        transformers.ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    ).save_pretrained(tmp_path)
    with pytest.raises(EncoderUnavailableError, match="holds a 'vit', not a DINOv2"):
        ImageEncoder(tmp_path)


def test_a_device_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(ValueError, match="'nonsense'"):
        ImageEncoder(folder, "nonsense")


def test_history_is_that_of_whole_episodes() -> None:
    features = np.random.default_rng(2).normal(size=(2, 7, 3)).astype(np.float32)
    history = FeatureHistory(rows=2, dim=3, frames=3)
    seen = [history.begin([0, 1], features[:, 0])]
    seen += [history.push(features[:, t]) for t in range(1, 7)]
    for row in range(2):
        np.testing.assert_array_equal(np.stack([now[row] for now in seen]), stacked(features[row], 3))
    np.testing.assert_array_equal(stacked(features[0], 3)[0], np.tile(features[0, 0], 3))
    np.testing.assert_array_equal(stacked(features[0], 3)[4], features[0, 2:5].ravel())


def test_a_new_episode_forgets_the_old_one() -> None:
    history = FeatureHistory(rows=2, dim=1, frames=2)
    history.begin([0, 1], np.array([[1], [2]], np.float32))
    history.push(np.array([[3], [4]], np.float32))
    now = history.begin([1], np.array([[9]], np.float32))
    np.testing.assert_array_equal(now, [[1, 3], [9, 9]])
