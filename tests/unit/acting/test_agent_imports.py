"""What a program needs to be installed that acts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
OTHERS = ("redis", "httpx", "typer", "rich", "yaml", "matplotlib", "transformers", "fastapi", "av", "PIL")
EVERY_CLIENT = """
import importlib, pkgutil, newt.client
for module in pkgutil.iter_modules(newt.client.__path__):
    if module.name != "stable_baselines3":  # of that library's users
        importlib.import_module("newt.client." + module.name)
"""
WIRE = ("grpc", "google.protobuf", "structlog", "prometheus_client", "gymnasium")


@pytest.mark.parametrize(
    ("code", "absent"),
    [("from newt.agent import Agent", WIRE), (EVERY_CLIENT, ("torch", "safetensors", "stable_baselines3"))],
    ids=["torch alone", "no torch"],
)
def test_an_agent_needs_no_more_than_its_extra(code: str, absent: tuple[str, ...]) -> None:
    script = f"import sys\nfor name in {OTHERS + absent!r}: sys.modules[name] = None\n{code}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
