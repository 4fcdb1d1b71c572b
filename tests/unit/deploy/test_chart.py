"""The Helm chart, by Helm's own code: it installs what kustomize builds, and a wrong value is one clear error."""

from __future__ import annotations

import copy
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_releases import helm
from manifests import COMPONENTS, DEPLOY, Manifest, base, combined, of_kind, overlay
from test_manifest_schemas import VERSIONS, validate

import newt
from deploy.helm import chart
from deploy.helm.values import EXCLUSIVE, NEEDS, SWITCHES
from newt.tasks.domains import DOMAINS
from newt.wire.addresses import split_addresses

CHART = DEPLOY / "chart"
LAPTOP = yaml.safe_load((CHART / "values-laptop.yaml").read_text())
HOST = "newt.example.com"
SUM = "newt.dev/config"
# As the components of deploy/components are written: whoever uses those has to change them.
NAMES = {"ingress": {"host": HOST}, "gateway": {"host": HOST}}


def switched_on(*components: str) -> dict[str, Any]:
    """Values that ask for components."""
    values: dict[str, Any] = {key: dict(value) for key, value in NAMES.items()}
    for component in components:
        *parents, last = SWITCHES[component][0].split(".")
        node = values
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = True
    return values


def with_needed(component: str) -> tuple[str, ...]:
    """A component after the one that it is nothing without."""
    return (NEEDS[component], component) if component in NEEDS else (component,)


