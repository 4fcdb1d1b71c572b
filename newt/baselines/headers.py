"""What the file of a stored learner says about itself, read without its tensors and without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from newt.agent.checkpoint_header import CheckpointError, Info, Json, Start, Strict, TaskRows, require_known
from newt.agent.config import ConfigError
from newt.agent.headers import read_text
from newt.baselines.config import Config, Kind, read_config

FORMAT = "newt-policy"
FORMAT_VERSION = 1


class Document(Strict):
    """A header that has been checked, but for the algorithm's settings."""

    format: Literal["newt-policy"]
    version: int = Field(ge=1)
    algorithm: Kind
    settings: Json
    obs_dim: Literal[128]
    language_dim: int = Field(ge=0, le=8192)
    tasks: TaskRows
    info: Info


@dataclass(frozen=True)
class PolicyHeader:
    """What a file says about itself, read without its tensors.

    Attributes:
        algorithm: What learnt it.
        config: Its settings.
        language_dim: G, width of the tasks' text embeddings; 0 without language.
        tasks: Names, in the order of its task table.
        info: What the writer added.
        sha256: Digest of the whole content, as hex.
    """

    algorithm: Kind
    config: Config
    language_dim: int
    tasks: tuple[str, ...]
    info: Json
    sha256: str


def is_policy(path: Path | str) -> bool:
    """Whether a file is of this kind. Raises FileNotFoundError, CheckpointError."""
    text, _ = read_text(path)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return False  # whoever reads it says what is wrong
    return isinstance(document, dict) and document.get("format") == FORMAT


def read_policy_header(path: Path | str) -> PolicyHeader:
    """Reads what a file says about itself. Raises FileNotFoundError, CheckpointError."""
    text, sha256 = read_text(path)
    return header_of(document_of(text, str(path)), sha256, str(path))


def document_of(text: str, source: str) -> Document:
    """Reads and checks a document. Raises CheckpointError; names the source."""
    try:
        start = Start.model_validate_json(text)
        if start.format == FORMAT:
            require_known(start.version, FORMAT_VERSION, source)
        return Document.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"{source}: {field or 'its newt header'}: {first['msg'][:300]}") from error


def header_of(document: Document, sha256: str, source: str) -> PolicyHeader:
    """The header with the algorithm's settings. Raises CheckpointError; names the source."""
    try:
        config = read_config(document.algorithm, document.settings)
    except ConfigError as error:
        raise CheckpointError(f"{source}: settings: {error}") from error
    info = document.info.model_dump(exclude_unset=True)
    return PolicyHeader(document.algorithm, config, document.language_dim, tuple(document.tasks.names), info, sha256)
