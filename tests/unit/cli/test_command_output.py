"""What commands print: lines that fit, JSON for programs, hints that can be typed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Commands
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.main import get_command

import newt
from newt.cli import computing, tasks, terminal, watch
from newt.cli.main import app
from newt.cli.runs import assign
from newt.cli.tails import Tail
from newt.cli.terminal import console
from newt.errors import InvalidInputError
from newt.local.state import command
from newt.runs.base import now
from newt.runs.record import Computing, Progress, Run, RunState, TaskProgress
from newt.runs.spec import RunSpec
from newt.tasks.registry import all_tasks

WIDTH = 80


def run(state: RunState, progress: Progress, error: str | None = None) -> Run:
    spec = RunSpec.model_validate({"tasks": ["mujoco-reacher"], "preset": "laptop"})
    return Run(
        id="20261129-010203-a-run",
        state=state,
        attempt=1,
        spec=spec,
        tasks=["mujoco-reacher"],
        created_at=now(),
        error=error,
        progress=progress,
        directory="/data/runs/r",
    )


def printed(table: object) -> list[str]:
    console = Console(width=WIDTH, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get().splitlines()


def test_the_version_is_told() -> None:
    assert Commands(app).succeed("--version").startswith(f"newt {newt.__version__}, Python 3.")


def test_a_path_with_colons_is_no_picture() -> None:
    with console.capture() as captured:
        console.print("nothing.here:x: it needs a package")
    assert captured.get() == "nothing.here:x: it needs a package\n"


def test_every_task_has_one_line_of_80_columns() -> None:
    lines = printed(tasks.table_of(list(all_tasks())))
    assert len(lines) == 1 + len(all_tasks())
    assert [line.split()[0] for line in lines[1:]] == [task.name for task in all_tasks()]
    assert "…" not in "".join(lines)


def test_lists_are_there_for_programs() -> None:
    facts = json.loads(Commands(app).succeed("tasks", "mw-*", "--json"))
    assert len(facts) == 49
    assert facts[0]["instruction"]
    assert "pendulum-spin" in json.loads(Commands(app).succeed("tasks", "--sets", "--json"))["tour"]


def test_every_command_that_lists_has_json() -> None:
    def walk(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
        yield path, command
        for name, below in getattr(command, "commands", {}).items():
            yield from walk(below, f"{path} {name}".strip())

    listing = {path: one for path, one in walk(get_command(app)) if re.match("List|Show", one.help or "")}
    assert {"runs", "runs checkpoints", "evaluations", "tasks list", "demos list", "demos show"} <= set(listing)
    words_of_people = {"logs", "runs note"}
    lacking = {path for path, one in listing.items() if not any("--json" in option.opts for option in one.params)}
    assert lacking == words_of_people


def test_a_row_of_a_list_is_one_line_however_long_the_note_is() -> None:
    table = terminal.list_table("run", "state", "env steps", note="error")
    table.add_row("20261129-010203-a-run", "failed", "400k/400k", terminal.line("a [cause]\n" * 40))
    lines = printed(table)
    assert len(lines) == 2
    assert "a [cause] a" in lines[1]
    assert lines[1].rstrip().endswith("…")


@given(
    stage=st.text(max_size=60),
    waiting_on=st.none() | st.text(max_size=90),
    numbers=st.tuples(*[st.integers(0, 10**15)] * 4),
    rate=st.floats(0, 1e9),
    eta=st.none() | st.floats(0, 1e8),
    state=st.sampled_from(RunState),
)
@settings(deadline=None)
def test_a_line_of_a_log_is_shorter_than_100_characters(
    stage: str,
    waiting_on: str | None,
    numbers: tuple[int, int, int, int],
    rate: float,
    eta: float | None,
    state: RunState,
) -> None:
    scores = {"mujoco-reacher": TaskProgress(last_score=0.5)}
    steps, total, updates, pretrain = numbers
    progress = Progress(stage=stage, waiting_on=waiting_on, env_steps=steps, total_env_steps=total, updates=updates)
    rates = {"env_steps_per_s": rate, "updates_per_s": rate, "eta_s": eta}
    progress = progress.model_copy(update={"pretrain_updates": pretrain, "tasks": scores, **rates})
    assert len(watch.short_line(run(state, progress))) < 100


@pytest.mark.parametrize("state", [state for state in RunState if state.finished])
def test_a_run_that_has_ended_has_no_time_left_and_no_speed(state: RunState) -> None:
    line = watch.headline(run(state, Progress(stage="ended", eta_s=0.0, env_steps_per_s=12.0, waiting_on="replay")))
    assert not any(word in line for word in ("ETA", "/s", "waiting"))
    assert "ETA" in watch.headline(run(RunState.TRAINING, Progress(eta_s=12.0)))


def test_what_computes_is_shown_with_its_warnings() -> None:
    unused = "1 GPU of this machine is not used: set [X] to auto"
    on = Computing(device="cpu", precision="float32", warning=unused)
    shown = printed(watch.progress_table(run(RunState.TRAINING, Progress(computing=on))))
    assert shown[-2:] == ["trains on cpu, float32, not compiled", f"warning: {unused}"]
    assert not any("trains on" in line for line in printed(watch.progress_table(run(RunState.QUEUED, Progress()))))
    lines = printed(computing.table_of({"planner": Computing(device="cuda:0", precision="bfloat16"), "run r": on}))
    assert lines[-1] == f"run r: {unused}"
    rows = {
        cells[1]: cells[2:5] for cells in ([cell.strip() for cell in line.split("│")] for line in lines) if cells[1:]
    }
    assert rows == {"planner": ["cuda:0", "bfloat16", "no"], "run r": ["cpu", "float32", "no"]}


@given(number=st.integers(0, 10**12))
@settings(deadline=None)
def test_a_count_is_short_and_right(number: int) -> None:
    text = watch.count(number)
    assert len(text) <= 7
    scale = {"k": 1e3, "M": 1e6, "G": 1e9}.get(text[-1], 1)
    assert float(text.replace(",", "").rstrip("kMG")) * scale == pytest.approx(number, rel=0.01)


@pytest.mark.parametrize(
    "assignment",
    ["plan.max_std=Infinity", "x=NaN", "x=1e999", "x=[1, -Infinity]", "=1", "a..b=1", "a", f"x={'[' * 10**5}"],
    ids=lambda text: text[:20],
)
def test_a_setting_that_cannot_be_sent_is_refused_in_our_words(assignment: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^--set: .*(expected|nested too deep)"):
        assign({}, [assignment])


def test_settings_are_json_or_else_words() -> None:
    request: dict[str, object] = {}
    assign(request, ["a.b=1", "a.c=word", 'tasks=["x"]', "n=1e3", "big=" + "9" * 30])
    assert request == {"a": {"b": 1, "c": "word"}, "tasks": ["x"], "n": 1000.0, "big": int("9" * 30)}
    with pytest.raises(InvalidInputError, match="a is not a section"):
        assign({"a": 1}, ["a.b=2"])


def test_hints_name_the_home_that_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWT_HOME", "/a")
    assert command("down", None) == command("down", Path("/a")) == "newt down"
    assert command("up", Path("/b c")) == "newt up --home '/b c'"


def test_a_log_is_followed_through_lines_in_parts_and_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "replay.log"
    tail = Tail(path)
    assert (tail.name, tail.last(3), tail.news()) == ("replay", [], [])
    path.write_bytes(b"".join(b"%d\n" % number for number in range(100_000)) + b"\xff\n")
    assert tail.last(3) == ["99998", "99999", "�"]
    assert tail.last(0) == []
    with path.open("ab") as file:
        file.write(b"one\ntw")
        file.flush()
        assert tail.news() == ["one"]
        file.write(b"o\n")
    assert tail.news() == ["two"]
    path.write_text("anew\n")
    assert tail.news() == ["anew"]


def test_logs_of_a_stack_are_shown(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "replay.log").write_text("a\nb\nc\n")
    (tmp_path / "supervisor.log").write_text("s\n")
    commands = Commands(app)
    assert commands.succeed("logs", "replay", "-n", 2, "--home", tmp_path) == "b\nc\n"
    assert commands.succeed("logs", "--home", tmp_path) == "replay: a\nreplay: b\nreplay: c\nsupervisor: s\n"
    assert "expected one of replay, supervisor" in commands.refused(InvalidInputError, "logs", "x", "--home", tmp_path)
