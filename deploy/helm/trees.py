"""Manifests of which parts depend on the chart's values, and their texts as Helm templates.

A tree is a manifest as YAML is parsed, with five additions:

- `Raw(text)`: a scalar that is this text in the template, mostly `{{ ... }}`.
- `Either(condition, then, other)`: one of two trees.
- `When(condition)` as the key of a mapping: the mapping below it is a part of the one around, if the condition holds.
- `Maybe(condition, items)` in a list: these items are some of the list's, if the condition holds.
- `Each(numbers, text)` in a list: this text for each number of an expression's, which is `$n` in it.

Conditions are expressions of Helm's language, such as `.Values.gpu.enabled`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

Tree = Any
Change = Callable[[str, Any], Any]


@dataclass(frozen=True)
class Raw:
    """A scalar, as the text that stands for it in a template."""

    text: str


@dataclass(frozen=True)
class Either:
    """One of two trees."""

    condition: str
    then: Tree
    other: Tree


@dataclass(frozen=True)
class When:
    """Key of a mapping whose entries are there under a condition."""

    condition: str


@dataclass(frozen=True)
class Maybe:
    """Items of a list that are there under a condition."""

    condition: str
    items: list[Tree]


@dataclass(frozen=True)
class Each:
    """Items of a list, one for each number."""

    numbers: str
    text: str


@dataclass
class Document:
    """A manifest with the conditions under which it is there at all."""

    manifest: Tree
    conditions: list[str]

    @property
    def name(self) -> str:
        """Kind and name, as `Deployment/planner`."""
        return f"{self.manifest['kind']}/{self.manifest['metadata']['name']}"


def changed(tree: Tree, change: Change, path: str) -> Tree:
    """A tree with other scalars.

    Args:
        tree: The tree.
        change: Gets the path of every scalar, as `Deployment/planner/spec/replicas`, and the scalar; returns what takes
            its place. Paths leave conditions out; items of a list have their number, with those under a condition
            counted as well.
        path: Path of the tree itself.
    """
    if isinstance(tree, dict):
        return {
            key: changed(value, change, path if isinstance(key, When) else f"{path}/{key}")
            for key, value in tree.items()
        }
    if isinstance(tree, list):
        items: list[Tree] = []
        number = 0
        for item in tree:
            inner = item.items if isinstance(item, Maybe) else [item]
            made = [changed(each, change, f"{path}/{number + i}") for i, each in enumerate(inner)]
            number += len(inner)
            items += [Maybe(item.condition, made)] if isinstance(item, Maybe) else made
        return items
    if isinstance(tree, Either):
        return Either(tree.condition, changed(tree.then, change, path), changed(tree.other, change, path))
    return tree if isinstance(tree, Raw | Each) else change(path, tree)


def template(documents: list[Document]) -> str:
    """The text of a file of templates."""
    lines: list[str] = []
    for document in documents:
        body = ["---", *_lines(document.manifest)]
        for condition in reversed(document.conditions):
            body = _conditional(condition, body)
        lines += body
    return "\n".join(lines) + "\n"


def _lines(tree: Tree) -> list[str]:
    """Lines of a tree that is not the value of a key."""
    if isinstance(tree, dict):
        return list(_mapping(tree)) if tree else ["{}"]
    if isinstance(tree, list):
        return list(_sequence(tree)) if tree else ["[]"]
    if isinstance(tree, Either):
        return _conditional(tree.condition, _lines(tree.then), _lines(tree.other))
    return [_scalar(tree)]


def _mapping(mapping: dict[Any, Tree]) -> Iterator[str]:
    for key, value in mapping.items():
        if isinstance(key, When):
            yield from _conditional(key.condition, list(_mapping(value)))
        elif _is_inline(value):
            yield f"{_scalar(key)}: {_scalar(value)}"
        elif isinstance(value, str):  # of several lines
            yield f"{_scalar(key)}: |"
            yield from ("  " + _escaped(line) for line in value.removesuffix("\n").split("\n"))
        else:
            yield f"{_scalar(key)}:"
            yield from ("  " + line for line in _lines(value))


def _sequence(items: list[Tree]) -> Iterator[str]:
    for item in items:
        if isinstance(item, Maybe):
            yield from _conditional(item.condition, list(_sequence(item.items)))
        elif isinstance(item, Each):
            yield from (f"{{{{- range $n := {item.numbers} }}}}", f"- {item.text}", "{{- end }}")
        else:
            first, *others = _lines(item)
            if first.lstrip().startswith("{{-"):  # a condition trims what is before it: the dash must not be there
                raise ValueError(f"an item of a list begins with a condition: {first}")
            yield f"- {first}"
            yield from ("  " + line for line in others)


def _conditional(condition: str, then: list[str], other: list[str] | None = None) -> list[str]:
    otherwise = ["{{- else }}", *other] if other is not None else []
    return [f"{{{{- if {condition} }}}}", *then, *otherwise, "{{- end }}"]


def _is_inline(tree: Tree) -> bool:
    """Whether a tree is written behind its key."""
    if isinstance(tree, Either):
        return not isinstance(tree.then, dict | list) and _is_inline(tree.then) and _is_inline(tree.other)
    if isinstance(tree, dict | list):
        return not tree
    return not (isinstance(tree, str) and tree.endswith("\n"))


def _scalar(tree: Tree) -> str:
    """A scalar or an empty collection."""
    if isinstance(tree, Raw):
        return tree.text
    if isinstance(tree, Either):
        return f"{{{{ if {tree.condition} }}}}{_scalar(tree.then)}{{{{ else }}}}{_scalar(tree.other)}{{{{ end }}}}"
    if isinstance(tree, str) and re.fullmatch(r"[\w./-]+", tree) and yaml.safe_load(tree) == tree:
        return tree
    return _escaped(json.dumps(tree))


def _escaped(text: str) -> str:
    """A text that is none of Helm's: what it would take for its own stands in quotes."""
    return re.sub(r"\{\{|\}\}", lambda found: f'{{{{ "{found[0]}" }}}}', text)
