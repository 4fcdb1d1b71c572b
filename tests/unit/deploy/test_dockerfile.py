"""The Dockerfile: what its stages take in, and what its images say of themselves. What they hold: tests/e2e."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import newt

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


# Each stage's instructions by its name.
STAGES = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", DOCKERFILE, flags=re.MULTILINE | re.DOTALL))


def copied(stage: str) -> set[str]:
    """What a stage copies from the project's folder."""
    lines = [
        line.split()[1:-1] for line in STAGES[stage].splitlines() if line.startswith("COPY ") and "--from" not in line
    ]
    return {name for names in lines for name in names}


def test_a_change_of_a_text_installs_no_dependency_again() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = {project["readme"], *project["license-files"]}
    assert copied("metadata") == {"constraints", "deploy/images/install.sh", "pyproject.toml"}
    assert texts <= copied("wheel")
    (touched,) = re.findall(r"touch (.+) &&", DOCKERFILE)  # so that they are there, and empty
    assert set(touched.split()) == texts


def test_a_change_of_our_code_changes_the_last_files_of_an_image_alone() -> None:
    assert copied("dependencies") == {"constraints", "constraints.txt", "deploy/images/install.sh"}
    assert "from=wheel" not in STAGES["dependencies"]
    ours = {name: re.findall(r"--from=(\w+) /opt/newt /opt/newt", body) for name, body in STAGES.items()}
    with_code = {name: sources for name, sources in ours.items() if "code" in sources}
    assert with_code.keys() == {"replay", "planner", "learner", "sim", "assets"}
    assert with_code.pop("assets") == ["code"]  # from the stage `dependencies`
    assert all(sources == ["dependencies", "code"] for sources in with_code.values())


def test_images_name_version_and_licence() -> None:
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"$]*)"', DOCKERFILE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert labels["version"] == newt.__version__ == project["version"]
    assert labels["licenses"] == project["license"]
