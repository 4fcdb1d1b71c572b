"""What no schema says: who runs as what, with which limits and probes, and who may call whom."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from manifests import (
    COMPONENTS,
    DEPLOY,
    OVERLAYS,
    Manifest,
    base,
    bytes_of,
    combined,
    cores_of,
    of_kind,
    overlay,
    workloads,
)

import newt
from deploy import sizes
from newt.tasks.domains import DOMAINS
from newt.wire.server import LIVENESS
from services.learner.settings import LearnerSettings
from services.planner.settings import PlannerSettings
from services.replay.settings import ReplaySettings
from services.sim.settings import SimSettings

# From, to, port; the arrows of docs/architecture.md.
ARROWS = {
    ("learner", "sim", 50051),
    ("learner", "planner", 50071),
    ("learner", "replay", 50061),
    ("learner", "redis", 6379),
    ("replay", "redis", 6379),
    ("planner", "learner", 50081),
}
SCRAPED = {("monitoring", component, 9100) for component in ("sim", "planner", "replay", "learner")}
NAMES = {(component, "kube-system", 53) for component in ("learner", "planner", "replay")}
SETTINGS = {"sim": SimSettings, "planner": PlannerSettings, "replay": ReplaySettings, "learner": LearnerSettings}
COMPONENT = "app.kubernetes.io/component"


@pytest.fixture(scope="module", params=["base", *OVERLAYS, "all components"])
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    if request.param == "all components":
        return combined(*COMPONENTS)
    return base() if request.param == "base" else overlay(request.param)


def containers(manifests: list[Manifest]) -> list[tuple[str, Manifest, Manifest]]:
    """Name of the workload, its pod's spec, each of its containers."""
    found = []
    for name, workload in workloads(manifests).items():
        pod = workload["spec"]["template"]["spec"]
        found += [(name, pod, container) for container in [*pod.get("initContainers", []), *pod["containers"]]]
    assert found
    return found


def restore(component: str) -> Manifest:
    """The Job that restores a backup, with the name that `kubectl apply -f` gives the learner's ConfigMap."""
    text = (DEPLOY / "components" / component / "restore.yaml").read_text()
    manifest: Manifest = yaml.safe_load(re.sub(r"\bCONFIG\b", "learner", text))
    return manifest


def environment(manifests: list[Manifest], container: Manifest) -> dict[str, str]:
    """Variables of a container; those that the cluster fills in are a number."""
    maps = of_kind(manifests, "ConfigMap")
    values: dict[str, str] = {}
    for source in container.get("envFrom", []):
        if "configMapRef" in source:
            values |= maps[source["configMapRef"]["name"]]["data"]
    return values | {entry["name"]: entry.get("value", "4") for entry in container.get("env", [])}


