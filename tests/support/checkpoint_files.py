"""Checkpoint files with any header: well-formed containers around what may be nonsense."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from safetensors.torch import save as pack

from newt.agent.blobs import digest

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(2**63), 2**63, 0, -1, 1e308, 5e-324])
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["a" * 300, "\x00"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def write(path: Path, document: Any, tensors: dict[str, torch.Tensor]) -> Path:
    """A well-formed file around any document."""
    text = document if isinstance(document, str) else json.dumps(document)
    path.write_bytes(pack(tensors, {"newt": text, "sha256": digest(text, tensors)}))
    return path


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a document."""
    yield path
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for name, value in inner:
        yield from places(value, (*path, name))


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of a document with another value at a path, whose last part may be new."""
    if not path:
        return value
    document = copy.copy(document)
    document[path[0]] = changed(document[path[0]], path[1:], value) if path[1:] else value
    return document
