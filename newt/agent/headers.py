"""What a checkpoint file says about itself, read without its tensors and without torch, which takes seconds to load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from newt.agent.checkpoint_header import CheckpointError, Document, Json, Kind, read_document
from newt.agent.config import ModelConfig


@dataclass(frozen=True)
class Header:
    """What a checkpoint file says about itself, read without its tensors.

    Attributes:
        model_config: Sizes of the model.
        tasks: Names, in the order of its task table.
        info: What the writer added.
        sha256: Digest of the whole content, as hex; names this very training state.
    """

    model_config: ModelConfig
    tasks: tuple[str, ...]
    info: Json
    sha256: str


def read_header(path: Path | str) -> Header:
    """Reads what a checkpoint says about itself. Damage to its tensors goes unnoticed here.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: Not a checkpoint, or one of a newer format.
    """
    text, sha256 = read_text(path)
    document = document_of("checkpoint", text, str(path))
    return Header(document.model_config, tuple(document.tasks.names), document.info, sha256)


def read_metadata(data: bytes) -> Json:
    """The free text of a blob's header, which the library gives of files on disk only.

    Raises:
        ValueError, KeyError, TypeError, RecursionError: Not a safetensors file.
    """
    length = int.from_bytes(data[:8], "little")
    header: Json = json.loads(data[8 : 8 + length])
    return dict(header.get("__metadata__", {}))


def read_text(path: Path | str) -> tuple[str, str]:
    """The document of a file as text, and the digest of its whole content, without reading the tensors.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: Not one of ours.
    """
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise CheckpointError(f"{path}: expected a complete safetensors file: {error}") from error
    return parts(metadata, str(path))


def parts(metadata: Mapping[str, str], source: str) -> tuple[str, str]:
    """Document and digest among the free texts of a header. Raises CheckpointError; names the source."""
    if "newt" not in metadata or "sha256" not in metadata:
        raise CheckpointError(f"{source}: a safetensors file, but not written by newt (no newt header)")
    return metadata["newt"], metadata["sha256"]


def document_of(kind: Kind, text: str, source: str) -> Document:
    """Reads and checks a document. Raises CheckpointError; names the source."""
    try:
        return read_document(kind, text)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