def test_pods_meet_the_restricted_profile(manifests: list[Manifest]) -> None:
    for name, pod, container in containers(manifests):
        own, inside = pod["securityContext"], container["securityContext"]
        assert own["runAsNonRoot"] is True, name
        assert own["runAsUser"] > 0, name
        assert own["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert inside["allowPrivilegeEscalation"] is False, name
        assert inside["readOnlyRootFilesystem"] is True, name
        assert inside["capabilities"] == {"drop": ["ALL"]}, name
        assert not inside.get("privileged"), name
        assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")), name
        allowed = {"emptyDir", "configMap", "secret", "persistentVolumeClaim"}
        assert all(set(volume) - {"name"} <= allowed for volume in pod.get("volumes", [])), name


def test_pods_have_no_rights_in_the_cluster(manifests: list[Manifest]) -> None:
    """But for the learner with the component `jobset`; test_jobset.py says which."""
    makes_nodes = bool(of_kind(manifests, "PodTemplate"))
    accounts = of_kind(manifests, "ServiceAccount")
    for name, pod, _ in containers(manifests):
        assert pod["automountServiceAccountToken"] is (makes_nodes and name == "learner"), name
        assert accounts[pod["serviceAccountName"]]["automountServiceAccountToken"] is False, name
    rights = of_kind(manifests, "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")
    assert set(rights) == ({"nodes"} if makes_nodes else set())


def test_images_are_of_one_version(manifests: list[Manifest]) -> None:
    for name, _, container in containers(manifests):
        image, _, tag = container["image"].rpartition(":")
        assert image, f"{name}: {container['image']} has no tag"
        assert tag != "latest", name
        if image.startswith(f"{sizes.NAMESPACE}/"):
            assert tag.split("-")[0] == newt.__version__, name


def test_resources_are_bounded(manifests: list[Manifest]) -> None:
    for name, _, container in containers(manifests):
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert 0 < bytes_of(requests["memory"]) <= bytes_of(limits["memory"]), name
        assert 0 < cores_of(requests["cpu"]) <= cores_of(limits["cpu"]), name


def test_redis_has_room_to_rewrite_its_file() -> None:
    config = of_kind(base(), "ConfigMap")["redis"]["data"]["redis.conf"]
    match = re.search(r"^maxmemory (\d+)gb$", config, re.MULTILINE)
    assert match
    limit = workloads(base())["redis"]["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"]
    assert 1.5 * int(match[1]) * 1024**3 <= bytes_of(limit)
    assert {"appendonly yes", "maxmemory-policy noeviction"} <= {line.strip() for line in config.splitlines()}


def test_replays_mirror_has_room_for_a_full_redis() -> None:
    """It takes up to 1.5 times what Redis holds while a ring grows; in compose as in Kubernetes."""
    config = of_kind(base(), "ConfigMap")["redis"]["data"]["redis.conf"]
    match = re.search(r"^maxmemory (\d+)gb$", config, re.MULTILINE)
    assert match
    container = workloads(base())["replay"]["spec"]["template"]["spec"]["containers"][0]
    assert 1.5 * int(match[1]) * 1024**3 <= bytes_of(container["resources"]["limits"]["memory"])

    names = ("REDIS_MAXMEMORY", "REDIS_MEMORY", "REPLAY_MEMORY")
    plain, example = ((DEPLOY.parent / name).read_text() for name in ("compose.yaml", ".env.example"))
    gigabytes = [re.findall(rf"NEWT_COMPOSE_{name}:-(\d+)gb?", plain)[0] for name in names]
    assert gigabytes == [re.findall(rf"^NEWT_COMPOSE_{name}=(\d+)gb?$", example, re.MULTILINE)[0] for name in names]
    held, redis, replay = map(int, gigabytes)
    assert 1.5 * held <= min(redis, replay)


def test_what_holds_the_episodes_is_not_the_first_to_be_evicted() -> None:
    """A node that runs out of memory evicts first who has more than it asked for."""
    config = of_kind(base(), "ConfigMap")["redis"]["data"]["redis.conf"]
    (held,) = re.findall(r"^maxmemory (\d+)gb$", config, re.MULTILINE)
    for built in (base(), combined("replay-shards")):
        for name, times in (("redis", 1.0), ("replay", 1.5)):
            (container,) = workloads(built)[name]["spec"]["template"]["spec"]["containers"]
            asked = bytes_of(container["resources"]["requests"]["memory"])
            assert asked > times * int(held) * 1024**3, name


def test_no_pod_that_is_not_ready_holds_a_node(manifests: list[Manifest]) -> None:
    for name, budget in of_kind(manifests, "PodDisruptionBudget").items():
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow", name


def test_every_container_is_probed(manifests: list[Manifest]) -> None:
    jobs = {name for name, maker in workloads(manifests).items() if maker["kind"] == "Job"}
    for name, pod, container in containers(manifests):
        if name in jobs:
            continue
        ports = {port["containerPort"] for port in container["ports"]}
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = container[kind]
            if "grpc" in probe:
                assert probe["grpc"]["port"] in ports, name
                expected = r"newt\.v1\.\w+Service" if kind == "readinessProbe" else LIVENESS
                assert re.fullmatch(expected, probe["grpc"]["service"]), name
            else:
                assert {"exec", "httpGet", "tcpSocket"} & set(probe), name
        # Liveness is tolerant: a busy service must not be killed for being busy.
        liveness = container["livenessProbe"]
        assert liveness["timeoutSeconds"] >= 5, name
        assert liveness["failureThreshold"] >= 5, name
        assert pod["terminationGracePeriodSeconds"] >= 30, name
        drains = [float(item["value"]) for item in container.get("env", []) if item["name"] == "NEWT_SIM_DRAIN_S"]
        assert len(drains) == name.startswith("sim-"), name
        assert all(drain_s + 15 < pod["terminationGracePeriodSeconds"] for drain_s in drains), name


def test_settings_are_valid(manifests: list[Manifest], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, pod, container in containers(manifests):
        kind = name.partition("-")[0]
        # Variables such as NEWT_REPLAY_PORT=tcp://... of a service named like ours would be refused.
        assert pod["enableServiceLinks"] is False, name
        if kind not in SETTINGS:
            continue
        with monkeypatch.context() as patch:
            for key, value in environment(manifests, container).items():
                patch.setenv(key, value)
            settings = SETTINGS[kind]()
        assert settings.host == "0.0.0.0", name
        ports = {port["containerPort"] for port in container["ports"]}
        assert settings.port in ports, name
        assert settings.metrics_port in ports, name
        annotations = workloads(manifests)[name]["spec"]["template"]["metadata"]["annotations"]
        assert annotations == {
            "prometheus.io/scrape": "true",
            "prometheus.io/port": str(settings.metrics_port),
            "prometheus.io/path": "/metrics",
        }, name


def test_selectors_find_their_pods(manifests: list[Manifest]) -> None:
    makers = workloads(manifests)
    labels = {name: maker["spec"]["template"]["metadata"]["labels"] for name, maker in makers.items()}

    def chosen(selector: dict[str, str]) -> list[str]:
        return [name for name, have in labels.items() if selector.items() <= have.items()]

    for name, maker in makers.items():
        if maker["kind"] != "Job":
            assert chosen(maker["spec"]["selector"]["matchLabels"]) == [name]
    for name, service in of_kind(manifests, "Service").items():
        assert chosen(service["spec"]["selector"]) == [name]
        assert service["spec"]["clusterIP"] == "None", f"{name} must be headless for gRPC clients to see its replicas"
        names = {port["name"] for port in makers[name]["spec"]["template"]["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= names
    budgets = of_kind(manifests, "PodDisruptionBudget")
    assert set(budgets) == {name for name, maker in makers.items() if maker["kind"] != "Job"}
    for name, budget in budgets.items():
        assert chosen(budget["spec"]["selector"]["matchLabels"]) == [name]


def test_autoscaled_are_the_stateless_and_the_simulators(manifests: list[Manifest]) -> None:
    scaled = of_kind(manifests, "HorizontalPodAutoscaler", "ScaledObject")
    makers = of_kind(manifests, "Deployment")
    assert set(scaled) == set(makers) - {"replay"}
    if "replay" in makers:
        assert makers["replay"]["spec"]["replicas"] == 1  # Redis has one writer
    for name, scaler in scaled.items():
        assert scaler["spec"]["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
        assert "replicas" not in makers[name]["spec"], f"{name}: an apply would undo the autoscaler's choice"


def test_the_learner_knows_every_simulator() -> None:
    config = of_kind(base(), "ConfigMap")["learner"]["data"]
    targets = json.loads(config["NEWT_LEARNER_SIMS"])
    assert targets == {domain: f"dns:///sim-{domain}:50051" for domain in DOMAINS}
    services = of_kind(base(), "Service")
    addresses = [*targets.values(), config["NEWT_LEARNER_REPLAY"], config["NEWT_LEARNER_PLANNER"]]
    addresses.append(of_kind(base(), "ConfigMap")["planner"]["data"]["NEWT_PLANNER_HUB"])
    for address in addresses:
        match = re.fullmatch(r"dns:///([a-z0-9-]+):(\d+)", address)
        assert match, address
        assert int(match[2]) in {port["port"] for port in services[match[1]]["spec"]["ports"]}, address


# ---- who may call whom


def components(selector: dict[str, Any]) -> list[str]:
    """Components that a pod selector chooses."""
    if COMPONENT in selector.get("matchLabels", {}):
        return [selector["matchLabels"][COMPONENT]]
    (expression,) = selector["matchExpressions"]
    assert expression["key"] == COMPONENT
    assert expression["operator"] == "In"
    return list(expression["values"])


def peers(rules: list[dict[str, Any]]) -> list[str]:
    """Components and namespaces of the peers of a rule; a rule without peers would mean everybody."""
    assert rules
    found: list[str] = []
    for rule in rules:
        if "ipBlock" in rule:
            assert rule == {"ipBlock": {"cidr": "169.254.0.0/16"}}  # the node's own cache of names
        elif "namespaceSelector" in rule:
            assert set(rule) == {"namespaceSelector"}
            found.append(rule["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"])
        else:
            found += components(rule["podSelector"])
    return found


def arrows(manifests: list[Manifest], direction: str) -> set[tuple[str, str, int]]:
    """From, to and port (0: any) of what the policies allow."""
    key, side = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    found = set()
    for policy in of_kind(manifests, "NetworkPolicy").values():
        if policy["spec"]["podSelector"] == {}:
            continue
        assert key not in policy["spec"] or direction in policy["spec"]["policyTypes"]
        for rule in policy["spec"].get(key, []):
            for own in components(policy["spec"]["podSelector"]):
                for peer in peers(rule[side]):
                    for port in rule.get("ports", [{"port": 0}]):
                        found.add((peer, own, port["port"]) if direction == "Ingress" else (own, peer, port["port"]))
    return found


def test_everything_is_denied_at_first(manifests: list[Manifest]) -> None:
    assert of_kind(manifests, "NetworkPolicy")["default-deny"]["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
    }


def test_exactly_the_arrows_of_the_design_are_allowed() -> None:
    assert arrows(base(), "Ingress") == ARROWS | SCRAPED
    assert arrows(base(), "Egress") == ARROWS | NAMES


def test_the_ingress_overlay_adds_one_arrow() -> None:
    for name in ("ingress", "tls"):
        assert arrows(overlay(name), "Ingress") == ARROWS | SCRAPED | {("ingress-nginx", "learner", 8000)}


def test_the_gateway_overlay_leads_to_the_learner() -> None:
    built = overlay("gateway")
    assert arrows(built, "Ingress") == ARROWS | SCRAPED | {("gateway", "learner", 8000)}
    (rule,) = of_kind(built, "HTTPRoute")["learner"]["spec"]["rules"]
    (backend,) = rule["backendRefs"]
    assert backend["port"] in {port["port"] for port in of_kind(built, "Service")[backend["name"]]["spec"]["ports"]}


def test_whoever_asks_redis_can_have_its_password_from_a_file(manifests: list[Manifest]) -> None:
    pods = [(pod, container) for _, pod, container in containers(manifests)]
    pods += [
        (job["spec"]["template"]["spec"], job["spec"]["template"]["spec"]["containers"][0])
        for job in (restore("backup"), restore("backup-s3"))
    ]
    asking = 0
    for pod, container in pods:
        asks = any(
            source.get("secretRef", {}).get("name") == "redis-clients" for source in container.get("envFrom", [])
        )
        mounts = [mount for mount in container["volumeMounts"] if mount["name"] == "redis-password"]
        assert mounts == asks * [{"name": "redis-password", "mountPath": "/redis-password", "readOnly": True}]
        secrets = [volume["secret"] for volume in pod["volumes"] if volume["name"] == "redis-password"]
        assert secrets == asks * [{"secretName": "redis-password", "optional": True}]
        asking += asks
    assert asking >= 4  # replay, the learner, and what restores


def test_the_external_redis_overlay_has_no_redis() -> None:
    built = overlay("external-redis")
    assert not [item for item in built if item["metadata"]["name"] == "redis"]
    outside = of_kind(built, "NetworkPolicy")["external-redis"]["spec"]
    callers = {
        component for component, peer, _ in arrows(combined("backup", "multi-node"), "Egress") if peer == "redis"
    }
    assert set(components(outside["podSelector"])) == callers
    for name in ("replay", "learner"):
        container = workloads(built)[name]["spec"]["template"]["spec"]["containers"][0]
        assert {"secretRef": {"name": "redis-clients", "optional": False}} in container["envFrom"]
        assert not [key for key in environment(built, container) if key.endswith("REDIS_URL")]


def test_the_traces_overlay_adds_the_collector() -> None:
    built = combined("multi-node", "traces")
    components = {"learner", "node", "planner", "replay", "sim"}
    added = {(component, "monitoring", 4318) for component in components}
    without = combined("multi-node")
    assert arrows(built, "Ingress") == arrows(without, "Ingress")
    assert arrows(built, "Egress") == arrows(without, "Egress") | added | {("sim", "kube-system", 53)}
    for name, _, container in containers(built):
        told = "OTEL_EXPORTER_OTLP_ENDPOINT" in environment(built, container)
        assert told == (name != "redis"), name


def test_the_gpu_overlay_puts_models_on_gpus() -> None:
    built = overlay("gpu")
    for name in ("planner", "learner"):
        container = workloads(built)[name]["spec"]["template"]["spec"]["containers"][0]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
        assert environment(built, container)[f"NEWT_{name.upper()}_DEVICE"] == "cuda"
        assert container["image"].endswith("-cuda")


def test_simulators_that_draw_on_gpus_have_one_each_and_need_no_spare_one() -> None:
    built = combined("gpu-sims", "mtls")
    for name, maker in workloads(built).items():
        (container,) = maker["spec"]["template"]["spec"]["containers"]
        is_sim = name.startswith("sim-")
        assert container["resources"]["limits"].get("nvidia.com/gpu") == (1 if is_sim else None), name
        if is_sim:
            assert maker["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}
            assert maker["spec"]["template"]["spec"]["tolerations"][0]["key"] == "nvidia.com/gpu"
    # Without it, the container toolkit mounts no driver that draws.
    capabilities = re.findall(
        r"^ENV NVIDIA_DRIVER_CAPABILITIES=(.+)$", (DEPLOY.parent / "Dockerfile").read_text(), re.MULTILINE
    )
    assert "graphics" in capabilities[0].split(",")


def test_the_laptop_overlay_fits_four_cores_and_eight_gibibytes_and_pulls_nothing_of_ours() -> None:
    asked = [container["resources"]["requests"] for _, _, container in containers(overlay("laptop"))]
    # What the cluster itself wants of a node: about half a core and 1 GiB.
    assert sum(cores_of(requests["cpu"]) for requests in asked) <= 3.5
    assert sum(bytes_of(requests["memory"]) for requests in asked) <= 6 * 1024**3
    for name, _, container in containers(overlay("laptop")):
        ours = container["image"].startswith(f"{sizes.NAMESPACE}/")
        assert container.get("imagePullPolicy") == ("Never" if ours else None), name
    assert {name for name in workloads(overlay("laptop")) if name.startswith("sim-")} == {
        "sim-dmcontrol",
        "sim-metaworld",
        "sim-mujoco",
    }


def test_the_multi_node_overlay_lets_trainers_meet_and_share_the_checkpoints() -> None:
    built = overlay("multi-node")
    between = {("learner", "node", 0), ("node", "learner", 0), ("node", "node", 0)}
    reads = {("node", "replay", 50061), ("node", "redis", 6379)}
    assert arrows(built, "Ingress") == ARROWS | SCRAPED | between | reads
    assert arrows(built, "Egress") == ARROWS | NAMES | between | reads | {("node", "kube-system", 53)}
    learner, job = workloads(built)["learner"]["spec"], workloads(built)["node"]["spec"]
    (claim,) = learner["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    volumes = {volume["name"]: volume for volume in job["template"]["spec"]["volumes"]}
    # A StatefulSet names its claims so.
    assert volumes["data"]["persistentVolumeClaim"]["claimName"] == f"{claim['metadata']['name']}-learner-0"
    assert job["completionMode"] == "Indexed"
    (container,) = job["template"]["spec"]["containers"]
    assert container["command"][-2:] == ["--index", "$(JOB_COMPLETION_INDEX)"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts["data"] == environment(built, container)["NEWT_LEARNER_DATA_DIR"]
    host, _, port = environment(built, container)["NEWT_LEARNER_RENDEZVOUS"].rpartition(":")
    meeting = of_kind(built, "Service")[host]["spec"]
    assert int(port) in {entry["port"] for entry in meeting["ports"]}
    assert meeting["publishNotReadyAddresses"]  # trainers meet also while planners are not served


def test_the_backup_overlay_reads_what_the_learner_has_and_no_more() -> None:
    built = overlay("backup")
    reads = ("backup", "redis", 6379)
    assert arrows(built, "Ingress") == ARROWS | SCRAPED | {reads}
    assert arrows(built, "Egress") == ARROWS | NAMES | {reads, ("backup", "kube-system", 53)}
    restoring = restore("backup")
    test_pods_meet_the_restricted_profile([restoring])
    (claim,) = workloads(built)["learner"]["spec"]["volumeClaimTemplates"]
    read_only = []
    for job in (workloads(built)["backup"], restoring):
        assert job["spec"]["template"]["metadata"]["labels"][COMPONENT] == "backup"
        pod = job["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"] == workloads(built)["learner"]["spec"]["template"]["spec"]["containers"][0]["image"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["data"]["persistentVolumeClaim"]["claimName"] == f"{claim['metadata']['name']}-learner-0"
        mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
        values = environment(built, container)
        assert mounts["data"]["mountPath"] == values["NEWT_LEARNER_DATA_DIR"]
        assert values["NEWT_LEARNER_REDIS_URL"] == "redis://redis:6379/0"
        assert container["command"][2:5] == ["python", "-m", "newt.backup"]
        place = container["command"][6].replace("$(NEWT_BACKUP_PLACE)", values.get("NEWT_BACKUP_PLACE", ""))
        assert place.startswith(mounts["backups"]["mountPath"])
        read_only.append([name for name, mount in mounts.items() if mount.get("readOnly")])
    assert read_only == [["data", "redis-password"], ["backups", "redis-password"]]


def test_a_backup_in_a_bucket_needs_keys_and_no_volume() -> None:
    built = overlay("backup-s3")
    plain, restoring = restore("backup"), restore("backup-s3")
    test_pods_meet_the_restricted_profile([restoring])
    job = workloads(built)["backup"]
    places = []
    for whole in (job, restoring):
        (container,) = whole["spec"]["template"]["spec"]["containers"]
        assert container["envFrom"][-1] == {"secretRef": {"name": "backup-s3"}}
        assert [mount["name"] for mount in container["volumeMounts"]] == ["data", "tmp", "redis-password"]
        volumes = [volume["name"] for volume in whole["spec"]["template"]["spec"]["volumes"]]
        assert volumes == ["data", "tmp", "redis-password"]
        values = environment(built, container)
        places.append(container["command"][6].replace("$(NEWT_BACKUP_PLACE)", values.get("NEWT_BACKUP_PLACE", "")))
        container["envFrom"].pop()
    assert places[0].startswith("s3://")
    assert places[1] == f"{places[0]}/BACKUP"
    pod = plain["spec"]["template"]["spec"]
    for kept in (pod["volumes"], pod["containers"][0]["volumeMounts"]):
        kept[:] = [entry for entry in kept if entry["name"] != "backups"]
    pod["containers"][0]["command"][6] = places[1]
    assert restoring == plain
    (rule,) = of_kind(built, "NetworkPolicy")["backup-s3"]["spec"]["egress"]
    assert {port["port"] for port in rule["ports"]} == {443, 9000}


def test_own_kustomizations_combine_what_the_overlays_have() -> None:
    assert {path.name for path in (DEPLOY / "components").iterdir()} == set(COMPONENTS)
    for name in OVERLAYS:
        own = yaml.safe_load((DEPLOY / "overlays" / name / "kustomization.yaml").read_text())
        assert set(own) == {"apiVersion", "kind", "resources", "components"}, f"{name} can only be had alone"
    built = combined("multi-node", "gpu", "planner-replicas", "mtls")
    planner = of_kind(built, "HorizontalPodAutoscaler")["planner"]["spec"]
    assert planner["minReplicas"] == 3
    for name in ("planner", "learner", "node"):
        (container,) = workloads(built)[name]["spec"]["template"]["spec"]["containers"]
        assert container["image"].endswith("-cuda"), name
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 1, name
        assert "cuda" in environment(built, container).values(), name
        assert environment(built, container)["NEWT_TLS_DIR"] == "/etc/newt-tls", name


def test_further_nodes_find_the_redis_that_is_not_ours() -> None:
    job = workloads(combined("multi-node", "external-redis"))["node"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert {"secretRef": {"name": "redis-clients", "optional": False}} in container["envFrom"]


def test_no_secret_lies_in_the_manifests(manifests: list[Manifest]) -> None:
    assert not of_kind(manifests, "Secret")
    for name, _, container in containers(manifests):
        for key, value in environment(manifests, container).items():
            assert not re.search(r"://[^/]*@", value), f"{name}: {key} holds a password"
