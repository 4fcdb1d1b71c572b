"""What a program needs to be installed that acts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
OTHERS = ("redis", "httpx", "typer", "rich", "yaml", "matplotlib", "transformers", "fastapi", "av", "PIL")
WIRE = ("grpc", "google.protobuf", "structlog", "prometheus_client", "gymnasium")


@pytest.mark.parametrize(
    ("code", "absent"),
    [("from newt.agent import Agent", WIRE), ("from newt.client import RemoteAgent", ("torch", "safetensors"))],
    ids=["torch alone", "no torch"],
)
def test_an_agent_needs_no_more_than_its_extra(code: str, absent: tuple[str, ...]) -> None:
    script = f"import sys\nfor name in {OTHERS + absent!r}: sys.modules[name] = None\n{code}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
