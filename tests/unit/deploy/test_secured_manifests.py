"""The secured variants of both deployments: nobody is left out, and names, mounts and settings fit together."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from certificate_folders import SCRIPTS
from manifests import Manifest, base, combined, of_kind, overlay, workloads

from deploy import sizes
from newt.wire import callers, tls
from newt.wire.server import LIVENESS

ROOT = Path(__file__).resolve().parents[3]
PROBE = ["python", "-m", "newt.wire.probe"]


@pytest.fixture(scope="module")
def secured() -> list[Manifest]:
    return overlay("tls")


def first_container(workload: Manifest) -> dict[str, Any]:
    container: dict[str, Any] = workload["spec"]["template"]["spec"]["containers"][0]
    return container


def certificate_of(manifests: list[Manifest], workload: Manifest) -> Manifest:
    """The Certificate whose Secret the pods of a workload mount where NEWT_TLS_DIR says."""
    container, pod = first_container(workload), workload["spec"]["template"]["spec"]
    folder = {entry["name"]: entry.get("value") for entry in container["env"]}["NEWT_TLS_DIR"]
    (mount,) = (mount for mount in container["volumeMounts"] if mount["mountPath"] == folder)
    assert mount["readOnly"] is True
    (volume,) = (volume for volume in pod["volumes"] if volume["name"] == mount["name"])
    assert volume["secret"]["defaultMode"] == 0o440, "the key is for the pod's own group, which fsGroup makes ours"
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]
    secret = volume["secret"]["secretName"]
    (certificate,) = (
        item for item in of_kind(manifests, "Certificate").values() if item["spec"]["secretName"] == secret
    )
    return certificate


def test_every_grpc_service_has_a_certificate_with_its_name(secured: list[Manifest]) -> None:
    makers = workloads(secured)
    assert len(makers) > 10
    for name, workload in makers.items():
        if name == "redis":
            continue
        spec = certificate_of(secured, workload)["spec"]
        assert {name, f"{name}.newt.svc.cluster.local"} <= set(spec["dnsNames"]), name
        assert spec["ipAddresses"] == ["127.0.0.1"], "for the probes"
        assert {"server auth", "client auth"} <= set(spec["usages"]), name
        assert not spec.get("isCA"), name


def test_each_component_may_do_what_it_does_and_no_more(secured: list[Manifest]) -> None:
    certificates = of_kind(secured, "Certificate")
    deciding = {name for table in callers.CALLERS.values() for names in table.values() for name in names}
    for name, certificate in certificates.items():
        assert deciding & set(certificate["spec"].get("dnsNames", ())) == deciding & {name}
    assert deciding < set(certificates)


def test_further_nodes_call_replay_with_the_learners_certificate() -> None:
    built = combined("multi-node", "mtls")
    makers = workloads(built)
    assert certificate_of(built, makers["node"]) == certificate_of(built, makers["learner"])


def test_all_certificates_are_of_the_namespaces_own_authority(secured: list[Manifest]) -> None:
    issuers, certificates = of_kind(secured, "Issuer"), of_kind(secured, "Certificate")
    (authority,) = (item for item in certificates.values() if item["spec"].get("isCA"))
    assert issuers[authority["spec"]["issuerRef"]["name"]]["spec"] == {"selfSigned": {}}
    for name, certificate in certificates.items():
        if certificate is not authority:
            issuer = issuers[certificate["spec"]["issuerRef"]["name"]]
            assert issuer["spec"] == {"ca": {"secretName": authority["spec"]["secretName"]}}, name
    mounted = {
        volume.get("secret", {}).get("secretName")
        for workload in workloads(secured).values()
        for volume in workload["spec"]["template"]["spec"]["volumes"]
    }
    assert authority["spec"]["secretName"] not in mounted, "whoever has it can make certificates"


def test_containers_probe_themselves_where_the_cluster_cannot(secured: list[Manifest]) -> None:
    plain = workloads(base())
    for name, workload in workloads(secured).items():
        container = first_container(workload)
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            before = first_container(plain[name])[kind]
            if "grpc" not in before:
                assert container[kind] == before, name
                continue
            probe = container[kind]
            assert set(probe) & {"grpc", "exec"} == {"exec"}, name
            address = f"127.0.0.1:{before['grpc']['port']}"
            assert probe["exec"]["command"][:5] == [*PROBE, address, before["grpc"]["service"]], name
            assert before["grpc"]["service"] == LIVENESS or kind == "readinessProbe"
            limit_s = float(probe["exec"]["command"][-1])
            assert limit_s < probe["timeoutSeconds"] <= probe["periodSeconds"] or kind == "startupProbe", name


@pytest.mark.parametrize("name", ["tls", "ingress", "gateway"])
def test_what_is_reachable_from_outside_wants_a_token(name: str) -> None:
    sources = first_container(workloads(overlay(name))["learner"])["envFrom"]
    assert {"secretRef": {"name": "api-token", "optional": False}} in sources
    assert {"secretRef": {"name": "api-token", "optional": True}} in first_container(workloads(base())["learner"])[
        "envFrom"
    ]


# ---- compose


@pytest.fixture(scope="module")
def plain_compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return content


@pytest.fixture(scope="module")
def secure_compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "compose.secure.yaml").read_text())
    return content


def mounted(service: dict[str, Any]) -> dict[str, str]:
    """Path in the container by secret."""
    secrets = service.get("secrets", [])
    entries = [
        {"source": entry, "target": f"/run/secrets/{entry}"} if isinstance(entry, str) else entry for entry in secrets
    ]
    return {entry["source"]: entry["target"] for entry in entries}


def certificate_folder(service: str) -> str:
    """The folder of scripts/certificates.sh that a service's certificate comes from; a backup only asks for health."""
    return {"backup": "client"}.get(service, "sim" if service.startswith("sim-") else service)


