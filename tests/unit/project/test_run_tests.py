"""`scripts/run-tests.sh`, on a small project: what fails by accident is told from what fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TESTS = """
import pathlib
import pytest

def test_that_passes(): assert {others}

def test_that_fails_once():
    seen = pathlib.Path("seen")
    again = seen.exists()
    seen.touch()
    assert again

@pytest.mark.long
def test_of_breadth(): assert {breadth}

@pytest.mark.docker
def test_of_the_engine(): assert {engine}
"""


def run(
    folder: Path,
    *,
    others: bool = True,
    breadth: bool = True,
    engine: bool = True,
    most_again: str = "8",
    until: str = "",
) -> subprocess.CompletedProcess[str]:
    for part in ("scripts", "tests"):
        (folder / part).mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "run-tests.sh", folder / "scripts")
    shutil.copy(ROOT / "tests" / "conftest.py", folder / "tests")
    (folder / "tests/test_small.py").write_text(TESTS.format(others=others, breadth=breadth, engine=engine))
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    docker: of the engine\n    long: of breadth\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run(
        [str(folder / "scripts" / "run-tests.sh"), "fast", "long", "engine"],
        # Other plugins take a second to load each time.
        env={
            **environment,
            "PYTHON": sys.executable,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTEST_ADDOPTS": "-p xdist.plugin -ra",
            "MOST_AGAIN": most_again,
            "NEWT_TEST_UNTIL": until,
        },
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_what_fails_by_accident_is_named_and_passes(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed beside others, passed alone:\ntests/test_small.py::test_that_fails_once\n" in done.stdout


@pytest.mark.parametrize(
    ("broken", "name"),
    [
        ({"others": False}, "test_that_passes"),
        ({"breadth": False}, "test_of_breadth"),
        ({"engine": False}, "test_of_the_engine"),
    ],
)
def test_what_fails_twice_has_failed(tmp_path: Path, broken: dict[str, bool], name: str) -> None:
    """In whichever part; the others are run all the same."""
    done = run(tmp_path, **broken)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.count(f"{name} - assert False") == 2
    assert "1 passed, 3 deselected" in done.stdout or "1 failed, 3 deselected" in done.stdout  # the engine's


def test_many_failures_are_no_accident(tmp_path: Path) -> None:
    done = run(tmp_path, others=False, most_again="1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "once more" not in done.stdout


def test_what_is_not_begun_in_time_is_counted_with_the_reason(tmp_path: Path) -> None:
    """Of the parts that may be cut short; what everybody runs is not one of them."""
    done = run(tmp_path, others=False, breadth=False, until="1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.count("test_that_passes - assert False") == 2
    assert done.stdout.count("SKIPPED [1] tests/conftest.py") == 2
    assert done.stdout.count("the time for this part of the tests is used up") == 2
