"""constraints/hashes.txt: whoever raises a version makes its hashes anew, with `make hashes`."""

from __future__ import annotations

import re
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
PINNED = ("constraints.txt", "constraints/maniskill.txt", "constraints/cuda.txt", "constraints/pip.txt")
ENTRY = re.compile(r"(?P<pin>\S+)(?P<hashes>( \\\n {4}--hash=sha256:[0-9a-f]{64})+)\n")


def pins(lines: list[str]) -> dict[str, str]:
    """Versions by their packages' names, of lines `name==version`."""
    found = [Requirement(line) for line in lines]
    return {canonicalize_name(one.name): str(one.specifier) for one in found}


def test_each_version_has_hashes_and_nothing_else_has() -> None:
    text = (ROOT / "constraints/hashes.txt").read_text()
    entries = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    assert ENTRY.sub("", entries) == ""  # no address, option or marker
    lines = [line for name in PINNED for line in (ROOT / name).read_text().splitlines() if re.match(r"\w", line)]
    assert pins([entry["pin"] for entry in ENTRY.finditer(entries)]) == pins(lines)


def test_all_pinned_versions_are_asked_for() -> None:
    others = {f"constraints/{path.name}" for path in (ROOT / "constraints").iterdir()} - set(PINNED)
    assert others == {"constraints/hashes.txt", "constraints/supply.txt"}  # tools that come into no image
    assert all(f" {name}" in (ROOT / "scripts/hashes.sh").read_text() for name in PINNED)
