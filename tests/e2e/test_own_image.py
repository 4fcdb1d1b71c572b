"""`newt env image` on a Docker engine: the image is built on ours, and serves its task as compose confines it.

Once as it is, and once with mutual TLS: its health check then has the simulator's certificate, and the program that
asks has a client's, since a simulator may call nobody.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from compose_stack import BUILD_TIMEOUT_S, IMAGES, ROOT, build, compose, engine, require
from docker.errors import ImageNotFound

from newt.own.images import BASE_IMAGE

NEEDED = "iniconfig"  # small, of Python alone, and not in our image
# What a simulator must do, asked from within: the network of compose may be another machine's.
PROGRAM = """
from newt.client import RemoteEnv, SimClient
from newt.client.compliance import choose, examine

address = "127.0.0.1:50051"
with SimClient(address, 60.0) as client:
    for one in examine(client, choose(client, ())):
        if one.outcome == "failed" and one.required:
            print("wrong:", one.task, one.name, one.detail)
with RemoteEnv("my-arm", address=address) as env:
    env.reset(seed=1)
    obs, reward, *_ = env.step(env.action_space.sample())
    print("stepped:", obs.shape, reward < 0)
"""
# With mutual TLS the program that asks is a client; its certificate lies where nothing else in the container looks.
CLIENT_TLS_DIR = "/run/secrets/client"
AS_CLIENT = f"""
services:
  sim-my-arm:
    secrets:
      - {{source: ca.crt, target: {CLIENT_TLS_DIR}/ca.crt}}
      - {{source: client.crt, target: {CLIENT_TLS_DIR}/tls.crt}}
      - {{source: client.key, target: {CLIENT_TLS_DIR}/tls.key}}
"""

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(BUILD_TIMEOUT_S + 400)]


def newt(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "newt.cli.main", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_a_task_of_ones_own_is_served_by_its_image(tmp_path: Path) -> None:
    client = engine()
    if os.environ.get("NEWT_TEST_BUILD") != "0":
        require(client, IMAGES["NEWT_BUILD_IMAGE"], IMAGES["NEWT_PYTHON_IMAGE"])
        build("sim-mujoco", environment={})
    try:
        client.images.get(BASE_IMAGE)
    except ImageNotFound:
        pytest.skip(f"NEWT_TEST_BUILD=0, and {BASE_IMAGE} is not built")
    newt(tmp_path, "env", "init", "my_arm")
    file = tmp_path / "my_arm" / "env.py"
    text = file.read_text().replace("import gymnasium\n", f"import gymnasium\nimport {NEEDED}  # noqa: F401\n", 1)
    file.write_text(
        text.replace("    expert=expert,\n", f'    expert=expert,\n    requirements=["{NEEDED}==2.0.0"],\n')
    )
    output = newt(tmp_path, "env", "image", "./my_arm")
    assert "built: localhost/newt/sim-my-arm:" in output
    written = tmp_path / "my-arm-image"
    plain = [ROOT / "compose.yaml", written / "compose.yaml"]
    as_client = tmp_path / "as-client.yaml"
    as_client.write_text(AS_CLIENT)
    secure = [*plain, ROOT / "compose.secure.yaml", written / "compose.secure.yaml", as_client]
    scripts, secrets = ROOT / "scripts", tmp_path / "secrets"
    subprocess.run([scripts / "secrets.sh", secrets], check=True, capture_output=True, timeout=60)
    renew = [scripts / "certificates.sh", "--renew", secrets, "sim-my-arm"]
    subprocess.run(renew, check=True, capture_output=True, timeout=60)
    try:
        assert served(plain, secrets) == ["stepped: (8,) True"]
        assert served(secure, secrets, tls=CLIENT_TLS_DIR) == ["stepped: (8,) True"]
    finally:
        client.images.remove("localhost/newt/sim-my-arm:" + BASE_IMAGE.rpartition(":")[2], force=True)


def served(files: Sequence[Path], secrets: Path, *, tls: str | None = None) -> list[str]:
    """What the program prints in a container of the simulator that compose starts from some files.

    It shows the certificate in the container's folder `tls`, if that is named.
    """
    environment = {
        "COMPOSE_PROJECT_NAME": f"newt-own-{os.getpid()}",
        "COMPOSE_FILE": os.pathsep.join(map(str, files)),
        "NEWT_COMPOSE_SIM_WORKERS": "1",
        "NEWT_COMPOSE_SECRETS": str(secrets),
    }
    try:
        compose("up", "--no-build", "--detach", "--wait", "sim-my-arm", environment=environment, timeout_s=600)
        certified = ("--env", f"NEWT_TLS_DIR={tls}") if tls else ()
        ask = ("exec", "--no-TTY", *certified, "sim-my-arm", "python", "-c", PROGRAM)
        return compose(*ask, environment=environment, timeout_s=300).splitlines()
    finally:
        compose("down", "--volumes", "--timeout", "20", environment=environment, timeout_s=200)
