"""The wheel of this tree in a virtual environment of its own; what it depends on is that of the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]


def install(folder: Path) -> Path:
    """Builds the wheel and installs it; returns the environment's folder of programs."""
    source = folder / "source"
    for name in ("newt", "services"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    _call([*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder), str(source)])
    shutil.rmtree(source)
    _call([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")])
    python = str(folder / "venv" / "bin" / "python")
    (wheel,) = folder.glob("newt-*.whl")
    _call([*pip, "--python", python, "install", "--no-deps", "--no-index", str(wheel)])
    # Its folders alone: what installs this repository there is a .pth file, which is not read.
    packages = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    (site / "tests.pth").write_text("\n".join(packages) + "\n")
    return folder / "venv" / "bin"


def environment(**more: str) -> dict[str, str]:
    """Variables of somebody who has nothing of ours set, and whose home cannot be written."""
    ours = {name for name in os.environ if name.startswith("NEWT_") or name in ("PYTHONPATH", "PYTHONHOME")}
    return {**{name: value for name, value in os.environ.items() if name not in ours}, "HOME": "/proc/nobody", **more}


def _call(command: list[str]) -> None:
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr
