"""The component `jobset`: fields by the documentation of JobSet and Kueue, and pods as those of the Job."""

from __future__ import annotations

from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from foreign_fields import COUNT, strict
from manifests import COMPONENTS, combined, of_kind, overlay, workloads

NAME = {"type": "string", "pattern": "^[a-z]([a-z0-9-]*[a-z0-9])?$", "maxLength": 63}
JOB_SET = strict(
    {
        "replicatedJobs": {
            "type": "array",
            "minItems": 1,
            "items": strict({"name": NAME, "template": strict({"spec": {"type": "object"}})}, {"replicas": COUNT}),
        }
    },
    {"ttlSecondsAfterFinished": COUNT, "failurePolicy": strict({"maxRestarts": COUNT})},
)
QUEUE = "kueue.x-k8s.io/queue-name"
BEFORE = COMPONENTS[: COMPONENTS.index("jobset")]


def job_set(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    return of_kind(manifests, "JobSet")["node"]


def test_the_fields_are_those_of_the_documentation() -> None:
    built = overlay("jobset")
    jsonschema.validate(job_set(built)["spec"], JOB_SET)
    queue = of_kind(built, "LocalQueue")["newt"]
    jsonschema.validate(queue["spec"], strict({"clusterQueue": NAME}))
    assert job_set(built)["metadata"]["labels"][QUEUE] == queue["metadata"]["name"]
    assert queue["metadata"]["namespace"] == job_set(built)["metadata"]["namespace"] == "newt"
    with pytest.raises(jsonschema.ValidationError, match="completions"):
        jsonschema.validate({**job_set(built)["spec"], "completions": 1}, JOB_SET)


@pytest.mark.parametrize("others", [("multi-node",), BEFORE], ids=["alone", "after all others"])
def test_its_job_is_that_of_multi_node(others: tuple[str, ...]) -> None:
    before, built = combined(*others), combined(*others, "jobset")
    assert "node" not in of_kind(built, "Job")
    assert workloads(built)["node"]["spec"] == of_kind(before, "Job")["node"]["spec"]
    # Its pods have names of their own: node-node-0-0-...
    (replicated,) = job_set(built)["spec"]["replicatedJobs"]
    assert replicated["replicas"] == 1  # the index of a pod is its number among the further nodes
    whole = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "node"}, **replicated["template"]}
    for version in ("1.29.0", "1.34.0"):
        kubernetes_validate.validate(whole, version, strict=True)
