"""The results file and the table."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import domain_table, machine
from bench.figures import Figure, Ratio, Spread
from bench.measure import Effort

RESULTS = Path(__file__).resolve().parent / "results" / "latest.json"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
_BEGIN, _END = "<!-- figures: begin (written by python -m bench) -->", "<!-- figures: end -->"

_NAMED = ("python", "torch", "grpcio", "gymnasium", "torchrl")  # Versions named on the page; the file has more.
# Files of before told these once, of whatever was measured last: of the other subjects that says nothing.
_TOLD_ONCE = ("commit", "date", "machine.", "versions.")


def store(path: Path, subject: str, figures: Sequence[Figure], effort: Effort, load_before: float) -> None:
    """Replaces one subject's keys in the results file; others keep theirs, with their own machine, commit and load.

    Args:
        path: File to create or update.
        subject: Its keys begin with it.
        figures: Figures of the subject.
        effort: How thoroughly they were taken.
        load_before: Load of the machine before the subject ran.
    """
    kept = {key: value for key, value in read(path).items() if not key.startswith((f"{subject}.", *_TOLD_ONCE))}
    about = {**machine.describe(), "effort": effort.level, "load_before": round(load_before, 2)}
    kept |= {f"{subject}.{key}": value for key, value in about.items()}
    for figure in figures:
        kept |= figure.flat()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


def read(path: Path) -> dict[str, Any]:
    """What a results file holds; nothing if there is none."""
    try:
        values: Mapping[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return dict(values)


def update_page(page: Path, values: Mapping[str, Any]) -> None:
    """Writes what a results file holds as a table between the page's two marks.

    Raises:
        ValueError: The page has no marks.
    """
    text = page.read_text()
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{page} must contain the lines {_BEGIN} and {_END}")
    page.write_text(f"{before}{begin}\n{_markdown(values)}{end}{after}")


def _markdown(values: Mapping[str, Any]) -> str:
    subjects = [key.removesuffix(".effort") for key in values if key.endswith(".effort")]
    machines = {subject: _machine(values, subject) for subject in subjects}
    letters = dict(zip(dict.fromkeys(filter(None, machines.values())), string.ascii_uppercase, strict=False))
    letter = {subject: letters.get(described, "unknown") for subject, described in machines.items()}
    lines = [
        *(f"- **{letter}**: {described}." for described, letter in letters.items()),
        "",
        "| Subject | Machine | Commit | Date | Effort | Load before |",
        "|---|---|---|---|---|---|",
    ]
    for subject in subjects:
        about = [values[f"{subject}.{name}"] for name in ("commit", "date", "effort", "load_before")]
        lines.append(f"| {subject} | {letter[subject]} | {' | '.join(map(str, about))} |")
    lines += ["", "| Figure | Ours | Plain | Ratio (quartiles) | Goal | | Machine |", "|---|---|---|---|---|---|---|"]
    for key in (name.removesuffix(".unit") for name in values if name.endswith(".unit")):
        if key.startswith(domain_table.PREFIX):
            continue
        unit, goal = values[f"{key}.unit"], values.get(f"{key}.goal", "")
        met = {True: "met", False: "**missed**", None: ""}[values.get(f"{key}.met")]
        if f"{key}.ratio" in values:
            ratio = (
                f"{values[f'{key}.ratio']:.2f} ({values[f'{key}.ratio.low']:.3g} to {values[f'{key}.ratio.high']:.3g})"
            )
            ours, plain = (f"{values[f'{key}.{side}']:g} {unit}" for side in ("ours", "plain"))
        else:
            ours, plain, ratio = f"{values[key]:g} {unit}", "", ""
        cells = (f"`{key}`", ours, plain, ratio, goal, met, letter[key.partition(".")[0]])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n" + domain_table.markdown(values)


def _machine(values: Mapping[str, Any], subject: str) -> str:
    """Where a subject was measured, and with what; empty where it was stored before files told that of each."""
    if f"{subject}.machine.processor" not in values:
        return ""
    processor, cores, memory_gb = (values[f"{subject}.machine.{name}"] for name in ("processor", "cores", "memory_gb"))
    packages = ", ".join(f"{name} {values[f'{subject}.versions.{name}']}" for name in _NAMED)
    return f"{processor}, {cores} cores, {memory_gb} GB; {packages}"


def show(figures: Sequence[Figure], console: Console) -> None:
    """Prints the table."""
    table = Table("figure", "ours", "plain", "ratio", "quartiles", "goal", "", "what")
    for column in table.columns[:-1]:
        column.no_wrap = True
    for figure in figures:
        verdict = {True: "met", False: "MISSED", None: ""}[figure.met]
        if isinstance(figure, Ratio):
            goal = "" if figure.at_least is None else f">= {figure.at_least:g}"
            cells = (_with_unit(figure.ours, figure.unit), _with_unit(figure.plain, figure.unit))
            table.add_row(
                figure.key, *cells, f"{figure.ratio.median:.2f}", _range(figure.ratio), goal, verdict, figure.what
            )
        else:
            goal = "" if figure.at_most is None else f"<= {figure.at_most:g}"
            table.add_row(
                figure.key,
                _with_unit(figure.value, figure.unit),
                "",
                "",
                _range(figure.value),
                goal,
                verdict,
                figure.what,
            )
    console.print(table)


def _with_unit(spread: Spread, unit: str) -> str:
    return f"{spread.median:.4g} {unit}"


def _range(spread: Spread) -> str:
    return f"{spread.low:.3g} to {spread.high:.3g}"
