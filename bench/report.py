"""The results file and the table."""

from __future__ import annotations

import json
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


def store(path: Path, subject: str, figures: Sequence[Figure], effort: Effort, load_before: float) -> None:
    """Replaces one subject's keys in the results file; other subjects keep theirs, with their own commit and date.

    Args:
        path: File to create or update.
        subject: Its keys begin with it.
        figures: Figures of the subject.
        effort: How thoroughly they were taken.
        load_before: Load of the machine before the subject ran.
    """
    values = read(path)
    kept = {key: value for key, value in values.items() if not key.startswith(f"{subject}.")}
    about = machine.describe()
    kept |= about
    kept |= {
        f"{subject}.commit": about["commit"],
        f"{subject}.date": about["date"],
        f"{subject}.effort": effort.level,
        f"{subject}.load_before": round(load_before, 2),
    }
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
    packages = ", ".join(f"{name} {values[f'versions.{name}']}" for name in _NAMED)
    lines = [
        f"{values['machine.processor']}, {values['machine.cores']} cores, {values['machine.memory_gb']} GB"
        f"; {packages}.",
        "",
        "| Subject | Commit | Date | Effort | Load before |",
        "|---|---|---|---|---|",
    ]
    for subject in (key.removesuffix(".effort") for key in values if key.endswith(".effort")):
        about = [values[f"{subject}.{name}"] for name in ("commit", "date", "effort", "load_before")]
        lines.append(f"| {subject} | {' | '.join(map(str, about))} |")
    lines += ["", "| Figure | Ours | Plain | Ratio (quartiles) | Goal | |", "|---|---|---|---|---|---|"]
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
        lines.append(f"| `{key}` | {ours} | {plain} | {ratio} | {goal} | {met} |")
    return "\n".join(lines) + "\n" + domain_table.markdown(values)


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
