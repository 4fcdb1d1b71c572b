"""What a stack's planner and runs compute on, for people."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.markup import escape

from newt.cli.rest import Api
from newt.cli.terminal import name_table
from newt.errors import NewtError
from newt.local.state import StackState
from newt.runs.overview import Overview
from newt.runs.record import Computing
from newt.runs.stored import read


def of_runs(state: StackState, timeout_s: float) -> dict[str, Computing]:
    """By id, what the runs of a stack that are under way train on; nothing while the learner does not answer."""
    try:
        runs = read(Overview, Api(state.rest_url, timeout_s).get("/overview")).runs
    except NewtError:
        return {}
    return {run.id: run.computing for run in runs if run.computing is not None}


def words(computing: Computing) -> str:
    """In one line: cuda:0, tf32, compiled."""
    return f"{computing.device}, {computing.precision}, {'compiled' if computing.compiled else 'not compiled'}"


def warning_line(who: str, computing: Computing) -> str:
    """A warning in colour, as markup; empty if there is none."""
    return f"[yellow]{escape(who)}: {escape(computing.warning)}[/yellow]" if computing.warning else ""


def table_of(found: Mapping[str, Computing]) -> RenderableType:
    """A row for each, by who computes, and below them the warnings."""
    table = name_table("who computes", "device", "precision", "compiled", title="devices")
    for who, computing in found.items():
        table.add_row(who, computing.device, computing.precision, "yes" if computing.compiled else "no")
    return Group(table, *filter(None, (warning_line(who, computing) for who, computing in found.items())))
