"""Writes deploy/images/sizes.json: how large our images are (`python -m deploy.sizes`), for the docs and the test.

Needs a Docker engine that has built them with the CPU build of torch; images that it has not keep their recorded size.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import docker
import yaml
from docker.errors import ImageNotFound

import newt

ROOT = Path(__file__).resolve().parents[1]
# No registry has images under this name, so nobody else's can be pulled for ours.
NAMESPACE = "localhost/newt"
TARGET = ROOT / "deploy" / "images" / "sizes.json"


def services() -> list[str]:
    """Services of compose.yaml with an image of ours."""
    every = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    return [name for name, service in every.items() if "build" in service]


def image(service: str) -> str:
    """Name of a service's image."""
    return f"{NAMESPACE}/{service}:{newt.__version__}"


def recorded() -> dict[str, int]:
    """Megabytes of every image, as recorded."""
    sizes: dict[str, int] = json.loads(TARGET.read_text()) if TARGET.exists() else {}
    return sizes


def main() -> int:
    """Measures and writes; returns the exit status."""
    client = docker.from_env()
    sizes = recorded()
    for service in services():
        try:
            sizes[service] = round(client.images.get(image(service)).attrs["Size"] / 1e6)
        except ImageNotFound:
            print(f"{image(service)} is not built; its size stays {sizes.get(service)}", file=sys.stderr)
    known = {service: sizes[service] for service in services() if service in sizes}
    TARGET.write_text(json.dumps(known, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
