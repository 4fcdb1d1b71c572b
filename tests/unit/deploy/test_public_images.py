"""Images of others: the same in every file, with a digest, and where Renovate finds them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SETTING = re.compile(r"(NEWT_\w+_IMAGE)(?::-|=)([^\s}]+)")
EXAMPLE = dict(SETTING.findall((ROOT / ".env.example").read_text()))
# docs/security.md says why.
WITHOUT_DIGEST = {"NEWT_HAPROXY_IMAGE"}
COMPOSE = sorted(ROOT.glob("compose*.yaml"))
MANIFESTS = sorted(path for path in (ROOT / "deploy").rglob("*.yaml") if "templates" not in path.parts)


@pytest.mark.parametrize("setting", EXAMPLE)
def test_an_image_has_a_version_and_a_digest(setting: str) -> None:
    digest = "" if setting in WITHOUT_DIGEST else r"@sha256:[0-9a-f]{64}"
    assert re.fullmatch(rf"[a-z0-9./-]+:[\w.-]*\d[\w.-]*{digest}", EXAMPLE[setting])


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_compose_names_what_the_example_names(path: Path) -> None:
    text = path.read_text()
    assert set(SETTING.findall(text)) <= set(EXAMPLE.items())
    images = re.findall(r"^ +image: *(\S+)", text, re.MULTILINE)
    assert all(image.startswith(("localhost/newt/", "${NEWT_")) for image in images)


def test_the_dockerfile_builds_on_the_same() -> None:
    (image,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert image == EXAMPLE["NEWT_PYTHON_IMAGE"] == EXAMPLE["NEWT_BUILD_IMAGE"]


def test_kubernetes_runs_the_same() -> None:
    images = {
        image
        for path in MANIFESTS
        for image in re.findall(r'^[ -]+image: *"?([^\s"]+)', path.read_text(), re.MULTILINE)
    }
    assert {image for image in images if not image.startswith("localhost/newt/")} == {EXAMPLE["NEWT_REDIS_IMAGE"]}


def test_renovate_finds_every_setting() -> None:
    (manager,) = json.loads((ROOT / "renovate.json").read_text())["customManagers"]
    files = [re.compile(pattern.strip("/")) for pattern in manager["managerFilePatterns"]]
    (pattern,) = manager["matchStrings"]
    finds = re.compile(pattern.replace("(?<", "(?P<"))
    for path in (ROOT / ".env.example", *COMPOSE):
        assert any(file.search(path.name) for file in files)
        text = path.read_text()
        found = [(match["depName"], match["currentValue"], match["currentDigest"]) for match in finds.finditer(text)]
        expected = [re.split("[:@]", image, maxsplit=2) for _, image in SETTING.findall(text)]
        assert found == [(name, tag, *(digest or [None])) for name, tag, *digest in expected]
