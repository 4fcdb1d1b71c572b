"""Programs with the stubs of the baseline still understand today's protos; what would break them is refused."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROTOS = Path(__file__).parents[3] / "protos"
BASELINE = PROTOS / "baseline.json"


def broken(protos: Path) -> str:
    """What of the baseline does not hold any more; empty if all does."""
    buf = Path(sys.executable).with_name("buf")
    assert buf.is_file(), f"there is no {buf}: `make setup` installs it"
    call = [str(buf), "breaking", str(protos), "--against", str(BASELINE)]
    run = subprocess.run(call, capture_output=True, text=True, check=False, timeout=120)
    assert (run.returncode == 0) == (not run.stdout), run.stderr
    assert run.returncode in (0, 100), run.stderr  # 100: there are findings
    return run.stdout


def changed(tmp_path: Path, file: str, before: str, after: str) -> Path:
    """A copy of the protos with one change."""
    copy = Path(shutil.copytree(PROTOS, tmp_path / "protos"))
    path = copy / "newt" / "v1" / file
    text, found = re.subn(before, after, path.read_text(), count=1)
    assert found == 1, f"{file} has no {before}"
    path.write_text(text)
    return copy


def test_the_wire_is_that_of_the_baseline() -> None:
    assert broken(PROTOS) == "", (
        "give the field a new number and reserve the old one; if no program of before is in use any more, "
        "`make protos-baseline` (CONTRIBUTING.md)"
    )


BREAKS = {
    "a number": ("replay.proto", r"string buffer_id = 1;", "string buffer_id = 99;", "buffer_id"),
    "a type": ("replay.proto", r"uint64 capacity_rows = 3;", "string capacity_rows = 3;", "capacity_rows"),
    "a field": ("replay.proto", r"  uint32 image_dim = 7;\n", "", '"7"'),
    "a method": ("planner.proto", r"  rpc Plan\(.*\n", "", "Plan"),
    "a method's reply": (
        "replay.proto",
        r"returns \(CreateBufferResponse\)",
        "returns (DeleteBufferResponse)",
        "Create",
    ),
    "an enum's value": ("replay.proto", r"  LIMITER_SIDE_INSERT = 2;", "", '"2"'),
}


@pytest.mark.parametrize("what", BREAKS)
def test_a_change_that_breaks_the_wire_is_named(tmp_path: Path, what: str) -> None:
    file, before, after, named = BREAKS[what]
    found = broken(changed(tmp_path, file, before, after))
    assert file in found
    assert named in found


HARMLESS: dict[str, tuple[str, str, str]] = {
    "a new field": ("replay.proto", r"(  uint32 image_dim = 7;\n)", r"\1  uint32 later = 4000;\n"),
    "another name": ("replay.proto", r"uint32 image_dim = 7;", "uint32 image_columns = 7;"),
    "a comment": ("replay.proto", r"// Tasks of the run\.", "// All tasks."),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_a_change_that_nobody_notices_passes(tmp_path: Path, what: str) -> None:
    assert broken(changed(tmp_path, *HARMLESS[what])) == ""
