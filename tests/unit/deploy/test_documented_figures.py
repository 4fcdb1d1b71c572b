"""What guides and settings say in numbers of their own is what the files they quote have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from newt.cli import tour
from newt.runs.spec import RunSpec

ROOT = Path(__file__).resolve().parents[3]


def result(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "bench" / "results" / f"{name}.json").read_text())
    return content


def number(file: str, pattern: str) -> float:
    """The one number that a text has where the pattern's group is."""
    (found,) = re.findall(pattern, (ROOT / file).read_text())
    return float(found.replace(",", ""))


def test_redis_takes_what_the_load_generator_measured() -> None:
    measured = result("load")["per_env_step"]["bytes"]["kept in Redis"] * 10e6 / 1e9
    for file in (".env.example", "README.md"):
        assert number(file, r"about ([\d.]+) GB (?:of Redis )?per 10 M transitions") == round(measured, 1), file


def test_what_simulating_costs_follows_from_its_speed() -> None:
    quoted = number("docs/scaling.md", r"2 cores / ([\d,]+) steps/s")
    assert number("docs/scaling.md", r"simulators \| ([\d.]+) ms") == round(2000 / quoted, 1)
    assert number("docs/scaling.md", r"simulators \| ([\d.]+) cores if all") == round(1157 * 2 / quoted, 1)


def test_the_example_is_the_tours_run() -> None:
    example = json.loads((ROOT / "examples" / "run.json").read_text())
    assert example == {"name": "example", "seed": 1, **tour.RUN}
    assert RunSpec.model_validate(example).demos.scripted_tasks == ["metaworld"]
