"""The component `jobset`: the learner makes JobSets of its PodTemplate, and may do no more than that.

Fields are those of the documentation of JobSet and Kueue.
"""

from __future__ import annotations

from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from foreign_fields import COUNT, TEXT, strict
from manifests import COMPONENTS, Manifest, combined, of_kind, overlay, workloads

from services.learner.processes.job_set import QUEUE, job_set
from services.learner.settings import LearnerSettings

NAME = {"type": "string", "pattern": "^[a-z]([a-z0-9-]*[a-z0-9])?$", "maxLength": 63}
JOB_SET = strict(
    {
        "apiVersion": {"const": "jobset.x-k8s.io/v1alpha2"},
        "kind": {"const": "JobSet"},
        "metadata": strict({"name": NAME, "labels": {"additionalProperties": TEXT}, "annotations": {"type": "object"}}),
        "spec": strict(
            {
                "failurePolicy": strict({"maxRestarts": COUNT}),
                "replicatedJobs": {
                    "type": "array",
                    "minItems": 1,
                    "items": strict({"name": NAME, "replicas": COUNT, "template": strict({"spec": {}})}),
                },
            }
        ),
    }
)
BEFORE = COMPONENTS[: COMPONENTS.index("jobset")]


def settings(manifests: list[Manifest], monkeypatch: pytest.MonkeyPatch) -> LearnerSettings:
    """Those of the learner."""
    for name, value in of_kind(manifests, "ConfigMap")["learner"]["data"].items():
        monkeypatch.setenv(name, value)
    return LearnerSettings()


def test_the_learner_makes_what_jobset_and_kueue_read(monkeypatch: pytest.MonkeyPatch) -> None:
    built = overlay("jobset")
    told = settings(built, monkeypatch)
    pods = of_kind(built, "PodTemplate")[told.node_template]
    queue = of_kind(built, "LocalQueue")[told.node_queue]
    assert {item["metadata"]["namespace"] for item in (pods, queue)} == {told.node_namespace}
    jsonschema.validate(queue["spec"], strict({"clusterQueue": NAME}))
    made = job_set("Some_Run-1a2b3c4d", 3, pods["template"], told.node_queue)
    jsonschema.validate(made, JOB_SET)
    assert made["metadata"]["labels"][QUEUE] == told.node_queue
    with pytest.raises(jsonschema.ValidationError, match="completions"):
        jsonschema.validate({**made, "spec": {**made["spec"], "completions": 1}}, JOB_SET)
    (replicated,) = made["spec"]["replicatedJobs"]
    # Names of pods are longer by the Job's, the index of the Job, that of the pod, and five letters.
    assert len(made["metadata"]["name"]) + len("-node-0-63-abcde") <= 63
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "node"}, **replicated["template"]}
    for version in ("1.29.0", "1.34.0"):
        kubernetes_validate.validate(job, version, strict=True)


@pytest.mark.parametrize("others", [("multi-node",), BEFORE], ids=["alone", "after all others"])
def test_its_pods_are_those_of_multi_node(others: tuple[str, ...]) -> None:
    before, built = combined(*others), combined(*others, "jobset")
    assert "node" not in of_kind(built, "Job")
    assert workloads(built)["node"]["spec"]["template"] == of_kind(before, "Job")["node"]["spec"]["template"]


def test_the_learner_may_make_jobsets_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    built = overlay("jobset")
    rules: list[dict[str, Any]] = of_kind(built, "Role")["nodes"]["rules"]
    template = settings(built, monkeypatch).node_template
    assert rules == [
        {"apiGroups": ["jobset.x-k8s.io"], "resources": ["jobsets"], "verbs": ["create", "list", "delete"]},
        {"apiGroups": [""], "resources": ["podtemplates"], "resourceNames": [template], "verbs": ["get"]},
    ]
    (subject,) = of_kind(built, "RoleBinding")["nodes"]["subjects"]
    assert subject["name"] == workloads(built)["learner"]["spec"]["template"]["spec"]["serviceAccountName"]
    without = [item for item in overlay("multi-node") if item["kind"] == "NetworkPolicy"]
    (new,) = [item for item in built if item["kind"] == "NetworkPolicy" and item not in without]
    assert new["spec"]["podSelector"] == of_kind(built, "NetworkPolicy")["learner"]["spec"]["podSelector"]
    assert new["spec"]["policyTypes"] == ["Egress"]
    (rule,) = new["spec"]["egress"]
    assert [port["port"] for port in rule["ports"]] == [443, 6443]
