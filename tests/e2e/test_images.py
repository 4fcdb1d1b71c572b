"""Every image of ours: its size, and for simulators a life in a confined container of their own.

The images of services other than simulators are started by test_compose.py.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from compose_stack import BUILD_TIMEOUT_S, IMAGES, build, engine, require, wait_for
from docker.errors import ImageNotFound
from docker.models.containers import Container
from docker.models.images import Image

from deploy import sizes
from newt.tasks.domains import DOMAINS

# Growth beyond this is either an accident or belongs into sizes.json (`python -m deploy.sizes`).
TOLERANCE = 1.15
SIMS = sorted({domain.service for domain in DOMAINS.values()})
WITH_TORCH = {"planner", "learner", "sim-maniskill"}
GRACE_S = 10  # of compose.yaml
DISK_GB = 16  # that all images and the caches of their builds take, at most

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(BUILD_TIMEOUT_S + 400)]


@pytest.fixture(scope="module")
def client() -> docker.DockerClient:
    """The engine, with all images built; ManiSkill's without meshes, unless there is one that has them."""
    client = engine()
    wanted = [service for service in sizes.services() if not has_meshes(client, service)]
    if os.environ.get("NEWT_TEST_BUILD") != "0":
        require(client, IMAGES["NEWT_BUILD_IMAGE"], IMAGES["NEWT_PYTHON_IMAGE"])
        root = Path(client.info()["DockerRootDir"])  # elsewhere, if the engine has a machine of its own
        free_gb = shutil.disk_usage(root if root.exists() else "/").free / 1e9
        if free_gb < DISK_GB:
            pytest.skip(f"{free_gb:.0f} GB of disk are free; the images of all domains may take {DISK_GB}")
        build(*wanted, environment={"NEWT_COMPOSE_MANISKILL_ASSETS": "none"})
    return client


def has_meshes(client: docker.DockerClient, service: str) -> bool:
    """Whether the image has the meshes that ManiSkill's owners serve, and that tests do not fetch."""
    try:
        return bool(client.images.get(sizes.image(service)).labels.get("newt.assets", "none") != "none")
    except ImageNotFound:
        return False


def built(client: docker.DockerClient, service: str) -> Image:
    try:
        return client.images.get(sizes.image(service))
    except ImageNotFound:
        pytest.skip(f"NEWT_TEST_BUILD=0, and {sizes.image(service)} is not built")


@pytest.mark.parametrize("service", sizes.services())
def test_no_image_has_grown(client: docker.DockerClient, service: str) -> None:
    image = built(client, service)
    if has_meshes(client, service):
        pytest.skip("the recorded size is that without meshes")
    size = image.attrs["Size"] / 1e6
    assert size <= TOLERANCE * sizes.recorded()[service]


@pytest.mark.parametrize("service", sizes.services())
def test_an_image_says_what_it_is_and_how_to_ask_it(client: docker.DockerClient, service: str) -> None:
    config = built(client, service).attrs["Config"]
    assert config["Labels"]["org.opencontainers.image.title"] == f"newt-{service}"
    assert config["Labels"]["org.opencontainers.image.description"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"][:4] == ["tini", "--", "python", "-m"]  # exec form: signals arrive
    assert config["Healthcheck"]["Test"][:4] == ["CMD", "python", "-m", "newt.wire.probe"]


@pytest.fixture(params=SIMS)
def simulator(request: pytest.FixtureRequest, client: docker.DockerClient) -> Iterator[tuple[str, Container]]:
    """A simulator's container, as compose.yaml confines it."""
    service = request.param
    built(client, service)
    container = client.containers.run(
        sizes.image(service),
        detach=True,
        read_only=True,
        tmpfs={"/tmp": ""},
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
        network_mode="none",
        mem_limit="4g",
        environment={"NEWT_SIM_WORKERS": "1", "OMP_NUM_THREADS": "1"},
    )
    try:
        yield service, container
    finally:
        container.remove(force=True, v=True)


def test_a_simulator_serves_confined_and_stops_in_time(simulator: tuple[str, Container]) -> None:
    service, container = simulator

    def health() -> str:
        container.reload()
        assert container.status == "running", container.logs(tail=20).decode()
        return str(container.attrs["State"]["Health"]["Status"])

    # It serves when a task of each of its domains has taken a real step.
    wait_for(lambda: health() == "healthy", f"{service} healthy", 240)
    assert container.exec_run(["id", "-u"]).output.strip() == b"10001"
    assert container.exec_run(["touch", "/opt/newt/written"]).exit_code != 0
    has_torch = container.exec_run(["python", "-c", "import torch"]).exit_code == 0
    assert has_torch == (service in WITH_TORCH)
    start = time.monotonic()
    container.stop(timeout=60)
    container.reload()
    assert container.attrs["State"]["ExitCode"] == 0, container.logs(tail=20).decode()
    assert time.monotonic() - start < GRACE_S
