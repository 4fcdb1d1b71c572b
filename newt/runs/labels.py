"""Labels of runs: what a run belongs to, in words of whoever starts it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from newt.errors import InvalidInputError

MAX_LABELS = 16

LabelName = Annotated[str, Field(strict=True, pattern=r"^[a-z][a-z0-9._-]{0,62}$")]
LabelValue = Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._/+-]{0,127}$")]
Labels = Annotated[dict[LabelName, LabelValue], Field(max_length=MAX_LABELS)]


def parse_selector(terms: Iterable[str]) -> dict[str, str]:
    """Labels that are asked for, of terms `name=value`.

    Raises:
        InvalidInputError: A term is no such pair; names the field `label`.
    """
    wanted = {}
    for term in terms:
        name, equals, value = term.partition("=")
        if not equals or not name:
            raise InvalidInputError("label", f"got {term[:200]!r}, expected NAME=VALUE")
        wanted[name] = value
    return wanted
