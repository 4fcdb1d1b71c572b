"""Certificates for tests, made by the project's own script."""

from __future__ import annotations

import subprocess
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def make_certificates(folder: Path, *options: str) -> Path:
    """Fills a folder as NEWT_TLS_DIR wants it."""
    subprocess.run([SCRIPTS / "certificates.sh", *options, folder], check=True, capture_output=True, timeout=60)
    return folder
