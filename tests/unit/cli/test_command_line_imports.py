"""The command line starts fast, and needs no more than its extra says."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULES = {"pydantic-settings": "pydantic_settings"}
PACKAGES = {"yaml": "pyyaml", "markdown_it": "markdown-it-py"}
EVERYWHERE = {requirement.split(">")[0] for requirement in PROJECT["dependencies"]}


def imported_by(code: str, *blocked: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter has after `code`; importing a blocked one fails."""
    blocks = f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\n"
    script = f"{blocks}{code}\nprint(*sorted(name for name, module in sys.modules.items() if module))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["newt.cli.main", "newt.runs.record", "newt.runs.spec", "newt.agent.config"])
def test_no_torch_is_imported(module: str) -> None:
    loaded = imported_by(f"import {module}")
    assert module in loaded
    assert not {"torch", "matplotlib", "gymnasium", "safetensors"} & loaded


def test_the_command_line_works_with_its_extra_alone() -> None:
    extras = PROJECT["optional-dependencies"]
    others = {re.split(r"[\[>=<]", item)[0] for name in ("wire", "agent", "client", "learner") for item in extras[name]}
    names = {"grpcio": "grpc", "grpcio-health-checking": "grpc_health", "protobuf": "google.protobuf"}
    own = {re.split(r"[>=<]", item)[0] for item in extras["cli"]}
    blocked = sorted({names.get(name, name.replace("-", "_")) for name in others - own - {"newt"}})
    assert {"torch", "grpc", "redis", "structlog"} <= set(blocked)
    imported_by("from newt.cli.main import app\nfrom newt.runs.spec import RunSpec", *blocked)


def test_the_extra_lists_exactly_what_the_command_line_imports() -> None:
    found = set()
    folders = [ROOT / "newt" / room for room in ("cli", "report")]
    for path in (*(path for folder in folders for path in folder.glob("*.py")), ROOT / "newt" / "runs" / "shelf.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    found = {PACKAGES.get(name, name) for name in found}
    third_party = found - set(sys.stdlib_module_names) - {"newt", "services"}
    listed = {re.split(r"[>=<]", item)[0] for item in PROJECT["optional-dependencies"]["cli"]}
    assert third_party - EVERYWHERE == listed


def test_a_command_that_needs_more_says_what() -> None:
    script = (
        "import sys\nsys.modules['torch'] = None\n"
        "sys.argv = ['newt', 'checkpoints', 'inspect', 'file']\nfrom newt.cli.main import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.strip() == "newt: this command needs torch; install newt[cli,client,agent], or newt[local]"