SECURED_GPU = ("gpu", "external-redis", "ingress", "ingress-tls", "mtls")
# But for the Redis that is not ours, which nothing can share with several replay services; and for the Job of the
# further nodes, which the learner makes then.
EVERYTHING = tuple(name for name in SWITCHES if name != "external-redis")
OTHER_REDIS_AND_JOB = tuple(name for name in SWITCHES if name not in ("replay-shards", "jobset"))
INSTALLED: dict[str, tuple[dict[str, Any], Callable[[], list[Manifest]]]] = {
    "defaults": ({}, base),
    "laptop": (LAPTOP, lambda: overlay("laptop")),
    "GPU, TLS, token, another Redis": (switched_on(*SECURED_GPU), lambda: combined(*SECURED_GPU)),
    "planner-replicas": (
        {"planner": {"spread": True, "replicas": {"min": 3, "max": 12}}},
        lambda: combined("planner-replicas"),
    ),
    **{name: (switched_on(*with_needed(name)), lambda name=name: combined(*with_needed(name))) for name in SWITCHES},
    "everything": (switched_on(*EVERYTHING), lambda: combined(*EVERYTHING)),
    "another Redis and a Job": (switched_on(*OTHER_REDIS_AND_JOB), lambda: combined(*OTHER_REDIS_AND_JOB)),
}
(DOCUMENTED,) = re.findall(
    r"```yaml\n(# mine.yaml.*?)```", (DEPLOY.parent / "docs" / "deployment.md").read_text(), re.DOTALL
)
OWN = {
    "image": {"registry": "registry.example.com/team", "tag": "7", "pullPolicy": "Always", "pullSecrets": ["a", "b"]},
    "learner": {
        "storage": {"size": "1Ti", "class": "fast"},
        "settings": {"NEWT_LEARNER_MAX_RESTARTS": "7"},
        "nodeSelector": {"disk": "nvme"},
    },
    "planner": {"replicas": {"min": 2, "max": 9}, "resources": {"limits": {"cpu": 6, "memory": "5Gi"}}},
    "redis": {"maxmemory": "12gb", "storage": {"class": "slow"}, "clientsSecret": "addresses"},
    "domains": {"atari": {"enabled": False}, "box2d": {"replicas": {"max": 2}, "nodeSelector": {"arch": "amd64"}}},
    "sims": {"nodeSelector": {"pool": "sims"}},
    "apiToken": {"secret": "token", "required": True},
    "gpu": {"enabled": True, "learner": 4, "sharedMemory": "9Gi", "runtimeClass": "nvidia"},
    "simGpus": {"enabled": True, "count": 2},
    "monitoring": {"namespace": "watchers"},
    "multiNode": {
        "enabled": True,
        "nodes": 4,
        "resources": {"limits": {"memory": "32Gi"}},
        "nodeSelector": {"pool": "trainers"},
    },
    "replay": {"resources": {"limits": {"memory": "20Gi"}}},
    "replayShards": {"enabled": True, "count": 5},
    "mtls": {"enabled": True},
    "backup": {
        "enabled": True,
        "s3": {"enabled": True, "place": "s3://mine/newt", "secret": "keys", "network": "10.2.0.0/16"},
    },
}
MADE_NODES = {
    **OWN,
    "jobSet": {"enabled": True, "clusterQueue": "team", "network": "10.3.0.1/32"},
}
WRONG = {
    "a word for a number of nodes": ({"multiNode": {"nodes": "two"}}, "/multiNode/nodes", "got string, want integer"),
    "a single node": ({"multiNode": {"nodes": 1}}, "/multiNode/nodes", "minimum: got 1, want 2"),
    "half a service": ({"replayShards": {"count": 2.5}}, "/replayShards/count", "got number, want integer"),
    "a switch for a group": ({"replayShards": True}, "/replayShards", "got boolean, want object"),
    "a group for a switch": ({"jobSet": {"enabled": {}}}, "/jobSet/enabled", "got object, want boolean"),
    "a number for a name": ({"jobSet": {"clusterQueue": 7}}, "/jobSet/clusterQueue", "got number, want string"),
    "no network": ({"jobSet": {"network": "everywhere"}}, "/jobSet/network", "does not match pattern"),
    "a registry that ends nowhere": (
        {"image": {"registry": "registry.example.com/"}},
        "/image/registry",
        "does not match",
    ),
    "a digest for a tag": ({"image": {"tag": "1@sha256:0"}}, "/image/tag", "does not match pattern"),
    "no name of a class": ({"gpu": {"runtimeClass": "NVIDIA!"}}, "/gpu/runtimeClass", "does not match pattern"),
    "a folder for a bucket": ({"backup": {"s3": {"place": "/backups"}}}, "/backup/s3/place", "does not match pattern"),
    "a list for a bucket": ({"backup": {"s3": {"place": []}}}, "/backup/s3/place", "got array, want string"),
    "a bucket without backups": ({"backup": {"s3": {"enabled": True}}}, "backup.s3.enabled needs backup.enabled"),
    "nodes that cannot meet": ({"jobSet": {"enabled": True}}, "jobSet.enabled needs multiNode.enabled"),
    "one Redis for several": (
        {"replayShards": {"enabled": True}, "externalRedis": {"enabled": True}},
        "replayShards.enabled and externalRedis.enabled exclude each other",
    ),
    "a word for a number": ({"planner": {"replicas": {"max": "many"}}}, "/planner/replicas/max", "got string"),
    "a number for a group": ({"planner": {"replicas": 3}}, "/planner/replicas", "got number, want object"),
    "a word for a switch": ({"gpu": {"enabled": "yes"}}, "/gpu/enabled", "got string, want boolean"),
    "no quantity": ({"redis": {"storage": {"size": "large"}}}, "/redis/storage/size", "does not match pattern"),
    "an unknown value": ({"learner": {"storrage": {}}}, "/learner", "'storrage' not allowed"),
    "an unknown domain": ({"domains": {"chess": {"enabled": True}}}, "/domains", "'chess' not allowed"),
    "a value taken away": ({"redis": {"image": None}}, "/redis", "missing property 'image'"),
    "more than the most": ({"planner": {"replicas": {"min": 5}}}, "planner.replicas.min is above planner.replicas.max"),
    "no host": ({"ingress": {"enabled": True}}, "ingress.host must be set"),
    "a certificate for nothing": ({"ingress": {"tls": {"enabled": True}}}, "ingress.tls.enabled needs ingress.enabled"),
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """All that Helm does in these tests, by one process of it."""
    out = tmp_path_factory.mktemp("package")
    install = {"do": "install", "chart": str(CHART)}
    jobs: dict[str, dict[str, Any]] = {
        "lint": {"do": "lint", "chart": str(CHART)},
        "package": {"do": "package", "chart": str(CHART), "out": str(out)},
        "own": {**install, "values": OWN},
        "made nodes": {**install, "values": MADE_NODES},
        "upgraded": {
            **install,
            "values": {"sims": {"settings": {"NEWT_SIM_DRAIN_S": "30"}}},
            "upgrade": {"planner": {"replicas": {"max": 9}}, "domains": {"atari": {"enabled": False}}},
        },
        "reconfigured": {**install, "values": {}, "upgrade": {"redis": {"maxmemory": "4gb"}}},
        "documented": {**install, "values": yaml.safe_load(DOCUMENTED)},
        "elsewhere": {**install, "values": switched_on(*EVERYTHING), "namespace": "elsewhere"},
        "digits": {**install, "values": switched_on(*EVERYTHING), "namespace": "2026"},
        **{name: {**install, "values": values} for name, (values, _) in INSTALLED.items()},
        **{name: {**install, "values": values} for name, (values, *_) in WRONG.items()},
    }
    return dict(zip(jobs, helm(*jobs.values()), strict=True))


def by_name(manifests: list[Manifest]) -> dict[str, Manifest]:
    return {f"{manifest['kind']}/{manifest['metadata']['name']}": manifest for manifest in manifests}


def plain(objects: list[Manifest]) -> dict[str, Manifest]:
    """What Helm sent, without the marks by which it knows what is its own."""
    for manifest in objects:
        metadata = manifest["metadata"]
        assert metadata["labels"].pop("app.kubernetes.io/managed-by", "Helm") == "Helm"
        for mark in ("meta.helm.sh/release-name", "meta.helm.sh/release-namespace"):
            metadata.get("annotations", {}).pop(mark, None)
        # Kustomize has a hash in the names of ConfigMaps instead.
        template = manifest.get("spec", {}).get("template", {})
        template.get("metadata", {}).get("annotations", {}).pop(SUM, None)
        for annotated in (metadata, template.get("metadata", {})):
            if not annotated.get("annotations", True):
                del annotated["annotations"]
    return by_name(objects)


def installed(done: dict[str, dict[str, Any]], name: str) -> dict[str, Manifest]:
    assert "error" not in done[name], done[name]["error"]
    return plain(copy.deepcopy(done[name]["objects"]))


def test_helm_finds_no_fault(done: dict[str, dict[str, Any]]) -> None:
    report = done["lint"]["result"]
    assert not report["Errors"]
    # 1 is information: a chart may have an icon.
    assert [message for message in report["Messages"] if message["Severity"] > 1] == []


@pytest.mark.parametrize("name", INSTALLED)
def test_what_is_installed_is_what_kustomize_builds(done: dict[str, dict[str, Any]], name: str) -> None:
    objects = installed(done, name)
    expected = by_name(INSTALLED[name][1]())
    del expected["Namespace/newt"]  # Helm's own: --create-namespace
    assert sorted(objects) == sorted(expected)
    for key, manifest in expected.items():
        assert objects[key] == manifest, key


def test_values_reach_their_fields(done: dict[str, dict[str, Any]]) -> None:
    objects = installed(done, "own")
    learner, planner = objects["StatefulSet/learner"]["spec"], objects["Deployment/planner"]["spec"]
    pod = learner["template"]["spec"]
    container = pod["containers"][0]
    assert (container["image"], container["imagePullPolicy"]) == ("registry.example.com/team/learner:7-cuda", "Always")
    assert objects["StatefulSet/replay"]["spec"]["template"]["spec"]["containers"][0]["image"].endswith("/replay:7")
    assert pod["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}]
    assert pod["nodeSelector"] == {"disk": "nvme"}
    assert container["envFrom"][1]["secretRef"] == {"name": "addresses", "optional": True}
    assert container["envFrom"][2]["secretRef"] == {"name": "token", "optional": False}
    assert container["envFrom"][-1] == {"configMapRef": {"name": "learner-settings"}}
    assert objects["ConfigMap/learner-settings"]["data"] == {"NEWT_LEARNER_MAX_RESTARTS": "7"}
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 4
    claim = learner["volumeClaimTemplates"][0]["spec"]
    assert (claim["resources"]["requests"]["storage"], claim["storageClassName"]) == ("1Ti", "fast")
    assert planner["template"]["spec"]["containers"][0]["resources"]["limits"] == {
        "cpu": "6",
        "memory": "5Gi",
        "nvidia.com/gpu": 1,
    }
    scaler = objects["HorizontalPodAutoscaler/planner"]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 9)
    assert objects["HorizontalPodAutoscaler/sim-box2d"]["spec"]["maxReplicas"] == 2
    assert not [name for name in objects if "atari" in name]
    nodes = {name: objects[f"Deployment/sim-{name}"]["spec"]["template"]["spec"] for name in ("box2d", "mujoco")}
    assert nodes["box2d"]["nodeSelector"] == {"arch": "amd64", "pool": "sims"}
    assert nodes["mujoco"]["nodeSelector"] == {"pool": "sims"}
    redis = objects["StatefulSet/redis"]["spec"]
    assert redis["volumeClaimTemplates"][0]["spec"]["storageClassName"] == "slow"
    assert "\nmaxmemory 12gb\n" in objects["ConfigMap/redis"]["data"]["redis.conf"]
    assert "imagePullPolicy" not in redis["template"]["spec"]["containers"][0]
    for with_gpus in (pod, planner["template"]["spec"], nodes["mujoco"]):
        assert with_gpus["runtimeClassName"] == "nvidia"
    assert nodes["mujoco"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert "runtimeClassName" not in redis["template"]["spec"]
    assert "watchers" in str(objects["NetworkPolicy/learner"])
    assert "monitoring" not in str(objects["NetworkPolicy/learner"])


def test_further_nodes_have_what_the_learner_has(done: dict[str, dict[str, Any]]) -> None:
    job = installed(done, "own")["Job/node"]["spec"]
    assert (job["completions"], job["parallelism"]) == (3, 3)
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == "registry.example.com/team/learner:7-cuda"
    assert container["resources"]["limits"] == {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": 4}
    assert container["envFrom"][1]["secretRef"]["name"] == "addresses"
    assert container["envFrom"][-1] == {"configMapRef": {"name": "learner-settings"}}
    (shared,) = (volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "shm")
    assert shared["sizeLimit"] == "9Gi"
    assert pod["nodeSelector"] == {"pool": "trainers"}
    assert pod["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}]
    # Kubernetes refuses other pods for a Job that is there.
    assert SUM not in str(of_kind(done["own"]["objects"], "Job"))


def test_the_learner_makes_the_nodes_that_a_job_would_have(done: dict[str, dict[str, Any]]) -> None:
    objects, before = installed(done, "made nodes"), installed(done, "own")
    assert set(before) - set(objects) == {"Job/node"}
    assert objects["PodTemplate/node"]["template"] == before["Job/node"]["spec"]["template"]
    assert objects["LocalQueue/newt"]["spec"] == {"clusterQueue": "team"}
    (rule,) = objects["NetworkPolicy/learner-cluster"]["spec"]["egress"]
    assert rule["to"] == [{"ipBlock": {"cidr": "10.3.0.1/32"}}]


def test_as_many_replay_services_as_the_values_say(done: dict[str, dict[str, Any]]) -> None:
    objects = installed(done, "own")
    assert "Deployment/replay" not in objects
    for name in ("replay", "redis"):
        assert objects[f"StatefulSet/{name}"]["spec"]["replicas"] == 5
    names = [f"replay-{number}.replay" for number in range(5)]
    config = objects["ConfigMap/learner"]["data"]
    assert split_addresses(config["NEWT_LEARNER_REPLAY"]) == [f"dns:///{name}:50061" for name in names]
    assert config["NEWT_BACKUP_SHARDS"].split(",") == [f"redis://redis-{number}.redis:6379/0" for number in range(1, 5)]
    assert objects["Certificate/replay"]["spec"]["dnsNames"][-5:] == names
    (container,) = objects["StatefulSet/replay"]["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["memory"] == "20Gi"


def test_a_backup_goes_into_the_bucket_of_the_values(done: dict[str, dict[str, Any]]) -> None:
    objects = installed(done, "own")
    pod = objects["CronJob/backup"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["env"] == [{"name": "NEWT_BACKUP_PLACE", "value": "s3://mine/newt"}]
    assert {"secretRef": {"name": "keys"}} in container["envFrom"]
    # It asks for Redis and the folder where the learner has them.
    assert container["envFrom"][-1] == {"configMapRef": {"name": "learner-settings"}}
    (rule,) = objects["NetworkPolicy/backup-s3"]["spec"]["egress"]
    assert rule["to"] == [{"ipBlock": {"cidr": "10.2.0.0/16"}}]


def test_every_component_is_in_the_chart() -> None:
    known = {name.split("/")[0] for name in SWITCHES}
    assert known == {*COMPONENTS, ".."} - {"laptop"}  # values-laptop.yaml
    assert {name for name in SWITCHES if name.startswith("..")} == {"../grafana"}


def test_what_needs_or_excludes_another_is_refused_otherwise() -> None:
    """Each pair that the chart checks is one of those that are tried."""
    pairs = {frozenset(SWITCHES[name][0] for name in pair) for pair in (*NEEDS.items(), *EXCLUSIVE)}
    tried = {frozenset(re.findall(r"[a-z]\w+(?:\.\w+)*\.enabled", expected[-1])) for _, *expected in WRONG.values()}
    assert pairs <= tried


def test_the_values_of_the_documentation(done: dict[str, dict[str, Any]]) -> None:
    objects = installed(done, "documented")
    assert objects["Ingress/learner"]["spec"]["tls"] == [{"hosts": [HOST], "secretName": "learner-tls"}]
    assert "StatefulSet/redis" not in objects
    assert "10.1.0.0/16" in str(objects["NetworkPolicy/external-redis"])


@pytest.mark.parametrize("version", VERSIONS)
def test_what_values_make_is_valid(done: dict[str, dict[str, Any]], version: str) -> None:
    for name in ("own", "made nodes", "documented"):
        validate(list(installed(done, name).values()), version)


def test_an_upgrade_changes_what_has_changed(done: dict[str, dict[str, Any]]) -> None:
    objects = installed(done, "upgraded")
    # Of disruption budgets, Kubernetes wants the whole selector in every patch, so Helm always sends that.
    patches = {
        path.rpartition("/")[2]: patch
        for path, patch in done["upgraded"]["patches"].items()
        if "poddisruptionbudgets" not in path
    }
    assert patches.pop("planner") == {"spec": {"maxReplicas": 9}}
    # These have no settings of their own any more.
    assert set(patches) == {name for name in of_kind(base(), "Deployment") if name.startswith("sim-")} - {"sim-atari"}
    removed = {path.rpartition("/")[2] for path in done["upgraded"]["removed"]}
    assert removed == {"sim-atari", "sim-settings"}
    assert not [name for name in objects if "atari" in name]


def test_what_a_config_map_says_reaches_the_pods_that_read_it(done: dict[str, dict[str, Any]]) -> None:
    patches = {
        path.rpartition("/v1/namespaces/newt/")[2]: patch for path, patch in done["reconfigured"]["patches"].items()
    }
    changed = {path: patch for path, patch in patches.items() if "poddisruptionbudgets" not in path}
    assert set(changed) == {"configmaps/redis", "statefulsets/redis"}
    assert set(changed["statefulsets/redis"]["spec"]["template"]["metadata"]["annotations"]) == {SUM}
    every = of_kind(done["everything"]["objects"], "Deployment", "StatefulSet")
    assert len(every) == len(DOMAINS) + 4
    for name, workload in every.items():
        assert len(workload["spec"]["template"]["metadata"]["annotations"][SUM]) == 64, name


def test_another_namespace(done: dict[str, dict[str, Any]]) -> None:
    objects = installed(done, "elsewhere")
    assert {manifest["metadata"]["namespace"] for manifest in objects.values()} == {"elsewhere"}
    config = objects["ConfigMap/learner"]["data"]
    host = "learner.elsewhere"
    hosts = ["learner", host, f"{host}.svc", f"{host}.svc.cluster.local"]
    assert json.loads(config["NEWT_LEARNER_ALLOWED_HOSTS"]) == hosts
    assert config["NEWT_LEARNER_NODE_NAMESPACE"] == "elsewhere"
    assert objects["RoleBinding/nodes"]["subjects"][0]["namespace"] == "elsewhere"
    assert "sim-atari.elsewhere.svc" in objects["Certificate/sim"]["spec"]["dnsNames"]
    for name, manifest in objects.items():
        text = str(manifest).replace("app.kubernetes.io/part-of': 'newt'", "").replace("newt.example.com", "")
        assert ".newt'" not in text, name
        assert ".newt.svc" not in text, name
        assert 'namespace="newt"' not in text, name


def test_a_namespace_of_digits_stays_a_text(done: dict[str, dict[str, Any]]) -> None:
    objects, others = installed(done, "digits"), installed(done, "elsewhere")
    assert {manifest["metadata"]["namespace"] for manifest in objects.values()} == {"2026"}
    assert objects == json.loads(json.dumps(others).replace("elsewhere", "2026"))


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_one_clear_error(done: dict[str, dict[str, Any]], name: str) -> None:
    _, *expected = WRONG[name]
    error = done[name]["error"]
    for part in expected:
        assert part in error
    assert error.count("\n- at") <= 1
    assert done[name]["objects"] == []


def test_all_templates_are_written_by_the_generator() -> None:
    """One of a component that is no longer there would stay, as the generator only writes."""
    written = {path.name for path in chart.files() if path.parent.name == "templates"}
    assert {path.name for path in (CHART / "templates").iterdir()} == written | {"NOTES.txt"}


def test_it_can_be_packaged(done: dict[str, dict[str, Any]]) -> None:
    archive = Path(done["package"]["result"])
    assert archive.name == f"newt-{newt.__version__}.tgz"
    with tarfile.open(archive) as files:
        names = {name.removeprefix("newt/") for name in files.getnames()}
    assert {"Chart.yaml", "values.yaml", "values.schema.json", "values-laptop.yaml", "templates/learner.yaml"} <= names


def test_the_laptop_runs_three_domains(done: dict[str, dict[str, Any]]) -> None:
    sims = [name for name in of_kind(done["laptop"]["objects"], "Deployment") if name.startswith("sim-")]
    assert sorted(sims) == ["sim-dmcontrol", "sim-metaworld", "sim-mujoco"]
