"""docs/gpu.md: the tables of a session between two marks; the words around them are written by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.gpu.document import Document

PAGE = Path(__file__).resolve().parents[2] / "docs" / "gpu.md"
_BEGIN, _END = "<!-- figures: begin (written by python -m bench.gpu --report) -->", "<!-- figures: end -->"


def write(document: Document, page: Path = PAGE) -> None:
    """Replaces the figures of the page. Raises ValueError for a dry run, whose figures mean nothing."""
    if document["tiny"]:
        raise ValueError("this file is of a dry run (--tiny): its figures are not measurements")
    before, _, rest = page.read_text().partition(_BEGIN)
    after = rest.partition(_END)[2]
    page.write_text(f"{before}{_BEGIN}\n\n{tables(document)}\n{_END}{after}")


def tables(document: Document) -> str:
    """Everything that a session has found, as Markdown."""
    parts = [f"Commit {document['commit']}, {document['date']}, device {document['device']}."]
    for name in ("machine", "ceilings", "compile", "links"):
        parts.append(_table((name, ""), ((key, _shown(value)) for key, value in document[name].items())))
    figures = document["figures"]
    parts.append(
        _table(
            ("figure", "median", "quartiles", "n", "times as fast as"),
            (
                (
                    f"`{figure['key']}`",
                    f"{figure['median']:.4g} {figure['unit']}",
                    f"{figure['q25']:.4g} to {figure['q75']:.4g}",
                    str(figure["n"]),
                    ", ".join(f"{other} {ratio:g}" for other, ratio in figure.get("ratio_to", {}).items()),
                )
                for figure in figures
            ),
        )
    )
    checks = [
        (c["name"], f"{c['error']:.2g}", f"{c['tolerance']:g}", "yes" if c["ok"] else "**no**")
        for c in document["correctness"]
    ]
    parts.append(_table(("check", "error", "at most", "holds"), checks))
    drawn = ((str(e["processes"]), e["backend"], e["outcome"], f"{e['seconds']:.1f} s") for e in document["egl"])
    parts.append(_table(("processes that draw", "backend", "outcome", "seconds"), drawn))
    ended = ((s["name"], f"{s['seconds']} s", _ending(s)) for s in document["stages"])
    parts.append(_table(("stage", "seconds", "ended"), ended))
    return "\n".join(part for part in parts if part)


def _ending(stage: Document) -> str:
    if stage["killed"]:
        return "killed at its limit"
    return "by itself" if stage["rc"] == 0 else f"status {stage['rc']}: {stage['error']}"


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(["", f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines, ""]) if lines else ""
