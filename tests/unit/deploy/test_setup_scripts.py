"""What `make` finds on a fresh machine, and what it asks for, with stand-ins for its programs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BARE = f'exec {sys.executable} "$@"'  # a Python that works
SHIM = "echo 'pyenv: command not found' >&2; exit 127"
OLD = f'test "$1" = --version && echo Python 3.9.2 && exit; exec {sys.executable} -c "import sys; sys.exit(1)"'
# As Debian's, which comes without the module that makes virtual environments.
NO_VENV = f'case "$2" in *ensurepip*) exit 1;; esac; exec {sys.executable} "$@"'


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder of programs, with what the scripts themselves need."""
    for name in ("sh", "dirname", "grep", "cat"):
        (tmp_path / name).symlink_to(Path("/bin") / name)
    return tmp_path


def add(machine: Path, programs: Mapping[str, str]) -> None:
    for name, script in programs.items():
        (machine / name).write_text(f"#!/bin/sh\n{script}\n")
        (machine / name).chmod(0o755)


def run(machine: Path, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "scripts" / script), *arguments],
        env={"PATH": str(machine), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("programs", "found"),
    [
        ({"python3.11": BARE}, "python3.11"),
        ({"python3.11": BARE, "python3.13": BARE}, "python3.13"),
        ({"python3.11": BARE, "python3.12": SHIM, "python3.13": OLD}, "python3.11"),
        ({"python3": BARE}, "python3"),
        ({"python3.12": BARE, "python3.13": NO_VENV, "python3": OLD}, "python3.12"),
        ({"python3.13": NO_VENV}, "python3.13"),
        ({"python3": OLD, "uv": "echo /there/python"}, None),
    ],
)
def test_the_newest_python_that_works_is_found(machine: Path, programs: dict[str, str], found: str | None) -> None:
    add(machine, programs)
    done = run(machine, "find-python.sh")
    if found is not None:
        assert (done.returncode, done.stdout) == (0, f"{found}\n")
    else:
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1


def test_one_that_is_asked_for_is_taken_or_refused(machine: Path) -> None:
    add(machine, {"mine": BARE, "python3.13": BARE, "python3.9": OLD})
    assert run(machine, "find-python.sh", PYTHON3="mine").stdout == "mine\n"
    refused = run(machine, "find-python.sh", PYTHON3="python3.9")
    assert refused.returncode == 1
    assert "python3.9 is Python 3.9.2" in refused.stderr


def test_where_there_is_none_one_line_says_how_to_get_it(machine: Path) -> None:
    done = run(machine, "find-python.sh")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    for words in ("python3 is not here", "uv python install 3.12", "make PYTHON3="):
        assert words in done.stderr


@pytest.mark.parametrize("has_osmesa", [True, False])
def test_packages_have_the_names_of_the_release(machine: Path, has_osmesa: bool) -> None:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    log = machine / "installed"
    add(
        machine,
        {
            "python3.12": NO_VENV,
            "ldconfig": "true",
            "id": "echo 0",
            "apt-get": f'echo "$@" >> {log}',
            "apt-cache": "true" if has_osmesa else "exit 100",
        },
    )
    done = run(machine, "system-packages.sh", PYTHON3="python3.12")
    assert done.returncode == 0, done.stderr
    installed = log.read_text().splitlines()[-1].split()
    assert f"python{version}-venv" in installed
    assert ("libosmesa6" in installed) == has_osmesa
    assert ("libegl-mesa0" in installed) == (not has_osmesa)


def test_nothing_is_installed_where_all_is_there(machine: Path) -> None:
    add(machine, {"python3.12": BARE, "ldconfig": "echo libOSMesa.so.8", "apt-get": "exit 1"})
    done = run(machine, "system-packages.sh")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_apt_the_packages_are_named(machine: Path) -> None:
    add(machine, {"python3.12": BARE, "ldconfig": "true"})
    done = run(machine, "system-packages.sh")
    assert done.returncode == 1
    assert "libosmesa6" in done.stdout
    assert "No apt-get here" in done.stderr


@pytest.mark.parametrize(
    ("programs", "installed"),
    [
        ({"docker": "true"}, True),
        ({"docker": "true", "podman": "true"}, False),
        ({}, False),
        ({"docker": "true", "id": "echo 1000"}, False),
        ({"docker": "true", "apt-cache": "exit 100"}, False),  # an older release
    ],
)
def test_podman_is_installed_beside_an_engine(machine: Path, programs: dict[str, str], installed: bool) -> None:
    log = machine / "installed"
    apt = {"apt-get": f'echo "$@" >> {log}', "apt-cache": "true"}
    add(machine, {"python3.12": BARE, "ldconfig": "echo libOSMesa.so.8", "id": "echo 0", **apt, **programs})
    done = run(machine, "system-packages.sh", "--engine", PYTHON3="python3.12")
    assert done.returncode == 0, done.stderr
    assert ("podman" in (log.read_text() if log.exists() else "").split()) == installed
