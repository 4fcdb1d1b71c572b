"""What groups of runs are called: groups of one name are told apart by the settings that are not the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from newt.runs.expansion import TASK, VARIANT, flat
from newt.runs.spec import RunSpec

_LONGEST = 24  # signs of a value


def group_names(specs: Sequence[RunSpec]) -> list[str]:
    """A name for each group: its variant, or the name of its runs.

    Args:
        specs: Settings of each group's first run.
    """
    called = [spec.labels.get(VARIANT) or spec.label() for spec in specs]
    names = list(called)
    for name in {name for name in called if called.count(name) > 1}:
        places = [place for place, other in enumerate(called) if other == name]
        for place, words in zip(places, _apart([specs[place] for place in places]), strict=True):
            names[place] = f"{name}, {words}"
    return names


def _apart(specs: Sequence[RunSpec]) -> list[str]:
    """As few settings as tell all apart, `lr 0.001`; the first setting that does it alone, if there is one."""
    settings = [_settings(spec) for spec in specs]
    paths = list(dict.fromkeys(path for values in settings for path in values))
    texts = {path: [_text(values.get(path)) for values in settings] for path in paths}
    kinds = {path: len(set(texts[path])) for path in paths if len(set(texts[path])) > 1}
    chosen: list[str] = []
    for path in sorted(kinds, key=lambda path: -kinds[path]):  # stable: in the order of the schema
        if _distinct(chosen, texts) < _distinct([*chosen, path], texts):
            chosen.append(path)
    ends = {path: _short(path, chosen) for path in chosen}
    words = [", ".join(f"{ends[path]} {texts[path][place]}" for path in chosen) for place in range(len(specs))]
    if len(set(words)) == len(words):
        return words
    return [f"{text} ({number})".strip() for number, text in enumerate(words, start=1)]  # alike but for long values


def _settings(spec: RunSpec) -> dict[str, Any]:
    settings = flat(spec.model_dump(mode="json", exclude={"seed", "name"}))
    return {path: value for path, value in settings.items() if path != f"labels.{TASK}"}


def _distinct(chosen: Sequence[str], texts: dict[str, list[str]]) -> int:
    return len(set(zip(*(texts[path] for path in chosen), strict=True))) if chosen else 1


def _short(path: str, paths: Sequence[str]) -> str:
    """The end of a path, where no other of them has the same."""
    end = path.rpartition(".")[2]
    return path if sum(other.rpartition(".")[2] == end for other in paths) > 1 else end


def _text(value: Any) -> str:
    match value:
        case None | {}:
            return "none"
        case bool():
            return "on" if value else "off"
        case float():
            return f"{value:g}"
        case list():
            text = " ".join(map(str, value))
        case _:
            text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
