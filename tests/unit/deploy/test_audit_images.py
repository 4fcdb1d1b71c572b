"""`make audit-images`, with stand-ins for scanners and engine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
NAMES = "localhost/newt/replay:1\nlocalhost/newt/planner:1\nredis:7\nredis:7"
ENGINE = f"""case "$*" in
*config*) printf '{NAMES}\\n' ;;
"image inspect localhost/newt/planner:1") exit 1 ;;
"image inspect "*) ;;
*) exit 9 ;;
esac"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder of programs, with what the script itself needs."""
    for name in ("sh", "dirname", "sort"):
        (tmp_path / name).symlink_to(Path("/usr/bin") / name)
    return tmp_path


def add(machine: Path, name: str, script: str) -> None:
    (machine / name).write_text(f"#!/bin/sh\n{script}\n")
    (machine / name).chmod(0o755)


def run(machine: Path, *images: str) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "scripts" / "audit-images.sh"), *images]
    return subprocess.run(command, env={"PATH": str(machine)}, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("scanner", ["trivy", "grype"])
def test_built_images_and_those_of_others_are_scanned_once(machine: Path, scanner: str) -> None:
    log = machine / "log"
    add(machine, "docker", ENGINE)
    add(machine, scanner, f'for last; do :; done; echo "$last" >> {log}')
    done = run(machine)
    assert done.returncode == 0, done.stderr
    assert log.read_text().split() == ["localhost/newt/replay:1", "redis:7"]
    assert "not built: localhost/newt/planner:1" in done.stdout


@pytest.mark.parametrize("scanner", ["trivy", "grype"])
def test_a_finding_fails_and_the_others_are_scanned(machine: Path, scanner: str) -> None:
    add(machine, scanner, 'for last; do :; done; test "$last" != bad:1')
    done = run(machine, "bad:1", "good:1")
    assert done.returncode == 1
    assert done.stderr.strip().endswith("could not be scanned: bad:1")
    assert "== good:1" in done.stdout
    assert run(machine, "good:1").returncode == 0


def test_without_a_scanner_one_error_says_so(machine: Path) -> None:
    done = run(machine, "some:1")
    assert done.returncode == 2
    assert "neither trivy nor grype is installed" in done.stderr


def test_without_an_engine_images_must_be_named(machine: Path) -> None:
    add(machine, "trivy", "true")
    assert "name some" in run(machine).stderr
    add(machine, "docker", "exit 1")
    assert "does not tell the images" in run(machine).stderr
