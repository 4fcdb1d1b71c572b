"""Python environments of sources: one with requirements gets its own, all others are at home in ours.

An environment lies in `environments/` of Newt's home folder, under a name that is made of its requirements and of our
own Python. It holds what the requirements ask for beyond what is installed here; the rest, Newt included, is ours.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import newt
from newt.errors import PreconditionError
from newt.local.state import default_home
from newt.own.requirements import requirements

FOLDER = "environments"
INSTALL_TIMEOUT_S = 1800.0
_READY = "newt-ready"  # A file that an environment has when everything in it is there.
_LAST_LINES = 12


def python_of(source: str) -> str:
    """The interpreter for a source's code; makes its environment if it has requirements and there is none yet.

    Raises:
        InvalidInputError: Requirements that cannot be read.
        PreconditionError: They cannot be installed; says what pip says.
    """
    wanted = requirements(source)
    return str(environment(wanted)) if wanted else sys.executable


def environment(wanted: Sequence[str]) -> Path:
    """The interpreter of the environment with these requirements. Raises as `python_of`."""
    ours = [sys.version, sys.prefix, newt.__version__, *_our_folders()]
    key = hashlib.sha256("\n".join([*ours, "", *wanted]).encode()).hexdigest()[:16]
    folder = default_home().absolute() / FOLDER / key
    python = folder / "bin" / "python"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder.with_suffix(".lock")):
        if not (folder / _READY).exists():
            shutil.rmtree(folder, ignore_errors=True)  # what an interrupted installation has left
            try:
                _make(folder, python, wanted)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
    return python


def _make(folder: Path, python: Path, wanted: Sequence[str]) -> None:
    _run([sys.executable, "-m", "venv", "--without-pip", str(folder)], wanted)
    (packages,) = folder.glob("lib/python*/site-packages")
    # Ours come behind its own, so that what is installed here counts as installed there, and other versions win.
    lines = [f"import site; site.addsitedir({path!r})" for path in _our_folders()]
    (packages / "newt-ours.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "--no-input"]
    _run([*pip, "install", "--quiet", *wanted], wanted)
    (folder / _READY).touch()


def _our_folders() -> list[str]:
    return list(
        dict.fromkeys(
            [
                *(sysconfig.get_path(kind) for kind in ("purelib", "platlib")),
                str(Path(newt.__file__).resolve().parents[1]),
            ]
        )
    )


def _run(command: list[str], wanted: Sequence[str]) -> None:
    # Its own variables alone: ours would put our packages first.
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    what = ", ".join(wanted)
    try:
        done = subprocess.run(
            command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise PreconditionError(f"installing {what} took more than {INSTALL_TIMEOUT_S:.0f} s") from error
    if done.returncode:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-_LAST_LINES:])
        raise PreconditionError(
            f"the requirements {what} cannot be installed; mend them, or pip's settings (an index that can be reached, "
            f"or PIP_FIND_LINKS with a folder of wheels), and try again:\n{last}"
        )


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process at a time makes an environment; the others find it made."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
