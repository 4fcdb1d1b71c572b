"""Wheels of one module, written by hand: pip installs them without building anything or asking anybody."""

from __future__ import annotations

import zipfile
from pathlib import Path


def write(folder: Path, name: str, text: str, entry_points: str = "") -> Path:
    """Writes NAME-1.0-py3-none-any.whl with a module NAME.py in it; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path, info = folder / f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": text,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": entry_points,
    }
    files[f"{info}/RECORD"] = "".join(f"{one},,\n" for one in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as wheel:
        for one, content in files.items():
            wheel.writestr(one, content)
    return path
