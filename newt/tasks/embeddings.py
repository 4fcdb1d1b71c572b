"""Language embeddings of instructions, from a cache that is part of the package or encoded now.

The cache of an encoder is one file, `embeddings-<encoder>.npz`, with the vectors of all registered
instructions, the SHA-256 of each text and the encoder's identity. While the texts match, nothing but NumPy
is imported. After changing an instruction, rebuild it:

    python -m newt.tasks.embeddings                      # the encoder that carries its weights
    python -m newt.tasks.embeddings --encoder clip-vit-b32
    python -m newt.tasks.embeddings --check              # exit status 1 if it is stale
"""

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from newt.tasks.encoders import ENCODERS, SENTENCE, TextEncoder, identity, load_encoder, require_weights
from newt.tasks.registry import Task, all_tasks


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Vectors of one encoder.

    Attributes:
        encoder: Identity of the encoder, `<name>@<first 12 hex digits of its fingerprint>`. Vectors of
            different identities must not meet in one run: store it, and compare it on resuming.
        vectors: float32[K, 512], one row per text.
    """

    encoder: str
    vectors: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class EmbeddingCache:
    """The cached vectors of one encoder.

    Attributes:
        encoder: Name of the encoder.
        fingerprint: SHA-256 of its weights.
        names: Task names, for people.
        digests: SHA-256 of each text, as hex.
        vectors: float32[K, 512], one row per text.
    """

    encoder: str
    fingerprint: str
    names: tuple[str, ...]
    digests: tuple[str, ...]
    vectors: NDArray[np.float32]

    @property
    def by_digest(self) -> dict[str, NDArray[np.float32]]:
        """The vector of each text, float32[512], by the text's digest."""
        return dict(zip(self.digests, self.vectors, strict=True))


def embed_tasks(tasks: Sequence[Task], encoder: str | TextEncoder) -> Embeddings:
    """Embeds the instructions of tasks, in their order.

    Args:
        tasks: K tasks, at least one.
        encoder: Name of an encoder, which is only built if the cache does not hold every text; or an
            encoder already built.

    Raises:
        ValueError: If there is no such encoder, or a text is too long for it.
        EncoderUnavailableError: If a text has to be encoded and the encoder's weights are not here.
    """
    return embed_texts([task.instruction for task in tasks], encoder)


def embed_texts(texts: Sequence[str], encoder: str | TextEncoder) -> Embeddings:
    """Embeds texts: cached ones are looked up, new ones encoded. See `embed_tasks`."""
    if isinstance(texts, str) or not texts:
        raise ValueError(f"expected a list with at least one text, got {texts!r}")
    name = encoder if isinstance(encoder, str) else encoder.name
    if name not in ENCODERS:
        raise ValueError(f"unknown text encoder {name!r}, expected one of {', '.join(ENCODERS)}")
    digests = [text_digest(text) for text in texts]
    cached = load_cache(name)
    known = cached.by_digest if cached is not None else {}
    if cached is not None and isinstance(encoder, str) and known.keys() >= set(digests):
        return Embeddings(identity(name, cached.fingerprint), np.stack([known[digest] for digest in digests]))
    built = load_encoder(encoder) if isinstance(encoder, str) else encoder
    if cached is None or cached.fingerprint != built.fingerprint:
        known = {}  # made by other weights
    vectors = np.stack(
        [
            known[digest] if digest in known else built.encode([text])[0]
            for text, digest in zip(texts, digests, strict=True)
        ]
    )
    return Embeddings(identity(name, built.fingerprint), vectors)


def require_encoder(texts: Sequence[str], encoder: str) -> None:
    """Raises EncoderUnavailableError if `embed_texts` could not embed these texts here; reads no weights."""
    cached = load_cache(encoder)
    if cached is None or not set(cached.digests) >= {text_digest(text) for text in texts}:
        require_weights(encoder)


def text_digest(text: str) -> str:
    """SHA-256 of a text, as hex."""
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def load_cache(encoder: str) -> EmbeddingCache | None:
    """The packaged cache of an encoder, or None if there is no file for it."""
    file = resources.files("newt.tasks").joinpath(_file_name(encoder))
    if not file.is_file():
        return None
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return EmbeddingCache(
            encoder=str(arrays["encoder"]),
            fingerprint=str(arrays["fingerprint"]),
            names=tuple(arrays["names"].tolist()),
            digests=tuple(arrays["digests"].tolist()),
            vectors=arrays["vectors"],
        )


def write_cache(encoder: TextEncoder, folder: Path) -> Path:
    """Encodes the instructions of all registered tasks into a cache file.

    Returns:
        The file written, `embeddings-<encoder>.npz` in the folder.
    """
    tasks = all_tasks()
    texts = [task.instruction for task in tasks]
    path = folder / _file_name(encoder.name)
    np.savez_compressed(
        path,
        encoder=np.array(encoder.name),
        fingerprint=np.array(encoder.fingerprint),
        names=np.array([task.name for task in tasks]),
        digests=np.array([text_digest(text) for text in texts]),
        vectors=encoder.encode(texts),
    )
    return path


def stale_tasks(encoder: str) -> list[str]:
    """Names of the tasks whose present instruction the cache of this encoder does not hold."""
    cached = load_cache(encoder)
    digests = set(cached.digests) if cached is not None else set()
    return [task.name for task in all_tasks() if text_digest(task.instruction) not in digests]


def _file_name(encoder: str) -> str:
    return f"embeddings-{encoder}.npz"


def main(arguments: Sequence[str] | None = None) -> int:
    """Rebuilds or checks the cache; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m newt.tasks.embeddings", description=main.__doc__)
    parser.add_argument("--encoder", choices=list(ENCODERS), default=SENTENCE)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="where the file goes")
    parser.add_argument("--check", action="store_true", help="write nothing, fail if the packaged cache is stale")
    options = parser.parse_args(arguments)
    if options.check:
        stale = stale_tasks(options.encoder)
        print(f"{len(stale)} instructions are not in the cache: {stale}" if stale else "the cache is up to date")
        return 1 if stale else 0
    print(write_cache(load_encoder(options.encoder), options.folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
