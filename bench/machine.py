"""Where and with what the figures were taken."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

_WRITTEN = ("bench/results", "docs/performance.md")  # by the benchmarks themselves
_PACKAGES = (
    "torch",
    "numpy",
    "grpcio",
    "protobuf",
    "redis",
    "gymnasium",
    "mujoco",
    "dm_control",
    "torchrl",
    "tensordict",
)


def describe() -> dict[str, object]:
    """Flat keys: commit, date, machine and versions."""
    versions: dict[str, object] = {"versions.python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[f"versions.{package}"] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[f"versions.{package}"] = "absent"
    return {
        "commit": commit(),
        "date": now(),
        "machine.processor": _processor(),
        "machine.cores": len(os.sched_getaffinity(0)),
        "machine.memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "machine.system": f"{platform.system()} {platform.release()}",
        **versions,
    }


def commit() -> str:
    """Short id of the checked-out commit, with `-dirty` if files differ from it other than benchmarks' own results."""
    folder = Path(__file__).resolve().parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=folder, capture_output=True, text=True, check=True
        )
        differs = subprocess.run(
            ["git", "diff", "--quiet", "HEAD", "--", ":/", *(f":(top,exclude){path}" for path in _WRITTEN)],
            cwd=folder,
            stderr=subprocess.DEVNULL,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("-dirty" if differs.returncode else "")


def now() -> str:
    """The present in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def load() -> float:
    """Processes that wanted to run during the last minute: far from 0 before a start means that others disturb."""
    return os.getloadavg()[0]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
