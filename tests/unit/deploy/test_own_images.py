"""What `newt env image` writes for somebody's own task: an image, compose and Kubernetes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from manifests import DEPLOY, Manifest, base, kustomized, of_kind
from test_manifest_schemas import VERSIONS, validate
from typer.testing import CliRunner

from newt.cli.main import app
from newt.errors import AlreadyExistsError, InvalidInputError
from services.learner.settings import LearnerSettings
from services.sim.settings import SimSettings

OWN_TASKS = Path(__file__).parents[2] / "support" / "own_tasks"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The written folder of the tasks of the tests."""
    out = tmp_path_factory.mktemp("image") / "own"
    newt(str(OWN_TASKS), "--out", str(out), "--requirement", "pillow>=11", "--write-only")
    return out


def newt(*arguments: str) -> str:
    return CliRunner().invoke(app, ["env", "image", *arguments], catch_exceptions=False).output


def test_the_image_has_the_source_and_what_it_needs(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (image / "Dockerfile").read_text().splitlines()
    assert (image / "requirements.txt").read_text() == "pillow>=11\n"
    assert (image / "source" / "own_tasks" / "env.py").read_text() == (OWN_TASKS / "env.py").read_text()
    assert not list(image.rglob("__pycache__"))
    variables = [part for line in lines if line.startswith("ENV") for part in line.removeprefix("ENV ").split()]
    for variable in variables:
        name, _, value = variable.partition("=")
        monkeypatch.setenv(name, value.strip("'"))
    settings = SimSettings()
    assert (settings.domains, settings.sources) == (("own",), ("/own/source/own_tasks",))
    assert lines.index("USER root") < lines.index("USER 10001:10001")


def test_compose_gets_a_simulator_and_its_learner_knows_it(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    services = yaml.safe_load((image / "compose.yaml").read_text())["services"]
    ours = yaml.safe_load((DEPLOY.parent / "compose.yaml").read_text())["services"]
    sim = services["sim-own-tasks"]
    assert Path(sim["build"]["context"]) == image
    for name in ("read_only", "cap_drop", "security_opt", "pull_policy", "logging", "tmpfs", "environment", "deploy"):
        assert sim[name] == ours["sim-mujoco"][name], name
    learner = {**ours["learner"]["environment"], **services["learner"]["environment"]}
    for name, value in learner.items():
        if "SIMS" in name:
            monkeypatch.setenv(name, value)
    sims = LearnerSettings().sims
    assert sims["own-tasks"] == "sim-own-tasks:50051"
    assert sims["mujoco"] == "sim-mujoco:50051"


def test_secured_compose_secures_it_as_it_does_ours(image: Path) -> None:
    services = yaml.safe_load((image / "compose.secure.yaml").read_text())["services"]
    ours = yaml.safe_load((DEPLOY.parent / "compose.secure.yaml").read_text())["services"]
    assert services == {"sim-own-tasks": ours["sim-mujoco"]}


def with_component(folder: Path, resources: Path, *components: Path) -> list[Manifest]:
    """What a kustomization in a folder sends."""
    here = folder.resolve()
    whole = {
        "resources": [os.path.relpath(resources, here)],
        "components": [os.path.relpath(component, here) for component in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(whole))
    return kustomized(folder)


def test_kubernetes_gets_a_component(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = base()
    changed = [manifest for manifest in with_component(tmp_path, DEPLOY / "k8s", image) if manifest not in plain]
    for version in VERSIONS:
        validate(changed, version)
    assert of_kind(changed, "Deployment").keys() == of_kind(changed, "Service").keys() == {"sim-own-tasks"}
    config = of_kind(changed, "ConfigMap")["learner"]["data"]
    for name, value in config.items():
        monkeypatch.setenv(name, value)
    assert {"own-tasks", "atari"} < LearnerSettings().sims.keys()
    template = of_kind(plain, "Deployment")["sim-mujoco"]["spec"]["template"]["spec"]
    own = of_kind(changed, "Deployment")["sim-own-tasks"]["spec"]["template"]["spec"]
    assert own["securityContext"] == template["securityContext"]


@pytest.mark.parametrize("order", ["overlay", "behind", "before"])
def test_a_secured_deployment_secures_it_as_it_does_ours(image: Path, tmp_path: Path, order: str) -> None:
    mtls = DEPLOY / "components" / "mtls"
    if order == "overlay":
        built = with_component(tmp_path, DEPLOY / "overlays" / "tls", image, image / "mtls")
    elif order == "behind":
        built = with_component(tmp_path, DEPLOY / "k8s", mtls, image, image / "mtls")
    else:
        built = with_component(tmp_path, DEPLOY / "k8s", image, mtls, image / "mtls")
    plain = base()
    for version in VERSIONS:
        validate([manifest for manifest in built if manifest not in plain], version)
    certificates = of_kind(built, "Certificate")
    own, ours = (certificates[name]["spec"] for name in ("sim-own-tasks", "sim"))
    host = "sim-own-tasks"
    assert own.pop("dnsNames") == [host, f"{host}.newt", f"{host}.newt.svc", f"{host}.newt.svc.cluster.local"]
    del ours["dnsNames"]
    assert own == {**ours, "secretName": "sim-own-tasks-certificate"}
    pods = {name: one["spec"]["template"]["spec"] for name, one in of_kind(built, "Deployment").items()}
    (container,), (reference,) = (pods[name]["containers"] for name in (host, "sim-mujoco"))
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe] == reference[probe], probe
    tls = [entry for entry in container["env"] if entry["name"] == "NEWT_TLS_DIR"]
    assert tls == [entry for entry in reference["env"] if entry["name"] == "NEWT_TLS_DIR"]
    by_path = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert by_path == {mount["mountPath"]: mount for mount in reference["volumeMounts"]}
    assert len(by_path) == len(container["volumeMounts"])
    volumes = {volume["name"]: volume for volume in pods[host]["volumes"]}
    assert len(volumes) == len(pods[host]["volumes"]) == 2
    assert volumes["certificate"]["secret"] == {"secretName": own["secretName"], "defaultMode": 0o440}


def test_what_cannot_be_an_image_is_refused(image: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="--name"):
        newt(str(OWN_TASKS), "--name", "My Arm", "--write-only")
    with pytest.raises(InvalidInputError, match="'mujoco' is a simulator of Newt's"):
        newt(str(OWN_TASKS), "--name", "mujoco", "--write-only")
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(AlreadyExistsError, match="not empty"):
        newt(str(OWN_TASKS), "--out", str(tmp_path), "--write-only")
    newt("gym:Pendulum-v1", "--out", str(image), "--write-only")  # written again: what was there has gone
    assert list((image / "source").iterdir()) == []
    assert "gym:Pendulum-v1" in (image / "Dockerfile").read_text()
