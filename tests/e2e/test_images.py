"""Every image of ours that the engine has: its size, and for simulators a life in a confined container of their own.

An image that is not built is skipped: `docker compose --profile all build` builds all. The images of services other
than simulators are started by test_compose.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import docker
import pytest
from compose_stack import engine, wait_for
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

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def client() -> docker.DockerClient:
    return engine()


def built(client: docker.DockerClient, service: str) -> Image:
    try:
        return client.images.get(sizes.image(service))
    except ImageNotFound:
        pytest.skip(f"{sizes.image(service)} is not built: docker compose build {service}")


@pytest.mark.parametrize("service", sizes.services())
def test_no_image_has_grown(client: docker.DockerClient, service: str) -> None:
    image = built(client, service)
    if image.labels.get("newt.assets", "none") != "none":
        pytest.skip("the recorded size is that without the meshes that ManiSkill's owners serve")
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
