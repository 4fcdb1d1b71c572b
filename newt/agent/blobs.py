"""Safetensors blobs with a JSON document in their header and a digest of everything: what checkpoints are made of."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as unpack_tensors
from safetensors.torch import save as pack_tensors
from torch import Tensor

from newt.agent.checkpoint_header import CheckpointError, Json
from newt.agent.headers import parts, read_metadata


def pack(document: Json, tensors: Mapping[str, Tensor]) -> bytes:
    """Packs named tensors with a document."""
    text = json.dumps(document, sort_keys=True)
    # Copies give each name its own storage, which the format requires.
    stored = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    blob: bytes = pack_tensors(stored, {"newt": text, "sha256": digest(text, stored)})
    return blob


def unpack(data: bytes, source: str) -> tuple[str, dict[str, Tensor]]:
    """Reads a blob: its document as text, and its tensors.

    Raises:
        CheckpointError: It is truncated, altered, or not one of ours; names the source.
    """
    try:
        metadata = read_metadata(data)
        tensors: dict[str, Tensor] = unpack_tensors(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError, AttributeError) as error:
        raise CheckpointError(
            f"{source}: expected a complete safetensors file, got {len(data)} bytes that are not one: {error}"
        ) from error
    text, sha256 = parts(metadata, source)
    if digest(text, tensors) != sha256:
        raise CheckpointError(f"{source}: content does not match its sha256: the file is damaged, use another")
    return text, tensors


def write(path: Path, blob: bytes) -> None:
    """Writes a file; `path` holds the old content or all of the new, never a part, also after a power cut.

    Raises:
        OSError: The file cannot be written; an earlier file of that name is untouched.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the new name itself must survive a power cut
    finally:
        os.close(directory)


def digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """Hashes the document and every tensor's name, type, shape and bytes."""
    sha = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