def test_compose_leaves_no_service_of_ours_out(plain_compose: dict[str, Any], secure_compose: dict[str, Any]) -> None:
    ours = {
        name
        for name, service in plain_compose["services"].items()
        if service["image"].startswith(f"{sizes.NAMESPACE}/")
    }
    assert set(secure_compose["services"]) == ours | {"redis"}
    for name in ours:
        service = secure_compose["services"][name]
        folder = service["environment"]["NEWT_TLS_DIR"]
        whose = certificate_folder(name)
        files = {tls.CA: tls.CA, f"{whose}.crt": tls.CERTIFICATE, f"{whose}.key": tls.KEY}
        assert {source: f"{folder}/{file}" for source, file in files.items()}.items() <= mounted(service).items(), name
        for key, value in service["environment"].items():
            if key.endswith("_FILE"):
                assert value in mounted(service).values(), f"{name}: {key}"
            assert not re.search(r"://[^/]*:[^/]*@", value), f"{name}: {key} holds a password"
    assert {"api-token", "redis-password"} <= set(mounted(secure_compose["services"]["learner"]))


def test_nobody_elses_image_runs_as_ours(plain_compose: dict[str, Any]) -> None:
    for name, service in plain_compose["services"].items():
        if "build" in service:
            assert service["image"].startswith(f"{sizes.NAMESPACE}/"), name
            assert service["pull_policy"] == "never", name


def test_composes_redis_differs_by_its_users_alone(
    plain_compose: dict[str, Any], secure_compose: dict[str, Any]
) -> None:
    redis = secure_compose["services"]["redis"]
    users = mounted(redis)["redis-users.acl"]
    assert redis["command"] == [*plain_compose["services"]["redis"]["command"], "--aclfile", users]
    for name in ("replay", "learner"):
        key = f"NEWT_{name.upper()}_REDIS_URL"
        before = plain_compose["services"][name]["environment"][key]
        assert secure_compose["services"][name]["environment"][key] == before.replace("://", "://newt@")


def test_the_script_makes_what_compose_mounts(
    plain_compose: dict[str, Any], secure_compose: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "secrets"
    subprocess.run([SCRIPTS / "secrets.sh", folder], check=True, capture_output=True, timeout=60)
    files = {secret["file"].partition("}/")[2] for secret in secure_compose["secrets"].values()}
    made = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    shared = {"ca.key", "tls.crt", "tls.key"}  # the last two are for whoever does everything, which no container does
    assert {name for name in made - files if not name.endswith("/ca.crt")} == shared
    assert files <= made
    for name in files:
        assert (folder / name).stat().st_mode & 0o004, f"{name}: users of containers are others"
    for name, service in plain_compose["services"].items():
        if service["image"].startswith(f"{sizes.NAMESPACE}/") and name != "backup":
            shown = subprocess.run(
                ["openssl", "x509", "-in", folder / certificate_folder(name) / tls.CERTIFICATE, "-noout", "-text"],
                capture_output=True,
                text=True,
                timeout=60,
            ).stdout
            names = set(re.findall(r"DNS:([\w.-]+)", shown))
            assert name in names
            assert name.startswith("sim-") or not names & {"learner", "planner", "replay", "client"} - {name}
            assert "IP Address:127.0.0.1" in shown, "for the health checks"


def test_secrets_stay_out_of_git_and_images(tmp_path: Path) -> None:
    shutil.copy(ROOT / ".gitignore", tmp_path)  # the tree may be an exported one, which git knows nothing of
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True, timeout=60)
    ignored = subprocess.run(["git", "check-ignore", "secrets/tls.key"], cwd=tmp_path, capture_output=True, timeout=60)
    assert ignored.returncode == 0
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    assert kept[1] == "*", "everything is left out of the build's context but what is named"
    assert not [line for line in kept if line.startswith("!") and "secret" in line]
