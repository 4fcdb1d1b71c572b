"""Tokens of instructions, as the encoders' own tokenizers count them."""

from __future__ import annotations

import doctest

import pytest

from newt.tasks import text_lengths
from newt.tasks.encoders import CLIP, SENTENCE
from newt.tasks.registry import table_tasks
from newt.tasks.text_lengths import READ, least_tokens, tokens


def test_examples() -> None:
    assert doctest.testmod(text_lengths).failed == 0


def test_least_is_never_more_than_what_a_tokenizer_makes_of_it() -> None:
    texts = [task.instruction for task in table_tasks().values()]
    assert all(least_tokens(text) <= tokens(text, SENTENCE) for text in texts)
    assert max(tokens(text, SENTENCE) for text in texts) > max(least_tokens(text) for text in texts)  # not the same


@pytest.mark.parametrize("encoder", [CLIP, SENTENCE])
def test_our_own_texts_are_read_to_their_ends(encoder: str) -> None:
    for task in table_tasks().values():
        assert tokens(task.instruction, encoder) <= READ[encoder], task.name
